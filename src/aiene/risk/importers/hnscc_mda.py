"""HNSCC, the workbook `HNSCC-MDA-Data_update`: all sites, smoking in classes, one recurrence per patient."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aiene.risk.importers.options import ImportOptions
from aiene.risk.importers.sites import site_column
from aiene.risk.importers.source import PER_YEAR, Source
from aiene.risk.importers.times import failure_time, origin_of
from aiene.risk.importers.tnm import by_edition

PATIENT = "TCIA PatientID"
_FOLLOW_UP = "Follow up duration (day)"
_FREE = "Disease-free interval (months)"
_SEX: dict[str, str | None] = {"Male": "male", "Female": "female", "M": "male", "F": "female"}
_ALIVE: dict[str, str | None] = {"Alive": "0", "Dead": "1"}


def build(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns.

    Raises
    ------
    InputError : a column is missing or a code is unknown.
    """
    source.need(PATIENT, "Site", "T", "N", "Alive or Dead", _FOLLOW_UP, "Smoking History")
    origin = origin_of(source, options, "diagnosis", stated=False)
    died = source.coded("os_event", "Alive or Dead", codes=_ALIVE)
    last = source.numbers("os_time", _FOLLOW_UP, per=PER_YEAR["days"], unit="days")
    out = {
        "patient_id": source.plain("patient_id", PATIENT),
        "site": site_column(source, "Site"),
        "hpv": source.coded(
            "hpv",
            "HPV Status",
            "HPV status",
            codes={
                "Positive": "positive",
                "Negative": "negative",
                "P": "positive",
                "N": "negative",
                "Unknown": None,
            },
        ),
        **by_edition(source, options.edition, "T", "N", "M"),
        **_smoking(source),
        "age": source.numbers("age", "Age", unit="years"),
        "sex": source.coded("sex", "Sex", codes=_SEX),
        "time_origin": pd.Series(origin, index=source.raw.index, dtype="string"),
        "os_time": last,
        "os_event": died,
        **_recurrence(source, last),
    }
    surgery = source.text("Surgery Summary")
    out["surgery_first"] = surgery.notna() & ~surgery.str.casefold().isin(["none", "no", "0"]).fillna(False)
    return pd.DataFrame(out)


def _smoking(source: Source) -> dict[str, pd.Series]:
    """Class and status; ten pack-years exactly count among "ten or more" here, flagged in `boundary10`."""
    texts = source.text("Smoking History")
    classes = source.coded(
        "pack_years_class", "Smoking History", codes={"0": "le10", "1": "le10", "2": "gt10"}
    )
    current = source.text("Current Smoker")
    status = pd.Series(
        np.select([current == "1", texts == "0", texts.isin(["1", "2"])], ["current", "never", "former"], ""),
        dtype="string",
    ).replace("", pd.NA)
    source.record("smoking_status", ("Current Smoker",), "1 current; else by Smoking History", status)
    boundary = (classes == "gt10").fillna(False)
    if boundary.any():
        source.findings.warn(
            "pack_years_class: code 2 means ten or more, RTOG-0129 asks for more than ten; "
            f"{int(boundary.sum())} patients carry the flag boundary10"
        )
    return {"pack_years_class": classes, "smoking_status": status, "boundary10": boundary}


def _recurrence(source: Source, last: pd.Series) -> dict[str, pd.Series]:
    """Distant and locoregional failure from the site of the one recurrence that the table tells."""
    if source.find("Site of recurrence (Distal/Local/ Locoregional)") is None:
        header = "Site of recurrence"
    else:
        header = "Site of recurrence (Distal/Local/ Locoregional)"
    if source.find(header) is None:
        return {}
    words = source.text(header).str.casefold()
    free = source.numbers("disease-free interval", _FREE, per=PER_YEAR["months"], unit="months")
    out: dict[str, pd.Series] = {}
    for name, marks in (("dm", "dista"), ("lrf", "local|loco|regional")):
        happened = words.str.contains(marks).fillna(False)
        event = pd.Series(np.where(happened, "1", "0"), dtype="string")
        out[f"{name}_time"], out[f"{name}_event"] = failure_time(source, name, event, free, last)
        source.record(f"{name}_event", (header,), f'1 where it says "{marks.replace("|", " or ")}"', event)
    source.findings.note("one recurrence per patient is told: a later one of the other kind is not known")
    return out
