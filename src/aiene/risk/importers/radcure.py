"""RADCURE clinical table v04 (The Cancer Imaging Archive, doi 10.7937/J47W-NM11, CC BY 4.0)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from aiene.risk.importers.source import ImportOptions, Source, days_between
from aiene.risk.importers.terms import edition7
from aiene.risk.table.columns import DAYS_PER_YEAR
from aiene.risk.table.files import read_raw
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
_SMOKING: dict[str, str | None] = {
    "Non-smoker": "never",
    "Ex-smoker": "former",
    "Current": "current",
    "unknown": None,
}
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
        **edition7(source, "T", "N", "M", site),
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
        name: (_event(source, name, codes), _date(source, f"Date {name}"))
        for name in ("Local", "Regional", "Distant")
    }
    dm_event, dm_date = failures["Distant"]
    out = {"os_time": _years(os_days), "os_event": died}
    out["dm_time"] = _time_of("dm", dm_event, days_between(dm_date, start), os_days, source)
    out["dm_event"] = dm_event
    local, regional = failures["Local"], failures["Regional"]
    happened = (local[0] == "1") | (regional[0] == "1")
    first = pd.concat([local[1].where(local[0] == "1"), regional[1].where(regional[0] == "1")], axis=1)
    lrf = pd.Series(np.where(happened, "1", "0"), dtype="string")
    out["lrf_time"] = _time_of("lrf", lrf, days_between(first.min(axis=1), start), os_days, source)
    out["lrf_event"] = lrf
    for name in ("os_time", "dm_time", "lrf_time"):
        source.record(name, ("RT Start",), f"days from RT Start / {DAYS_PER_YEAR:g} = years", out[name])
    return out


def _event(source: Source, header: str, codes: dict[str, str]) -> pd.Series:
    words = source.coded(f"{header.lower()} failure", header, codes=codes)
    return words.fillna("0")


def _time_of(
    name: str, event: pd.Series, event_days: np.ndarray, last_days: np.ndarray, source: Source
) -> pd.Series:
    happened = (event == "1").to_numpy(dtype=bool)
    days = np.where(happened, event_days, last_days)
    before = happened & (days < 0)
    if before.any():
        source.findings.warn(f"{name}: the event is before RT start in {rows_of(before)}; counted at time 0")
    return _years(np.where(before, 0.0, days))


def _years(days: np.ndarray) -> pd.Series:
    return pd.Series(days / DAYS_PER_YEAR)


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


def read(path: Path, options: ImportOptions) -> pd.DataFrame:
    """The raw table."""
    return read_raw(path, sheet=options.sheet)
