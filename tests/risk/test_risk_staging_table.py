"""Staging a whole table: which inputs are trusted, flags, reasons, and the real cohort's counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiene.risk.importers.registry import import_table
from aiene.risk.staging.stage import (
    Inputs,
    StagingOptions,
    editions,
    stage_patient,
    stage_table,
    staging_columns,
)
from aiene.risk.table.read import complete

DECIDED = [name for edition in editions() for name in edition.columns]


def one(*, options: Any = None, **columns: Any) -> Any:
    """The staging of one patient of the oropharynx."""
    base = {"patient_id": ["p"], "site": ["oropharynx"]}
    table = complete(pd.DataFrame({**base, **{name: [value] for name, value in columns.items()}}))
    return stage_table(table, options=options).iloc[0]


def seven(t: Any, n: Any, **more: Any) -> Any:
    return {"t7": t, "n7": n, "edition_t": "7", "edition_n": "7", "m": "M0", **more}


def test_a_hand_computed_cohort_of_8_patients() -> None:
    cohort = pd.DataFrame(
        [
            # id, hpv, t7, n7, pack-years -> ajcc8 chapter, stage, rtog
            ("a", "positive", "T2", "N2b", 5.0),
            ("b", "positive", "T4a", "N1", 20.0),
            ("c", "positive", "T3", "N2c", 10.0),
            ("d", "positive", "T1", "N3", 10.1),
            ("e", "negative", "T1", "N0", 10.0),
            ("f", "negative", "T2", "N0", 40.0),
            ("g", "negative", "T4b", "N2c", None),
            ("h", None, "T3", "N0", 0.0),
        ],
        columns=["patient_id", "hpv", "t7", "n7", "pack_years"],
    ).assign(site="oropharynx", m="M0", edition_t="7", edition_n="7")
    staged = stage_table(complete(cohort))
    assert staged["ajcc8_stage"].tolist() == ["I", "III", "II", "III", "I", "II", "IVB", "III"]
    assert staged["ajcc8_stage_row"].tolist() == [
        "ajcc8pos-stage:6", "ajcc8pos-stage:2", "ajcc8pos-stage:4", "ajcc8pos-stage:3",
        "ajcc8neg-stage:9", "ajcc8neg-stage:8", "ajcc8neg-stage:2", "ajcc8neg-stage:7",
    ]  # fmt: skip
    assert staged["ajcc8_n"].tolist() == ["N1", "N1", "N2", "N3", "N0", "N0", "unknown", "N0"]
    assert staged["ajcc7_stage"].tolist() == ["IVA", "IVA", "IVA", "IVB", "I", "II", "IVB", "III"]
    assert staged["rtog0129"].tolist() == [
        "low", "low", "low", "intermediate", "intermediate", "high", "high", "unclassifiable",
    ]  # fmt: skip
    assert staged["rtog0129_ang2010"].tolist()[4] == "high"
    assert staged["v9_stage"].tolist() == ["I", "III", "II", "III", *["not_applicable"] * 3, "unknown"]
    assert staged["row"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert staged["ajcc8_chapter"].tolist()[-1] == "p16_assumed_negative"
    assert staged["staging_flags"].tolist()[-1] == "p16_assumed_negative"


def test_untested_disease_stays_unknown_where_the_user_wants_it() -> None:
    row = one(**seven("T2", "N0"), options=StagingOptions(hpv_unknown="unknown"))
    assert (row["ajcc8_stage"], row["ajcc8_stage_reason"]) == ("unknown", "missing: hpv")


def test_an_archive_of_edition_7_gets_p16_negative_stages_only_by_the_users_word() -> None:
    row = one(hpv="negative", **seven("T2", "N2b"))
    assert row["ajcc8_n_reason"] == "missing: clinical_ene (could be N3b or N2b)"
    assert row["ajcc8_stage"] == "unknown"
    assumed = one(hpv="negative", **seven("T2", "N2b"), options=StagingOptions(ene_unknown="negative"))
    assert (assumed["ajcc8_n"], assumed["ajcc8_stage"]) == ("N2b", "IVA")
    assert assumed["staging_flags"] == "ene_assumed_negative"
    known = one(hpv="negative", clinical_ene=True, **seven("T2", "N2b"))
    assert (known["ajcc8_n"], known["ajcc8_stage"]) == ("N3b", "IVB")


def test_a_stage_is_given_where_every_n_that_is_left_gives_the_same() -> None:
    row = one(hpv="negative", **seven("T1", "N3"))
    assert (row["ajcc8_n"], row["ajcc8_stage"]) == ("unknown", "IVB")
    assert row["staging_flags"] == "n_open_but_same_stage"


def test_m_is_assumed_only_by_the_users_word_and_flagged() -> None:
    plain = one(hpv="positive", t7="T1", n7="N1", edition_t="7", edition_n="7")
    assert (plain["ajcc8_stage"], plain["ajcc8_stage_reason"]) == ("unknown", "missing: M (could be IV or I)")
    assumed = one(
        hpv="positive",
        t7="T1",
        n7="N1",
        edition_t="7",
        edition_n="7",
        m="MX",
        options=StagingOptions(assume_m0=True),
    )
    assert (assumed["ajcc8_stage"], assumed["staging_flags"]) == (
        "I",
        "assumed_m0 | iene_unknown_lower_category",
    )


def test_measured_nodes_serve_where_no_category_is_given_and_a_given_one_wins() -> None:
    nodes = {"n_nodes": 1, "node_laterality": "ipsilateral", "largest_node_cm": 6.0}
    assert one(hpv="positive", **nodes)["ajcc7_n"] == "N2a"
    given = one(hpv="positive", **seven("T1", "N2c"), **nodes)
    assert (given["ajcc7_n"], given["ajcc7_n_row"]) == ("N2c", "given")


def test_contradicting_nodes_are_unknown_and_say_so() -> None:
    row = one(hpv="positive", n_nodes=0, node_laterality="ipsilateral")
    assert row["ajcc7_n"] == "unknown"
    assert row["ajcc7_n_reason"].startswith("contradiction: ")
    assert "bilateral" in one(hpv="positive", n_nodes=1, node_laterality="bilateral")["ajcc7_n_reason"]


def test_a_category_of_edition_7_under_edition_8_is_suspected() -> None:
    row = one(hpv="positive", t8="T2", n8="N2b", edition_t="8", edition_n="8", m="M0")
    assert row["ajcc8_n"] == "unknown"
    assert "is it edition 7?" in row["ajcc8_n_reason"]


@pytest.mark.parametrize(
    ("n8", "years", "expected", "row"),
    [
        ("N0", 20, "low", "rtog0129:2"),
        ("N1", 20, "unclassifiable", "rtog0129:5"),
        ("N1", 5, "low", "rtog0129:3"),
        ("N1", None, "unclassifiable", "rtog0129:6"),
        ("N2", 20, "intermediate", "rtog0129:4"),
        ("N3", 20, "intermediate", "rtog0129:4"),
    ],
)
def test_rtog_0129_from_edition_8_only_where_it_tells(
    n8: str, years: int | None, expected: str, row: str
) -> None:
    made = one(hpv="positive", t8="T2", n8=n8, edition_t="8", edition_n="8", m="M0", pack_years=years)
    assert (made["rtog0129"], made["rtog0129_row"]) == (expected, row)


def test_pathological_stage_needs_an_operation() -> None:
    assert one(hpv="positive", **seven("T1", "N1"))["ajcc8_p_stage"] == "not_applicable"
    row = one(hpv="positive", pt8="T2", n_positive_nodes=5, pathological_ene=False, m="M0")
    assert (row["ajcc8_pn"], row["ajcc8_p_stage"]) == ("N2", "II")
    assert (row["v9_pn"], row["v9_p_stage"]) == ("N2", "II")
    negative = one(
        hpv="negative", pt8="T1", n_positive_nodes=1, p_node_laterality="ipsilateral", p_largest_node_cm=3.0,
        pathological_ene=True, m="M0",
    )  # fmt: skip
    assert (negative["ajcc8_pn"], negative["ajcc8_p_stage"]) == ("N2a", "IVA")


def test_ai_ene_never_fills_an_extension_silently() -> None:
    plain = one(hpv="positive", **seven("T1", "N2b"), n_ai_ene=3)
    assert (plain["v9_n"], plain["ajcc8_n"]) == ("N1", "N1")
    asked = one(hpv="positive", **seven("T1", "N2b"), n_ai_ene=3, options=StagingOptions(iene_from_ai=True))
    assert (asked["v9_n"], asked["v9_stage"]) == ("N2", "II")
    assert "exploratory_iene_from_ai" in asked["staging_flags"]
    read = one(
        hpv="positive",
        **seven("T1", "N2b"),
        n_ai_ene=3,
        iene_grade=0,
        options=StagingOptions(iene_from_ai=True),
    )
    assert read["v9_n"] == "N1"
    negative = one(
        hpv="negative", **seven("T1", "N2b"), n_ai_ene=3, options=StagingOptions(iene_from_ai=True)
    )
    assert negative["ajcc8_n"] == "unknown"


@pytest.mark.parametrize("site", ["larynx", "nasopharynx", "oral_cavity", "other"])
def test_other_sites_are_not_applicable(site: str) -> None:
    row = one(site=site, hpv="positive", **seven("T1", "N1"))
    for name in DECIDED:
        assert row[name] == "not_applicable"
        assert site in row[f"{name}_reason"]


def test_an_unknown_primary_belongs_here_only_with_hpv() -> None:
    assert one(site="unknown_primary", hpv="positive", **seven("T0", "N2b"))["ajcc8_stage"] == "I"
    assert (
        one(site="unknown_primary", hpv="negative", **seven("T0", "N2b"))["ajcc8_stage"] == "not_applicable"
    )
    assert one(site="unknown_primary", **seven("T0", "N2b"))["ajcc8_stage"] == "unknown"


def test_a_missing_site_is_unknown_for_every_system() -> None:
    row = one(site=None, hpv="positive", **seven("T1", "N1"))
    assert row["ajcc8_stage_reason"] == "missing: site"


def test_nothing_known_is_unknown_everywhere_with_a_reason() -> None:
    row = one()
    for name in DECIDED:
        if row[name] in ("unknown", "unclassifiable", "not_applicable"):
            assert row[f"{name}_reason"]


words = st.sampled_from
inputs = st.builds(
    Inputs,
    site=words([None, "oropharynx", "unknown_primary", "larynx"]),
    hpv=words([None, "positive", "negative"]),
    t7=words([None, "TX", "T0", "Tis", "T1", "T2", "T3", "T4", "T4a", "T4b"]),
    t8=words([None, "TX", "T0", "T1", "T4", "T4a"]),
    n7=words([None, "NX", "N0", "N1", "N2", "N2a", "N2b", "N2c", "N3"]),
    n8=words([None, "NX", "N0", "N1", "N2", "N2b", "N3", "N3a", "N3b"]),
    n9=words([None, "N0", "N1", "N3"]),
    m=words([None, "M0", "M1", "MX"]),
    pack_years_class=words([None, "le10", "gt10"]),
    n_nodes=words([None, 0, 1, 2, 6]),
    node_laterality=words([None, "none", "ipsilateral", "contralateral", "bilateral"]),
    largest_node_cm=words([None, 0.0, 3.0, 6.0, 6.5]),
    clinical_ene=words([None, True, False]),
    iene_grade=words([None, 0, 1, 3]),
    n_ai_ene=words([None, 0, 4]),
    pt8=words([None, "T1", "T4", "TX"]),
    pn8=words([None, "N0", "N2", "N3b"]),
    pn9=words([None, "N1a", "N3"]),
    n_positive_nodes=words([None, 0, 1, 4, 5]),
    p_node_laterality=words([None, "ipsilateral", "bilateral"]),
    p_largest_node_cm=words([None, 2.0, 7.0]),
    pathological_ene=words([None, True, False]),
)
options = st.builds(
    StagingOptions,
    assume_m0=st.booleans(),
    ene_unknown=words(["unknown", "negative"]),
    hpv_unknown=words(["p16_negative", "unknown"]),
    rtog=words(["fakhry2019", "ang2010"]),
    iene_from_ai=st.booleans(),
)


@settings(max_examples=400, deadline=None)
@given(inputs, options)
@pytest.mark.slow
def test_every_patient_gets_a_value_or_a_reason_in_every_system(patient: Any, chosen: Any) -> None:
    for decision in stage_patient(patient, chosen).values():
        assert (decision.value is None) == bool(decision.reason)


@settings(max_examples=60, deadline=None)
@given(st.lists(inputs, min_size=1, max_size=12), options)
@pytest.mark.slow
def test_a_table_gives_what_each_patient_gives_alone(patients: Any, chosen: Any) -> None:
    table = pd.DataFrame(patients, columns=Inputs._fields).assign(
        patient_id=[str(i) for i in range(len(patients))]
    )
    staged = stage_table(table, options=chosen)
    for place, patient in enumerate(patients):
        for name, decision in stage_patient(patient, chosen).items():
            if decision.value is not None:
                assert staged[name][place] == decision.value
            assert staged[f"{name}_reason"][place] == decision.reason


def test_the_columns_are_those_that_are_promised() -> None:
    table = complete(pd.DataFrame({"patient_id": ["a"], "site": ["oropharynx"]}))
    assert tuple(stage_table(table).columns) == ("patient_id", "row", *staging_columns())


def test_a_large_table_is_staged_by_its_distinct_combinations() -> None:
    random = np.random.default_rng(0)
    n = 20_000
    table = pd.DataFrame(
        {
            "patient_id": np.arange(n).astype(str),
            "site": "oropharynx",
            "hpv": random.choice(["positive", "negative"], n),
            "largest_node_cm": random.uniform(0.1, 9, n),
            "node_laterality": random.choice(["ipsilateral", "bilateral"], n),
            "n_nodes": random.integers(2, 40, n),
        }
    )
    staged = stage_table(table)
    big = table["largest_node_cm"] > 6
    assert (staged["ajcc7_n"][big] == "N3").all()
    assert set(staged["ajcc7_n"][~big]) == {"N2b", "N2c"}


@pytest.fixture(scope="module")
def radcure(shared: Path) -> Any:
    path = shared / "data" / "clinical" / "RADCURE_Clinical_v04_20241219.csv"
    if not path.is_file():
        pytest.skip("the shared data is absent: no RADCURE clinical table in it")
    table = import_table(path, "radcure").table
    table = table[table["site"] == "oropharynx"].reset_index(drop=True)
    return pd.concat([table, stage_table(table).drop(columns="patient_id")], axis=1)


@pytest.mark.slow
def test_radcure_gives_the_counts_of_the_anchors(radcure: Any) -> None:
    assert (len(radcure), radcure["os_event"].sum(), radcure["dm_event"].sum()) == (1501, 450, 201)
    groups = radcure.groupby("rtog0129_fakhry2019")[["os_event", "dm_event"]].agg(["size", "sum"])
    expected = {"low": (639, 98, 55), "intermediate": (414, 104, 60), "high": (303, 186, 61)}
    for name, (n, deaths, metastases) in expected.items():
        row = groups.loc[name]
        assert (row.iloc[0], row.iloc[1], row.iloc[3]) == (n, deaths, metastases)
    assert radcure["rtog0129_ang2010"].value_counts().to_dict() == {
        "low": 639, "intermediate": 408, "high": 309, "unclassifiable": 145,
    }  # fmt: skip
    open_ones = radcure[radcure["rtog0129"] == "unclassifiable"]
    assert open_ones["hpv"].isna().sum() == 143


def test_radcure_gives_the_stages_of_the_anchors(radcure: Any) -> None:
    positive = radcure[(radcure["hpv"] == "positive").fillna(False)]
    assert len(positive) == 1017
    assert positive["ajcc8_n"].value_counts().to_dict() == {"N1": 596, "N2": 265, "N0": 88, "N3": 68}
    assert positive["ajcc8_t"].value_counts().to_dict() == {"T2": 369, "T3": 260, "T1": 225, "T4": 163}
    stages = positive.groupby("ajcc8_stage")[["os_event", "dm_event"]].agg(["size", "sum"])
    for name, expected in {"I": (459, 52, 24), "II": (338, 69, 41), "III": (220, 69, 46)}.items():
        row = stages.loc[name]
        assert (row.iloc[0], row.iloc[1], row.iloc[3]) == expected


def test_radcure_survives_as_the_anchors_say(radcure: Any) -> None:
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import multivariate_logrank_test

    grouped = radcure[radcure["rtog0129"] != "unclassifiable"]
    test = multivariate_logrank_test(grouped["os_time"], grouped["rtog0129"], grouped["os_event"].astype(int))
    assert test.test_statistic == pytest.approx(263.516, abs=2e-3)
    expected = {
        "low": (0.9306, 0.8929, 0.8457),
        "intermediate": (0.8634, 0.8079, 0.7304),
        "high": (0.5847, 0.4948, 0.3911),
    }
    for name, values in expected.items():
        part = grouped[grouped["rtog0129"] == name]
        fit = KaplanMeierFitter().fit(part["os_time"], part["os_event"].astype(int))
        assert fit.predict([2, 3, 5]).to_numpy() == pytest.approx(values, abs=1e-4)
