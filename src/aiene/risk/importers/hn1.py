"""HEAD-NECK-RADIOMICS-HN1 (The Cancer Imaging Archive), English headers and the older Dutch ones."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aiene.risk.importers.source import PER_YEAR, ImportOptions, Source
from aiene.risk.importers.terms import edition7, only_origin, site_column
from aiene.risk.table.files import read_raw

TITLE = "HEAD-NECK-RADIOMICS-HN1; edition 7 without sub-letters; days from the first fraction"

_HPV: dict[str, str | None] = {
    "positive": "positive", "pos": "positive", "1": "positive",
    "negative": "negative", "neg": "negative", "0": "negative",
    "unknown": None,
}  # fmt: skip
_SEX: dict[str, str | None] = {
    "male": "male", "m": "male", "man": "male",
    "female": "female", "f": "female", "vrouw": "female", "v": "female",
}  # fmt: skip
_EVENTS: dict[str, str | None] = {"0": "0", "1": "1"}


def read(path: Path, options: ImportOptions) -> pd.DataFrame:
    """The raw table."""
    return read_raw(path, sheet=options.sheet)


def build(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns.

    Raises
    ------
    InputError : a column is missing or a code is unknown.
    """
    source.need("id", "clin_t", "clin_n", "event_overall_survival", "overall_survival_in_days")
    only_origin(source, options, "rt_start", "no other date is in the table")
    out = {
        "patient_id": source.plain("patient_id", "id"),
        "site": site_column(source, "index_tumour_location", "index_tumor_location", "tumor_locatie"),
        "hpv": source.coded("hpv", "overall_hpv_p16_status", codes=_HPV),
        **edition7(source, "clin_t", "clin_n", "clin_m"),
        "age": source.numbers("age", "age_at_diagnosis", "leeftijd_diagnose", unit="years"),
        "sex": source.coded("sex", "biological_sex", "geslacht", codes=_SEX),
        "ecog": source.plain("ecog", "performance_status_ecog", "ecog_status"),
        "treatment": source.coded(
            "treatment", "chemotherapy_given", codes={"none": "rt", "0": "rt", "no": "rt"}, otherwise="crt"
        ),
        "time_origin": pd.Series("rt_start", index=source.raw.index, dtype="string"),
    }
    for name, words in _ENDPOINTS.items():
        out[f"{name}_event"] = source.coded(f"{name}_event", f"event_{words}", codes=_EVENTS)
        out[f"{name}_time"] = source.numbers(
            f"{name}_time", f"{words}_in_days", per=PER_YEAR["days"], unit="days"
        )
    if source.find("overall_hpv_p16_status") is not None:
        out["hpv_method"] = pd.Series("p16", index=source.raw.index, dtype="string").where(out["hpv"].notna())
    return pd.DataFrame(out)


_ENDPOINTS = {
    "os": "overall_survival",
    "dm": "distant_metastases",
    "lrf": "locoregional_recurrence",
    "dfs": "recurrence_metastatic_free_survival",
}
