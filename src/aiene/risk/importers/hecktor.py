"""HECKTOR 2022 and 2025: relapse-free survival only; neither death nor distant metastasis is told.

2022 comes as two tables, clinical and endpoint; name either, or their folder. 2025 is one workbook or table.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aiene.errors import InputError
from aiene.risk.importers.source import PER_YEAR, ImportOptions, Source, same_header
from aiene.risk.importers.terms import EVENTS, by_edition, only_origin
from aiene.risk.table.files import EXCEL, read_raw, sheet_names

TITLE = "HECKTOR 2022 (two tables) or 2025; relapse-free survival in days; no death, no distant control"

_CLINICAL = "*clinical_info*.csv"
_ENDPOINT = "*endpoint*.csv"


def read(path: Path, options: ImportOptions) -> pd.DataFrame:
    """The raw table; of 2022 the two tables put together."""
    if path.is_dir():
        return _together(_one(path, _CLINICAL), _one(path, _ENDPOINT))
    if path.suffix.lower() in EXCEL:
        named = {name.strip().casefold(): name for name in sheet_names(path)}
        return read_raw(path, sheet=options.sheet or named.get("data"))
    raw = read_raw(path, sheet=options.sheet)
    headers = {same_header(name) for name in raw.columns}
    if "relapse" not in headers:
        return _together(path, _one(path.parent, _ENDPOINT))
    if "age" not in headers and list(path.parent.glob(_CLINICAL)):
        return _together(_one(path.parent, _CLINICAL), path)
    return raw


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        problem = f"it holds {'no' if not found else 'more than one'} table {pattern}"
        raise InputError(
            folder, problem, "put the clinical and the endpoint table of HECKTOR 2022 into one folder"
        )
    return found[0]


def _together(clinical: Path, endpoint: Path) -> pd.DataFrame:
    first, second = read_raw(clinical), read_raw(endpoint)
    for path, table in ((clinical, first), (endpoint, second)):
        if "PatientID" not in table:
            raise InputError(path, "it has no column PatientID", "give the tables as HECKTOR gives them")
        if table["PatientID"].duplicated().any():
            raise InputError(path, "a patient appears twice", "keep one row for each patient")
    wanted = [name for name in second.columns if name == "PatientID" or name not in first.columns]
    return first.merge(second[wanted], on="PatientID", how="left")


def build(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns.

    Raises
    ------
    InputError : a column is missing or a code is unknown.
    """
    source.need("PatientID", "Relapse", "RFS")
    only_origin(source, options, "rt_end", "no other date is in the table")
    recent = source.find("T-stage", "T stage") is not None
    ids = source.plain("patient_id", "PatientID")
    out = {
        "patient_id": ids,
        "site": source.constant("oropharynx"),
        "hpv": _hpv(source, options, recent=recent),
        "age": source.numbers("age", "Age", unit="years"),
        "sex": source.coded("sex", "Gender", codes={"M": "male", "F": "female", "0": "female", "1": "male"}),
        "treatment": source.coded("treatment", "Treatment", "Chemotherapy", codes={"0": "rt", "1": "crt"}),
        "ecog": source.plain("ecog", "Performance Status"),
        "center": source.text("CenterID").fillna(ids.str.extract(r"^([A-Za-z]+)", expand=False)),
        "time_origin": source.constant("rt_end"),
        "dfs_time": source.numbers("dfs_time", "RFS", per=PER_YEAR["days"], unit="days"),
        "dfs_event": source.coded("dfs_event", "Relapse", codes=EVENTS),
        "tobacco": source.text("Tobacco", "Tobacco Consumption"),
        "alcohol": source.text("Alcohol", "Alcohol Consumption"),
        **(by_edition(source, options.edition, "T-stage", "N-stage", "M-stage") if recent else {}),
    }
    surgery = source.text("Surgery")
    if surgery.notna().any():
        out["surgery_first"] = surgery == "1"
    lost = int(out["dfs_event"].isna().sum())
    if lost:
        source.findings.warn(f"{lost} patients have no relapse status")
    source.findings.warn(
        "HECKTOR records only relapse: no overall survival, no distant control, no pack-years; dfs is its RFS"
    )
    source.findings.note(
        "time_origin: the end of radiotherapy, as documented by HECKTOR; the table itself does not state it"
    )
    return pd.DataFrame(out)


def _hpv(source: Source, options: ImportOptions, *, recent: bool) -> pd.Series:
    """HPV; the dictionary of 2025 gives no polarity, so that the user must say it."""
    if not recent:
        headers = ("HPV status (0=-, 1=+)", "HPV status")
        return source.coded("hpv", *headers, codes={"0": "negative", "1": "positive"})
    if options.hpv_one_is is None:
        source.findings.warn(
            "HECKTOR 2025 does not state what HPV Status 0 and 1 mean; left out; to use it give --hpv-one-is "
            "positive"
        )
        return pd.Series(pd.array([None] * len(source.raw), dtype="string"))
    other = "negative" if options.hpv_one_is == "positive" else "positive"
    return source.coded("hpv", "HPV Status", codes={"0": other, "1": options.hpv_one_is})
