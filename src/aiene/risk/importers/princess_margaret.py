"""Princess Margaret's collections of The Cancer Imaging Archive: RADCURE and OPC-Radiomics.

RADCURE is its clinical table v04 (doi 10.7937/J47W-NM11, CC BY 4.0). OPC-Radiomics has 606 patients, of whom
some are in RADCURE too; its importer is experimental, since the official file was not seen.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from aiene.risk.importers.source import ImportOptions, Source, days_between
from aiene.risk.importers.terms import SEX, either, failure_time, of_edition, since, treatment_start
from aiene.risk.table.columns import DAYS_PER_YEAR
from aiene.risk.table.values import rows_of

TITLE = "RADCURE clinical table v04; edition 7; times from the dates, from the start of radiotherapy"

_SITES = {
    "Oropharynx": "oropharynx",
    "Unknown": "unknown_primary",
    "Larynx": "larynx",
    "Hypopharynx": "hypopharynx",
    "Lip & Oral Cavity": "oral_cavity",
    "Nasopharynx": "nasopharynx",
}
_HPV = {"Yes, positive": "positive", "Yes, Negative": "negative"}
_SMOKING = {"Non-smoker": "never", "Ex-smoker": "former", "Current": "current", "unknown": None}
_ECOG: dict[str, str | None] = {
    **{f"ECOG {n}": str(n) for n in range(5)},
    **{f"ECOG-Pt {n}": str(n) for n in range(5)},
    "ECOG 0-1": None,
    "Unknown": None,
}
_TREATMENT = {"RT alone": "rt", "ChemoRT": "crt", "RT + EGFRI": "rt_egfr", "Postop RT alone": "other"}


def build(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns of a RADCURE table.

    Raises
    ------
    InputError : a column is missing, or a code or date is unknown.
    """
    source.need(
        "patient_id", "Age", "Sex", "Smoking PY", "Ds Site", "T", "N", "M", "HPV", "RT Start", "Last FU",
        "Status", "Distant", "Date Distant",
    )  # fmt: skip
    treatment = source.coded("treatment", "Tx Modality", codes=_TREATMENT)
    site = source.coded("site", "Ds Site", codes=_SITES, otherwise="other")
    out = {
        "patient_id": source.plain("patient_id", "patient_id"),
        "site": site,
        "hpv": source.coded("hpv", "HPV", codes=_HPV),
        **of_edition(source, "7", "T", "N", "M"),
        "pack_years": source.plain("pack_years", "Smoking PY", understood="pack-years; bounds give a class"),
        "smoking_status": source.coded("smoking_status", "Smoking Status", codes=_SMOKING),
        "age": source.numbers("age", "Age", unit="years"),
        "sex": source.coded("sex", "Sex", codes={"Male": "male", "Female": "female"}),
        "ecog": source.coded("ecog", "ECOG PS", codes=_ECOG),
        "treatment": treatment,
        "surgery_first": source.text("Tx Modality").str.startswith("Postop"),
        "time_origin": pd.Series("rt_start", index=source.raw.index),
        **_times(source, options),
        "radcure_challenge": source.text("RADCURE-challenge"),
    }
    return pd.DataFrame(out)


def _times(source: Source, options: ImportOptions) -> dict[str, pd.Series]:
    start, last = _date(source, "RT Start"), _date(source, "Last FU")
    died = source.coded("os_event", "Status", codes={"Alive": "0", "Dead": "1"})
    death = _date(source, "Date of Death")
    other_day = ((died == "1") & death.notna() & (death != last)).fillna(False).to_numpy(dtype=bool)
    if other_day.any():
        source.findings.warn(
            f"the date of death is not the last follow-up in {rows_of(other_day)}; the latter is taken"
        )
    os_days = days_between(last, start)
    codes = {"Yes": "1", "Persistent": "1", "Possible": "1" if options.possible_is_event else "0"}
    failures = {
        name: (
            source.coded(f"{name.lower()} failure", name, codes=codes).fillna("0"),
            _date(source, f"Date {name}"),
        )
        for name in ("Local", "Regional", "Distant")
    }
    lrf_date, lrf_event = either(failures["Local"][::-1], failures["Regional"][::-1])
    out = {"os_time": pd.Series(os_days / DAYS_PER_YEAR), "os_event": died}
    for name, event, date in (("dm", *failures["Distant"]), ("lrf", lrf_event, lrf_date)):
        out[f"{name}_time"] = _time_of(name, event, days_between(date, start), os_days, source)
        out[f"{name}_event"] = event
    for name in ("os_time", "dm_time", "lrf_time"):
        source.record(name, ("RT Start",), f"days from RT Start / {DAYS_PER_YEAR:g} = years", out[name])
    return out


def _time_of(
    name: str, event: pd.Series, event_days: np.ndarray, last_days: np.ndarray, source: Source
) -> pd.Series:
    happened = (event == "1").to_numpy(dtype=bool)
    days = np.where(happened, event_days, last_days)
    before = happened & (days < 0)
    if before.any():
        source.findings.warn(f"{name}: the event is before RT start in {rows_of(before)}; counted at time 0")
    return pd.Series(np.where(before, 0.0, days) / DAYS_PER_YEAR)


def _date(source: Source, header: str) -> pd.Series:
    texts = source.text(header)
    dates = pd.to_datetime(texts, format="%m/%d/%Y", errors="coerce")
    iso = pd.to_datetime(texts, format="%Y-%m-%d", errors="coerce")
    found = dates.fillna(iso)
    bad = (texts.notna() & found.isna()).to_numpy(dtype=bool)
    if bad.any():
        shown = texts[bad].iloc[0]
        source.findings.bad_values(
            f'{header} holds "{shown}" in {rows_of(bad)}, which is not a date', "write month/day/year"
        )
    return found


# OPC-Radiomics

OPC_TITLE = (
    "OPC-Radiomics sheet (experimental); edition 7; days from diagnosis, or from the start of radiotherapy"
)

_OPC_LAST = "Time interval from the date of diagnosis to the date of last FU (days)"
_OPC_START = "Time interval from the date of diagnosis to the RT start date (days)"
_OPC_FAILED: dict[str, str | None] = {"Yes": "1", "Persistent": "1", "No": "0", "Possible": "0"}
_OPC_HPV: dict[str, str | None] = {
    "Positive": "positive", "Negative": "negative", "Yes, positive": "positive", "Yes, Negative": "negative",
    "Unknown": None, "Not tested": None,
}  # fmt: skip


def build_opc(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns; headers of another copy are named under `[headers]` of a mapping file.

    Raises
    ------
    InputError : a column is missing or a code is unknown.
    """
    source.need("Trial PatientID", "Status(OS)", _OPC_LAST, "Distant Failure", "TIME_diagnosis2DF (days)")
    why = "the end of radiotherapy is not in the table"
    origin, start = treatment_start(source, options, _OPC_START, why)
    source.findings.warn(
        "patients may also be in RADCURE (same hospital); do not pool without de-duplication"
    )
    out = {
        "patient_id": source.plain("patient_id", "Trial PatientID"),
        "site": source.constant("oropharynx"),
        "hpv": source.coded("hpv", "HPV", "HPV Status", "HPV status", codes=_OPC_HPV),
        **of_edition(source, "7", "T", "N", "M"),
        "pack_years": source.plain("pack_years", "Smoking PY", understood="pack-years"),
        "smoking_status": source.coded("smoking_status", "Smoking Status", codes=_SMOKING),
        "age": source.numbers("age", "Age", unit="years"),
        "sex": source.coded("sex", "Sex", codes=SEX),
        "time_origin": source.constant(origin),
    }
    last = since(
        source, source.numbers("os_time", _OPC_LAST, per=DAYS_PER_YEAR, unit="days"), start, "os_time"
    )
    out["os_time"] = last
    out["os_event"] = source.coded("os_event", "Status(OS)", codes={"alive": "0", "dead": "1"})
    local, regional, distant = (
        _failure(source, f"{where} Failure", f"TIME_diagnosis2{short} (days)", start)
        for where, short in (("Local", "LF"), ("Regional", "RF"), ("Distant", "DF"))
    )
    out["dm_time"], out["dm_event"] = failure_time(source, "dm", distant[1], distant[0], last)
    first, event = either(local, regional)
    out["lrf_time"], out["lrf_event"] = failure_time(source, "lrf", event, first, last)
    return pd.DataFrame(out)


def _failure(source: Source, event: str, time: str, start: pd.Series | None) -> tuple[pd.Series, pd.Series]:
    """Years and "1" or "0" of one kind of failure; a blank is none, where the column exists."""
    words = source.coded(event, event, codes=_OPC_FAILED)
    if source.find(event) is not None:
        words = words.fillna("0")
    own = source.numbers(time, time, per=DAYS_PER_YEAR, unit="days")
    return since(source, own, start, event), words
