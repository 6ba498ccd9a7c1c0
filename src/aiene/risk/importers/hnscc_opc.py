"""HNSCC, the oropharynx table `Radiomics_Outcome_Prediction_in_OPC_ASRM_corrected.csv`.

Its control columns are inverted: `No` of `Freedom from distant metastasis` is a metastasis.
"""

from __future__ import annotations

import pandas as pd

from aiene.risk.importers.options import ImportOptions
from aiene.risk.importers.source import PER_YEAR, Source
from aiene.risk.importers.times import failure_time, origin_of
from aiene.risk.importers.tnm import edition7

PATIENT = "TCIA Radiomics dummy ID of To_Submit_Final"
_DURATION = "{}_duration of Merged updated ASRM V2"
_DAYS = PER_YEAR["days"]
_FAILED_IF_NOT_CONTROLLED: dict[str, str | None] = {"Yes": "0", "No": "1"}
_HPV: dict[str, str | None] = {
    "P": "positive",
    "Positive": "positive",
    "N": "negative",
    "Negative": "negative",
    "U": None,
    "Unknown": None,
}
_SMOKING: dict[str, str | None] = {
    "Current": "current",
    "Former": "former",
    "Never": "never",
    "Unknown": None,
}


def build(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns.

    Raises
    ------
    InputError : a column is missing or a code is unknown.
    """
    survival = _DURATION.format("Overall survival")
    source.need(PATIENT, "HPV Status", "T-category", "N-category", "Vital status", survival)
    origin = origin_of(source, options, "diagnosis", stated=False)
    out = {
        "patient_id": source.plain("patient_id", PATIENT),
        "site": pd.Series("oropharynx", index=source.raw.index, dtype="string"),
        "hpv": source.coded("hpv", "HPV Status", codes=_HPV),
        **edition7(source, "T-category", "N-category", "M-category"),
        "pack_years": source.plain("pack_years", "Smoking status (Packs-Years)", understood="pack-years"),
        "smoking_status": source.coded("smoking_status", "Smoking status", codes=_SMOKING),
        "age": source.numbers("age", "Age at Diag", unit="years"),
        "sex": source.coded(
            "sex", "Gender", codes={"Male": "male", "Female": "female", "M": "male", "F": "female"}
        ),
        "treatment": source.coded(
            "treatment",
            "Therapeutic Combination",
            codes={"Radiation Alone": "rt", "RT": "rt"},
            otherwise="crt",
        ),
        "time_origin": pd.Series(origin, index=source.raw.index, dtype="string"),
    }
    source.findings.note(
        "treatment: every combination but radiation alone counts as crt, induction included; see the preview"
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
