"""OPC-Radiomics (The Cancer Imaging Archive, 606 patients); experimental: the official file was not seen."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aiene.risk.importers.source import PER_YEAR, ImportOptions, Source
from aiene.risk.importers.terms import edition7, either, failure_time, only_origin, since
from aiene.risk.table.files import read_raw

TITLE = (
    "OPC-Radiomics sheet (experimental); edition 7; days from diagnosis, or from the start of radiotherapy"
)

_LAST = "Time interval from the date of diagnosis to the date of last FU (days)"
_START = "Time interval from the date of diagnosis to the RT start date (days)"
_FAILED: dict[str, str | None] = {"Yes": "1", "Persistent": "1", "No": "0", "Possible": "0"}
_HPV: dict[str, str | None] = {
    "Positive": "positive",
    "Negative": "negative",
    "Yes, positive": "positive",
    "Yes, Negative": "negative",
    "Unknown": None,
    "Not tested": None,
}
_DAYS = PER_YEAR["days"]


def read(path: Path, options: ImportOptions) -> pd.DataFrame:
    """The raw table."""
    return read_raw(path, sheet=options.sheet)


def build(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns; headers of another copy are named under `[headers]` of a mapping file.

    Raises
    ------
    InputError : a column is missing or a code is unknown.
    """
    source.need("Trial PatientID", "Status(OS)", _LAST, "Distant Failure", "TIME_diagnosis2DF (days)")
    origin = options.origin or "diagnosis"
    if origin == "rt_end":
        only_origin(source, options, "diagnosis", "the end of radiotherapy is not in the table")
    start = None
    if origin == "rt_start":
        source.need(_START)
        start = source.numbers("start of treatment", _START, per=_DAYS, unit="days")
    source.findings.warn(
        "patients may also be in RADCURE (same hospital); do not pool without de-duplication"
    )
    smoking = {"Non-smoker": "never", "Ex-smoker": "former", "Current": "current", "unknown": None}
    out = {
        "patient_id": source.plain("patient_id", "Trial PatientID"),
        "site": pd.Series("oropharynx", index=source.raw.index, dtype="string"),
        "hpv": source.coded("hpv", "HPV", "HPV Status", "HPV status", codes=_HPV),
        **edition7(source, "T", "N", "M"),
        "pack_years": source.plain("pack_years", "Smoking PY", understood="pack-years"),
        "smoking_status": source.coded("smoking_status", "Smoking Status", codes=smoking),
        "age": source.numbers("age", "Age", unit="years"),
        "sex": source.coded(
            "sex", "Sex", codes={"Male": "male", "Female": "female", "M": "male", "F": "female"}
        ),
        "time_origin": pd.Series(origin, index=source.raw.index, dtype="string"),
    }
    last = since(source, source.numbers("os_time", _LAST, per=_DAYS, unit="days"), start, "os_time")
    out["os_time"] = last
    out["os_event"] = source.coded("os_event", "Status(OS)", codes={"alive": "0", "dead": "1"})
    local, regional, distant = (_failure(source, *pair, start) for pair in _FAILURES)
    out["dm_time"], out["dm_event"] = failure_time(source, "dm", distant[1], distant[0], last)
    first, event = either(local, regional)
    out["lrf_time"], out["lrf_event"] = failure_time(source, "lrf", event, first, last)
    return pd.DataFrame(out)


_FAILURES = (
    ("Local Failure", "TIME_diagnosis2LF (days)"),
    ("Regional Failure", "TIME_diagnosis2RF (days)"),
    ("Distant Failure", "TIME_diagnosis2DF (days)"),
)


def _failure(source: Source, event: str, time: str, start: pd.Series | None) -> tuple[pd.Series, pd.Series]:
    """Years and "1" or "0" of one kind of failure; a blank is none, where the column exists."""
    words = source.coded(event, event, codes=_FAILED)
    if source.find(event) is not None:
        words = words.fillna("0")
    own = source.numbers(time, time, per=_DAYS, unit="days")
    return since(source, own, start, event), words
