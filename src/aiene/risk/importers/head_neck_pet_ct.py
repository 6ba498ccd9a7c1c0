"""Head-Neck-PET-CT (The Cancer Imaging Archive), INFOclinical_HN_Version2_30may2018: a sheet per hospital."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from aiene.risk.importers.source import PER_YEAR, ImportOptions, Source
from aiene.risk.importers.terms import EVENTS, failure_time, of_edition, since, site_column, treatment_start
from aiene.risk.table.files import EXCEL, read_raw, sheet_names
from aiene.risk.table.values import rows_of

TITLE = "Head-Neck-PET-CT clinical workbook; edition 7; days from diagnosis, or from the start of treatment"

_SHEETS = ("HGJ", "CHUS", "HMR", "CHUM")
_DAYS = PER_YEAR["days"]
_TIME = "Time - diagnosis to {} (days)"
_THERAPY = {"radiation": "rt", "chemo radiation": "crt", "chemoradiation": "crt"}


def read(path: Path, options: ImportOptions) -> pd.DataFrame:
    """The raw table: all hospitals one below the other, with their sheet as `center`."""
    if path.suffix.lower() not in EXCEL:
        return read_raw(path)
    wanted = _SHEETS if options.sheet is None else (options.sheet,)
    present = {name.strip().casefold() for name in sheet_names(path)}
    chosen = [name for name in wanted if name.casefold() in present]
    if not chosen:
        return read_raw(path, sheet=options.sheet)
    return pd.concat([read_raw(path, sheet=name).assign(center=name) for name in chosen], ignore_index=True)


def build(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns.

    Raises
    ------
    InputError : a column is missing or a code is unknown.
    """
    source.need(
        "Patient #", "T-stage", "N-stage", "HPV status", "Death", "Distant", _TIME.format("last follow-up")
    )
    _drop_footer(source)
    why = "the end of treatment has errors in this table"
    origin, start = treatment_start(source, options, _TIME.format("start treatment"), why)
    ids = source.plain("patient_id", "Patient #")
    center = source.text("center").fillna(ids.str.extract(r"(HGJ|CHUS|HMR|CHUM)", expand=False))
    out = {
        "patient_id": ids,
        "site": site_column(source, "Primary Site"),
        "hpv": source.coded("hpv", "HPV status", codes={"+": "positive", "-": "negative", "N/A": None}),
        **of_edition(source, "7", "T-stage", "N-stage", "M-stage"),
        "age": source.numbers("age", "Age", unit="years"),
        "sex": source.coded("sex", "Sex", codes={"M": "male", "F": "female"}),
        "treatment": source.coded("treatment", "Therapy", codes=_THERAPY, otherwise="other"),
        "center": center,
        "time_origin": source.constant(origin),
        **_endpoints(source, start),
    }
    return pd.DataFrame(out)


def _drop_footer(source: Source) -> None:
    """Leave out the rows of remarks below the table."""
    named = source.find("Patient #"), source.find("T-stage"), source.find("HPV status"), source.find("Death")
    facts = source.raw[[name for name in named[1:] if name is not None]].notna().any(axis=1)
    keep = facts & source.raw[str(named[0])].notna()
    if not keep.all():
        left = (~keep).to_numpy(dtype=bool)
        source.findings.note(f"remarks below the table left out ({rows_of(left)})")
        source.raw = source.raw[keep].reset_index(drop=True)


def _years(source: Source, column: str, what: str) -> pd.Series:
    return source.numbers(column, _TIME.format(what), per=_DAYS, unit="days")


def _endpoints(source: Source, start: pd.Series | None) -> dict[str, pd.Series]:
    died = source.coded("os_event", "Death", codes=EVENTS)
    last = _years(source, "os_time", "last follow-up")
    death = _years(source, "time of death", "Death")
    later = ((died == "1") & (death > last)).fillna(False).to_numpy(dtype=bool)
    if later.any():
        source.findings.warn(f"death is after the last follow-up in {rows_of(later)}; the later is taken")
    end = pd.Series(np.fmax(last, death.where((died == "1").fillna(False).astype(bool))))
    end = since(source, end, start, "os_time")
    out = {"os_time": end, "os_event": died}
    for name, header, short in (("dm", "Distant", "DM"), ("lrf", "Locoregional", "LR")):
        event = source.coded(f"{name}_event", header, codes=EVENTS)
        own = since(source, _years(source, f"{name}_time", short), start, f"{name}_time")
        out[f"{name}_time"], out[f"{name}_event"] = failure_time(source, name, event, own, end)
    return out
