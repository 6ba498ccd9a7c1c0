"""HEAD-NECK-RADIOMICS-HN1 (The Cancer Imaging Archive), English headers and the older Dutch ones."""

from __future__ import annotations

import pandas as pd

from aiene.risk.importers.source import PER_YEAR, ImportOptions, Source
from aiene.risk.importers.terms import EVENTS, of_edition, only_origin, site_column

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
        **of_edition(source, "7", "clin_t", "clin_n", "clin_m"),
        "age": source.numbers("age", "age_at_diagnosis", "leeftijd_diagnose", unit="years"),
        "sex": source.coded("sex", "biological_sex", "geslacht", codes=_SEX),
        "ecog": source.plain("ecog", "performance_status_ecog", "ecog_status"),
        "treatment": source.coded(
            "treatment", "chemotherapy_given", codes={"none": "rt", "0": "rt", "no": "rt"}, otherwise="crt"
        ),
        "time_origin": source.constant("rt_start"),
    }
    for name, words in _ENDPOINTS.items():
        out[f"{name}_event"] = source.coded(f"{name}_event", f"event_{words}", codes=EVENTS)
        out[f"{name}_time"] = source.numbers(
            f"{name}_time", f"{words}_in_days", per=PER_YEAR["days"], unit="days"
        )
    if source.find("overall_hpv_p16_status") is not None:
        out["hpv_method"] = source.constant("p16").where(out["hpv"].notna())
    return pd.DataFrame(out)


_ENDPOINTS = {
    "os": "overall_survival",
    "dm": "distant_metastases",
    "lrf": "locoregional_recurrence",
    "dfs": "recurrence_metastatic_free_survival",
}
