"""HNSCC of MD Anderson (The Cancer Imaging Archive): either of its two tables, told apart by their headers.

The workbook `HNSCC-MDA-Data_update` has all sites, smoking in classes and one recurrence per patient. The
oropharynx table `Radiomics_Outcome_Prediction_in_OPC_ASRM_corrected.csv` has inverted control columns: `No`
of `Freedom from distant metastasis` is a metastasis.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from aiene.risk.importers.source import PER_YEAR, ImportOptions, Source
from aiene.risk.importers.terms import SEX, by_edition, failure_time, of_edition, origin_of, site_column

MDA_PATIENT = "TCIA PatientID"
_FOLLOW_UP = "Follow up duration (day)"
_FREE = "Disease-free interval (months)"
_ALIVE: dict[str, str | None] = {"Alive": "0", "Dead": "1"}

_MDA_HPV: dict[str, str | None] = {
    "Positive": "positive", "Negative": "negative", "P": "positive", "N": "negative", "Unknown": None,
}  # fmt: skip

OPC_PATIENT = "TCIA Radiomics dummy ID of To_Submit_Final"
_DURATION = "{}_duration of Merged updated ASRM V2"
_DAYS = PER_YEAR["days"]
_FAILED_IF_NOT_CONTROLLED: dict[str, str | None] = {"Yes": "0", "No": "1"}
_HPV: dict[str, str | None] = {
    "P": "positive", "Positive": "positive", "N": "negative", "Negative": "negative",
    "U": None, "Unknown": None,
}  # fmt: skip
_SMOKING = {"Current": "current", "Former": "former", "Never": "never", "Unknown": None}
TITLE = "HNSCC: Radiomics_Outcome_Prediction_in_OPC (edition 7, days) or HNSCC-MDA-Data (days and months)"


def build_mda(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns.

    Raises
    ------
    InputError : a column is missing or a code is unknown.
    """
    source.need(MDA_PATIENT, "Site", "T", "N", "Alive or Dead", _FOLLOW_UP, "Smoking History")
    origin = origin_of(source, options, "diagnosis", stated=False)
    died = source.coded("os_event", "Alive or Dead", codes=_ALIVE)
    last = source.numbers("os_time", _FOLLOW_UP, per=PER_YEAR["days"], unit="days")
    out = {
        "patient_id": source.plain("patient_id", MDA_PATIENT),
        "site": site_column(source, "Site"),
        "hpv": source.coded("hpv", "HPV Status", "HPV status", codes=_MDA_HPV),
        **by_edition(source, options.edition, "T", "N", "M"),
        **_smoking(source),
        "age": source.numbers("age", "Age", unit="years"),
        "sex": source.coded("sex", "Sex", codes=SEX),
        "time_origin": source.constant(origin),
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
    headers = ("Site of recurrence (Distal/Local/ Locoregional)", "Site of recurrence")
    header = next((h for h in headers if source.find(h) is not None), None)
    if header is None:
        return {}
    words = source.text(header).str.casefold()
    free = source.numbers("disease-free interval", _FREE, per=PER_YEAR["months"], unit="months")
    out: dict[str, pd.Series] = {}
    for name, marks in (("dm", "dista"), ("lrf", "local|loco|regional")):
        happened = words.str.contains(marks).fillna(False)
        event = pd.Series(np.where(happened, "1", "0"), dtype="string")
        out[f"{name}_time"], out[f"{name}_event"] = failure_time(source, name, event, free, last)
        source.record(f"{name}_event", (header,), f'1 where it says "{marks.replace("|", " or ")}"', event)
    source.findings.note(
        "only one recurrence per patient is recorded: a later one of the other kind is not known"
    )
    return out


# Oropharynx table


def build_opc(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns.

    Raises
    ------
    InputError : a column is missing or a code is unknown.
    """
    survival = _DURATION.format("Overall survival")
    source.need(OPC_PATIENT, "HPV Status", "T-category", "N-category", "Vital status", survival)
    origin = origin_of(source, options, "diagnosis", stated=False)
    out = {
        "patient_id": source.plain("patient_id", OPC_PATIENT),
        "site": source.constant("oropharynx"),
        "hpv": source.coded("hpv", "HPV Status", codes=_HPV),
        **of_edition(source, "7", "T-category", "N-category", "M-category"),
        "pack_years": source.plain("pack_years", "Smoking status (Packs-Years)", understood="pack-years"),
        "smoking_status": source.coded("smoking_status", "Smoking status", codes=_SMOKING),
        "age": source.numbers("age", "Age at Diag", unit="years"),
        "sex": source.coded("sex", "Gender", codes=SEX),
        "treatment": source.coded(
            "treatment",
            "Therapeutic Combination",
            codes={"Radiation Alone": "rt", "RT": "rt"},
            otherwise="crt",
        ),
        "time_origin": source.constant(origin),
    }
    source.findings.note(
        "treatment: every combination except radiation alone counts as crt, induction included; "
        "see the preview"
    )
    source.findings.note("control columns are inverted in this table: No is a failure")
    last = source.numbers("os_time", survival, per=_DAYS, unit="days")
    out["os_time"] = last
    out["os_event"] = source.coded("os_event", "Vital status", codes={"Alive": "0", "Dead": "1"})
    for name, header in (("dm", "Freedom from distant metastasis"), ("lrf", "Locoregional control"),
                         ("dfs", "Relapse-free survival")):  # fmt: skip
        if source.find(header) is None:
            continue
        event = source.coded(f"{name}_event", header, codes=_FAILED_IF_NOT_CONTROLLED)
        own = source.numbers(f"{name}_time", _DURATION.format(header), per=_DAYS, unit="days")
        out[f"{name}_time"], out[f"{name}_event"] = failure_time(source, name, event, own, own.fillna(last))
    return pd.DataFrame(out)


# Either table


def build(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns of whichever table it is.

    Raises
    ------
    InputError : it is neither, or a code is unknown.
    """
    if source.find(OPC_PATIENT) is not None:
        return build_opc(source, options)
    if source.find(MDA_PATIENT) is not None:
        return build_mda(source, options)
    problem = f'it has neither the column "{OPC_PATIENT}" nor "{MDA_PATIENT}"'
    raise source.findings.refuse(problem, "give one of the two tables of the collection HNSCC")
