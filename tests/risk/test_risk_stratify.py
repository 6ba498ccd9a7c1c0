"""Combined groups, with every step on the way."""

from __future__ import annotations

import pandas as pd
import pytest

from aiene.errors import UsageError
from aiene.risk.schemes.scheme import read_scheme
from aiene.risk.staging.stage import StagingOptions
from aiene.risk.stratify import stratify
from aiene.risk.table.read import complete

COHORT = complete(
    pd.DataFrame(
        [
            # hpv, t7, n7, pack-years, count
            ("a", "positive", "T2", "N1", 5, 0),
            ("b", "positive", "T2", "N2b", 20, 1),
            ("c", "positive", "T2", "N2b", 20, 2),
            ("d", "negative", "T2", "N2b", 20, 2),
            ("e", "negative", "T1", "N0", 5, 0),
            ("f", None, "T2", "N1", 5, 1),
            ("g", "positive", "T2", "N1", 5, None),
            ("h", None, "T2", "N1", 5, None),
        ],
        columns=["patient_id", "hpv", "t7", "n7", "pack_years", "n_ai_ene"],
    ).assign(site="oropharynx", m="M0", edition_t="7", edition_n="7")
)


def test_a_hand_computed_cohort_of_8_patients_by_rtog_0129() -> None:
    made = stratify(COHORT, read_scheme("rtog0129-plus-count"))
    assert made["base_group"].fillna("-").tolist() == [
        "low",
        "intermediate",
        "intermediate",
        "high",
        "intermediate",
        "-",
        "low",
        "-",
    ]
    assert made["marker_class"].fillna("-").tolist() == ["0", "1", ">=2", ">=2", "0", "1", "-", "-"]
    assert made["combined_group"].tolist() == [
        "low",
        "intermediate",
        "high",
        "very high",
        "intermediate",
        *["unclassifiable"] * 3,
    ]
    assert made["combined_reason"].tolist() == [
        *[""] * 5,
        "base: missing: hpv",
        "missing: n_ai_ene",
        "base: missing: hpv; missing: n_ai_ene",
    ]
    assert made["scheme"].unique().tolist() == ["rtog0129-plus-count"]
    assert made["scheme_sha256"].unique().tolist() == [read_scheme("rtog0129-plus-count").sha256]
    assert made["patient_id"].tolist() == COHORT["patient_id"].tolist()
    assert made["ai_ene_source"].tolist()[:2] == ["given", "given"]


def test_the_count_alone_needs_no_base() -> None:
    made = stratify(COHORT, read_scheme("count-0-1-2plus"))
    assert made["combined_group"].tolist()[5] == "one AI-ENE node"
    assert (made["combined_group"] == "unclassifiable").sum() == 2


def test_a_chapter_of_ajcc_8_leaves_the_other_chapter_out_with_a_reason() -> None:
    made = stratify(COHORT, read_scheme("ajcc8-p16pos-plus-count"))
    assert made["combined_group"].tolist()[:3] == ["I", "I", "II"]
    assert made["combined_reason"].tolist()[3] == "base: not of the p16_positive chapter"
    negative = stratify(
        COHORT, read_scheme("ajcc8-p16neg-plus-count"), options=StagingOptions(ene_unknown="negative")
    )
    assert negative["combined_group"].tolist()[3:5] == ["very advanced", "early"]
    assert negative["combined_group"].tolist()[0] == "unclassifiable"
    assert "p16_positive" not in negative["combined_reason"].tolist()[0]


def test_stratifying_twice_gives_the_same_table() -> None:
    scheme = read_scheme("rtog0129-plus-count")
    once = stratify(COHORT, scheme)
    pd.testing.assert_frame_equal(stratify(once, scheme), once)


def test_the_steps_of_the_staging_stand_in_the_table() -> None:
    made = stratify(COHORT, read_scheme("count-0-1-2plus"))
    for name in ("ajcc8_stage", "ajcc8_stage_row", "rtog0129_reason", "v9_stage", "staging_flags", "row"):
        assert name in made


def test_a_table_without_counts_says_how_to_get_them() -> None:
    with pytest.raises(UsageError, match="--ai-ene"):
        stratify(COHORT.drop(columns="n_ai_ene"), read_scheme("count-0-1-2plus"))
    empty = COHORT.assign(n_ai_ene=pd.array([pd.NA] * 8, dtype="Int64"))
    with pytest.raises(UsageError, match="no n_ai_ene"):
        stratify(empty, read_scheme("count-0-1-2plus"))


def test_the_reading_of_rtog_0129_is_the_schemes() -> None:
    from dataclasses import replace

    literal = replace(read_scheme("rtog0129-plus-count"), base_definition="ang2010")
    assert stratify(COHORT, literal)["base_group"].tolist()[4] == "high"


def test_the_reason_tells_why_a_run_gave_no_count() -> None:
    table = COHORT.assign(ai_status=pd.array(["ok"] * 6 + ["failed", "no CT in the run"], dtype="string"))
    reasons = stratify(table, read_scheme("count-0-1-2plus"))["combined_reason"].tolist()
    assert reasons[6:] == ["missing: n_ai_ene (failed)", "missing: n_ai_ene (no CT in the run)"]
