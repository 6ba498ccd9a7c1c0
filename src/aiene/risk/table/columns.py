"""The columns of the canonical table: one row per patient, missing is missing and never a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "category", "float", "count", "event", "bool"]

DAYS_PER_YEAR = 365.25
"""Length of the year that all times are counted in."""


@dataclass(frozen=True)
class Column:
    """One column of the canonical table.

    Parameters
    ----------
    name : of the column.
    kind : `category` takes one of `words`; `event` is 0 or 1; `count` a whole number.
    meaning : one line for people, with the unit.
    words : the values of a category.
    low, high : the least and the largest value that can be right, for numbers.
    """

    name: str
    kind: Kind
    meaning: str
    words: tuple[str, ...] = ()
    low: float = 0.0
    high: float = float("inf")

    @property
    def dtype(self) -> str:
        """The pandas type that holds it."""
        return _DTYPES.get(self.kind, "string")


_DTYPES = {"float": "float64", "count": "Int64", "event": "Int64", "bool": "boolean"}

SITES = ("oropharynx", "unknown_primary", "larynx", "hypopharynx", "oral_cavity", "nasopharynx", "other")
T_WORDS = ("T0", "Tis", "T1", "T2", "T3", "T4", "T4a", "T4b", "TX")
N7_WORDS = ("N0", "N1", "N2", "N2a", "N2b", "N2c", "N3", "NX")
N8_WORDS = ("N0", "N1", "N2", "N2a", "N2b", "N2c", "N3", "N3a", "N3b", "NX")
SIDES = ("none", "ipsilateral", "contralateral", "bilateral")
M_WORDS = ("M0", "M1", "MX")
CENSOR_AT = ("last_followup", "last_imaging")
PN9_WORDS = ("N0", "N1", "N1a", "N1b", "N2", "N3", "NX")

MOST_NODES = 300
"""About as many as there are in a neck: a count beyond is a code for missing, such as 999."""

COLUMNS: tuple[Column, ...] = (
    Column("patient_id", "text", "name of the patient, unique"),
    Column("site", "category", "where the primary lies", SITES),
    Column("hpv", "category", "HPV association, by p16 unless said otherwise", ("positive", "negative")),
    Column("hpv_method", "category", "how HPV was tested", ("p16", "hpv_dna_ish", "hpv_pcr", "combined")),
    Column("t7", "category", "T, edition 7", T_WORDS),
    Column("t8", "category", "clinical T, edition 8 or version 9", T_WORDS),
    Column("n7", "category", "N, edition 7", N7_WORDS),
    Column("n8", "category", "clinical N, edition 8", N8_WORDS),
    Column("m", "category", "distant metastasis at diagnosis", M_WORDS),
    Column("edition_t", "category", "edition that T was read by", ("7", "8", "9")),
    Column("edition_n", "category", "edition that N was read by", ("7", "8", "9")),
    Column("pack_years", "float", "pack-years", high=300),
    Column("pack_years_class", "category", "at most 10 pack-years, or more", ("le10", "gt10")),
    Column("smoking_status", "category", "smoking", ("never", "former", "current")),
    Column("n_nodes", "count", "involved lymph nodes", high=MOST_NODES),
    Column("node_laterality", "category", "sides of the involved nodes, seen from the primary", SIDES),
    Column("largest_node_cm", "float", "greatest dimension of the largest node, cm", high=20),
    Column("clinical_ene", "bool", "clinically overt extranodal extension"),
    Column("iene_grade", "count", "imaging ENE grade of a reader, 0-3", high=3),
    Column("n_ai_ene", "count", "nodes that the classifier calls ENE", high=MOST_NODES),
    Column("n_ai_nodes", "count", "nodes that the software found", high=MOST_NODES),
    Column("ai_model", "text", "model bundle of the count"),
    Column("ai_threshold", "float", "ENE threshold of the count", high=1),
    Column("ai_ene_source", "category", "where the count comes from", ("measured", "given", "simulated")),
    Column("age", "float", "years", high=110),
    Column("sex", "category", "sex", ("male", "female")),
    Column("ecog", "count", "ECOG performance status", high=4),
    Column("treatment", "category", "treatment", ("rt", "crt", "rt_egfr", "other")),
    Column("time_origin", "category", "when the clock starts", ("diagnosis", "rt_start", "rt_end")),
    Column("os_time", "float", "years to death or last follow-up"),
    Column("os_event", "event", "1 = died"),
    Column("dm_time", "float", "years to distant metastasis, death or last follow-up"),
    Column("dm_event", "event", "1 = distant metastasis"),
    Column("lrf_time", "float", "years to locoregional failure, death or last follow-up"),
    Column("lrf_event", "event", "1 = locoregional failure"),
    Column("dfs_time", "float", "years to first of failure and death, or last follow-up"),
    Column("dfs_event", "event", "1 = failure or death"),
    Column("center", "text", "hospital"),
)
"""The canonical table, in its order."""

EXTRA_COLUMNS: tuple[Column, ...] = (
    Column("pt8", "category", "pathological T, edition 8 or version 9", T_WORDS),
    Column("pn8", "category", "pathological N, edition 8", N8_WORDS),
    Column("pn9", "category", "pathological N, version 9", PN9_WORDS),
    Column("n9", "category", "clinical N, version 9", ("N0", "N1", "N2", "N3", "NX")),
    Column("n_positive_nodes", "count", "positive nodes in the neck dissection", high=MOST_NODES),
    Column("pathological_ene", "bool", "extranodal extension in the neck dissection"),
    Column("p_node_laterality", "category", "sides of the positive nodes in the neck dissection", SIDES),
    Column("p_largest_node_cm", "float", "largest positive node in the neck dissection, cm", high=20),
    Column("pack_years_derived", "bool", "pack_years is 0 only because the patient never smoked"),
    Column("surgery_first", "bool", "operated before radiotherapy"),
    Column(
        "dm_censor_at",
        "category",
        "a death after the imaging for dm and lrf ended: competes when it happens, or is not seen any more",
        CENSOR_AT,
    ),
)
"""Columns that are understood where a table has them."""

BY_NAME: dict[str, Column] = {column.name: column for column in (*COLUMNS, *EXTRA_COLUMNS)}

TIMED = ("os", "dm", "lrf", "dfs")
"""Endpoints that have a time and an event column."""
