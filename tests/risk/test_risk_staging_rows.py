"""Every row of every decision table once, and every boundary."""

from __future__ import annotations

from typing import Any

import pytest

from aiene.risk.staging.decision import FROM_N7, NodeFacts, measured, over_readings, readings
from aiene.risk.staging.editions import ajcc7, ajcc8, version9
from aiene.risk.staging.editions.rtog0129 import rtog0129

NX = NodeFacts(assessable=False)

AJCC7_N = [
    (1, NX, "NX"),
    (2, measured(0, "none", None), "N0"),
    (3, measured(1, "ipsilateral", 6.1), "N3"),
    (3, measured(3, None, 6.5), "N3"),
    (4, measured(1, "contralateral", 2.0), "N2c"),
    (4, measured(4, "bilateral", 6.0), "N2c"),
    (5, measured(2, "ipsilateral", 6.0), "N2b"),
    (6, measured(1, "ipsilateral", 3.1), "N2a"),
    (6, measured(1, "ipsilateral", 6.0), "N2a"),
    (7, measured(1, "ipsilateral", 3.0), "N1"),
    (7, measured(1, "ipsilateral", 0.4), "N1"),
]


@pytest.mark.parametrize(("row", "nodes", "expected"), AJCC7_N)
def test_edition_7_n_row_by_row(row: Any, nodes: Any, expected: Any) -> None:
    made = ajcc7.n7(nodes)
    assert (made.value, made.row, made.reason) == (expected, f"ajcc7-N:{row}", "")


@pytest.mark.parametrize(
    ("nodes", "missing", "possible"),
    [
        (measured(2, None, 4.0), "node_laterality", {"N2b", "N2c"}),  # row 8
        (measured(1, None, 2.0), "node_laterality", {"N1", "N2c"}),
        (
            measured(2, "ipsilateral", None),
            "largest_node_cm",
            {"N2b", "N3"},
        ),  # row 9, as the specification says it
        (measured(1, "ipsilateral", None), "largest_node_cm", {"N1", "N2a", "N3"}),
        (measured(1, "contralateral", None), "largest_node_cm", {"N2c", "N3"}),
        (measured(None, "ipsilateral", 2.0), "n_nodes", {"N1", "N2b"}),
    ],
)
def test_edition_7_n_is_unknown_with_the_missing_column_and_the_set_that_is_left(
    nodes: Any, missing: str, possible: Any
) -> None:
    made = ajcc7.n7(nodes)
    assert made.value is None
    assert made.reason.startswith(f"missing: {missing} ")
    assert set(made.possible) == possible


POSITIVE_CN = [
    (1, NX, "NX"),
    (2, measured(0, None, None), "N0"),
    (3, measured(1, None, 6.1), "N3"),
    (4, measured(1, "contralateral", 6.0), "N2"),
    (4, measured(2, "bilateral", 1.0), "N2"),
    (5, measured(7, "ipsilateral", 6.0), "N1"),
    (5, measured(None, "ipsilateral", 2.0), "N1"),
]


@pytest.mark.parametrize(("row", "nodes", "expected"), POSITIVE_CN)
def test_p16_positive_clinical_n_row_by_row(row: Any, nodes: Any, expected: Any) -> None:
    made = ajcc8.positive_n(nodes)
    assert (made.value, made.row, made.reason) == (expected, f"ajcc8pos-cN:{row}", "")


@pytest.mark.parametrize(
    ("row", "count", "assessable", "expected"),
    [(1, 3, False, "NX"), (2, 0, True, "N0"), (3, 1, True, "N1"), (3, 4, True, "N1"), (4, 5, True, "N2")],
)
def test_p16_positive_pathological_n_row_by_row(
    row: int, count: int, assessable: bool, expected: str
) -> None:
    made = ajcc8.positive_pn(count, assessable=assessable)
    assert (made.value, made.row) == (expected, f"ajcc8pos-pN:{row}")


POSITIVE_STAGE = [
    (1, "T1", "N0", "M1", "IV"),
    (1, None, None, "M1", "IV"),
    (2, "T4", "NX", "M0", "III"),
    (2, "T4", "N0", "M0", "III"),
    (3, "TX", "N3", "M0", "III"),
    (3, "T0", "N3", "M0", "III"),
    (4, "T3", "N0", "M0", "II"),
    (4, "T3", "N2", "M0", "II"),
    (5, "T0", "N2", "M0", "II"),
    (5, "T2", "N2", "M0", "II"),
    (6, "T0", "N1", "M0", "I"),
    (6, "T2", "N0", "M0", "I"),
]


@pytest.mark.parametrize(("row", "t", "n", "m", "expected"), POSITIVE_STAGE)
def test_p16_positive_clinical_stage_row_by_row(row: Any, t: Any, n: Any, m: Any, expected: Any) -> None:
    made = ajcc8.positive_stage(t, n, m)
    assert (made.value, made.row, made.reason) == (expected, f"ajcc8pos-stage:{row}", "")


@pytest.mark.parametrize(("t", "n"), [("TX", "N1"), ("TX", "N2"), ("T1", "NX"), ("T3", "NX"), ("T0", "NX")])
def test_p16_positive_clinical_stage_row_7_is_unknown_with_a_reason(t: str, n: str) -> None:
    made = ajcc8.positive_stage(t, n, "M0")
    assert made.value is None
    assert made.reason.startswith(f"missing: {'T' if t == 'TX' else 'N'}")


def test_neither_primary_nor_node_is_no_disease() -> None:
    assert ajcc8.positive_stage("T0", "N0", "M0").reason.startswith("no_disease")


@pytest.mark.parametrize(
    ("row", "t", "n", "m", "expected"),
    [
        (1, "T1", "N0", "M1", "IV"),
        (2, "T3", "N2", "M0", "III"),
        (2, "T4", "N2", "M0", "III"),
        (3, "T3", "N0", "M0", "II"),
        (3, "T4", "N1", "M0", "II"),
        (4, "T0", "N2", "M0", "II"),
        (4, "T2", "N2", "M0", "II"),
        (5, "T0", "N1", "M0", "I"),
        (5, "T2", "N0", "M0", "I"),
    ],
)
def test_p16_positive_pathological_stage_row_by_row(row: int, t: str, n: str, m: str, expected: str) -> None:
    made = ajcc8.positive_p_stage(t, n, m)
    assert (made.value, made.row) == (expected, f"ajcc8pos-pstage:{row}")


@pytest.mark.parametrize(("t", "n"), [("TX", "N1"), ("T2", "NX"), ("TX", "NX")])
def test_p16_positive_pathological_stage_row_6_is_unknown_with_a_reason(t: str, n: str) -> None:
    made = ajcc8.positive_p_stage(t, n, "M0")
    assert made.value is None
    assert made.reason


def facts(count: Any, side: Any, cm: Any, ene: Any) -> Any:
    return measured(count, side, cm).with_ene(ene)


@pytest.mark.parametrize(
    ("row", "nodes", "expected"),
    [
        (1, NX, "NX"),
        (2, facts(0, None, None, None), "N0"),
        (3, facts(1, "ipsilateral", 1.0, True), "N3b"),
        (3, facts(None, "bilateral", 7.0, True), "N3b"),
        (4, facts(1, "ipsilateral", 6.1, False), "N3a"),
        (5, facts(1, "contralateral", 1.0, False), "N2c"),
        (5, facts(2, "bilateral", 6.0, False), "N2c"),
        (6, facts(2, "ipsilateral", 6.0, False), "N2b"),
        (7, facts(1, "ipsilateral", 3.1, False), "N2a"),
        (7, facts(1, "ipsilateral", 6.0, False), "N2a"),
        (8, facts(1, "ipsilateral", 3.0, False), "N1"),
    ],
)
def test_p16_negative_clinical_n_row_by_row(row: int, nodes: Any, expected: str) -> None:
    made = ajcc8.negative_n(nodes)
    assert (made.value, made.row, made.reason) == (expected, f"ajcc8neg-cN:{row}", "")


def test_p16_negative_clinical_n_is_unknown_where_the_extension_is() -> None:
    made = ajcc8.negative_n(facts(1, "ipsilateral", 2.0, None))
    assert made.value is None
    assert made.reason == "missing: clinical_ene (could be N3b or N1)"


@pytest.mark.parametrize(
    ("row", "nodes", "expected"),
    [
        (1, NX, "NX"),
        (2, facts(0, None, None, None), "N0"),
        (3, facts(1, "ipsilateral", 3.0, True), "N2a"),
        (4, facts(1, "ipsilateral", 3.1, True), "N3b"),
        (4, facts(2, "ipsilateral", 1.0, True), "N3b"),
        (4, facts(1, "contralateral", 1.0, True), "N3b"),
        (4, facts(2, "bilateral", 1.0, True), "N3b"),
        (5, facts(1, "ipsilateral", 6.1, False), "N3a"),
        (6, facts(2, "bilateral", 6.0, False), "N2c"),
        (7, facts(2, "ipsilateral", 6.0, False), "N2b"),
        (8, facts(1, "ipsilateral", 6.0, False), "N2a"),
        (9, facts(1, "ipsilateral", 3.0, False), "N1"),
    ],
)
def test_p16_negative_pathological_n_row_by_row(row: int, nodes: Any, expected: str) -> None:
    made = ajcc8.negative_pn(nodes)
    assert (made.value, made.row) == (expected, f"ajcc8neg-pN:{row}")


FOUR_STAGES = [
    (1, "T1", "N0", "M1", "IVC"),
    (2, "T4b", "NX", "M0", "IVB"),
    (2, "T4b", "N0", "M0", "IVB"),
    (3, "TX", "N3", "M0", "IVB"),
    (4, "T1", "N2", "M0", "IVA"),
    (4, "T4a", "N2c", "M0", "IVA"),
    (5, "T4a", "N0", "M0", "IVA"),
    (5, "T4a", "N1", "M0", "IVA"),
    (6, "T1", "N1", "M0", "III"),
    (6, "T3", "N1", "M0", "III"),
    (7, "T3", "N0", "M0", "III"),
    (8, "T2", "N0", "M0", "II"),
    (9, "T1", "N0", "M0", "I"),
    (10, "Tis", "N0", "M0", "0"),
]


@pytest.mark.parametrize(
    ("row", "t", "n", "m", "expected"),
    [*FOUR_STAGES, (3, "T0", "N3a", "M0", "IVB"), (3, "T1", "N3b", "M0", "IVB")],
)
def test_p16_negative_stage_row_by_row(row: Any, t: Any, n: Any, m: Any, expected: Any) -> None:
    made = ajcc8.negative_stage(t, n, m)
    assert (made.value, made.row) == (expected, f"ajcc8neg-stage:{row}")


@pytest.mark.parametrize(("row", "t", "n", "m", "expected"), FOUR_STAGES)
def test_edition_7_stage_row_by_row(row: Any, t: Any, n: Any, m: Any, expected: Any) -> None:
    made = ajcc7.stage7(t, n, m)
    assert (made.value, made.row) == (expected, f"ajcc7-stage:{row}")


@pytest.mark.parametrize(
    ("t", "n", "possible"),
    [
        ("T4", "N1", {"IVA", "IVB"}),
        ("T4", "N2c", {"IVA", "IVB"}),
        ("TX", "N0", {"IVA", "IVB", "III", "II", "I", "0"}),
        ("T2", "NX", {"IVB", "IVA", "III", "II"}),
        ("T0", "N1", set()),
        ("Tis", "N1", set()),
    ],
)
def test_p16_negative_stage_row_11_is_unknown_with_a_reason(t: str, n: str, possible: Any) -> None:
    made = ajcc8.negative_stage(t, n, "M0")
    assert made.value is None
    assert made.reason
    assert set(made.possible) == possible


RTOG = [
    # row, hpv, pack-years, N7, T7, fakhry2019, ang2010
    (1, None, "le10", "N0", "T1", None, None),
    (2, "positive", None, "N0", "T4", "low", "low"),
    (2, "positive", "gt10", "N1", None, "low", "low"),
    (2, "positive", "gt10", "N2a", "T4b", "low", "low"),
    (3, "positive", "le10", "N3", "T4", "low", "low"),
    (3, "positive", "le10", "NX", "T1", "low", "low"),
    (3, "positive", "le10", None, "T1", "low", "low"),
    (4, "positive", "gt10", "N2b", "T1", "intermediate", "intermediate"),
    (4, "positive", "gt10", "N2c", None, "intermediate", "intermediate"),
    (4, "positive", "gt10", "N3", "T1", "intermediate", "intermediate"),
    (5, "positive", "gt10", "N2", "T1", None, None),
    (5, "positive", "gt10", "NX", "T1", None, None),
    (5, "positive", "gt10", None, "T1", None, None),
    (6, "positive", None, "N2b", "T1", None, None),
    (6, "positive", None, "N2", "T1", None, None),
    (6, "positive", None, "NX", "T1", None, None),
    (6, "positive", None, None, "T1", None, None),
    (7, "negative", None, None, "T4", "high", "high"),
    (7, "negative", "le10", "N0", "T4a", "high", "high"),
    (7, "negative", "gt10", "N0", "T4b", "high", "high"),
    (8, "negative", "gt10", "N0", "T1", "high", "high"),
    (8, "negative", "gt10", None, "TX", "high", "high"),
    (8, "negative", "gt10", None, None, "high", "high"),
    (9, "negative", "le10", "N3", "T2", "intermediate", "intermediate"),
    (9, "negative", "le10", None, "T3", "intermediate", "intermediate"),
    (10, "negative", "le10", "N0", "T1", "intermediate", "high"),
    (10, "negative", "le10", "N0", "T0", "intermediate", "high"),
    (10, "negative", "le10", "N0", "Tis", "intermediate", "high"),
    (11, "negative", "le10", "N0", "TX", None, None),
    (11, "negative", "le10", "N0", None, None, None),
    (12, "negative", None, "N0", "T2", None, None),
    (12, "negative", None, "N0", "TX", None, None),
    (12, "negative", None, "N0", None, None, None),
    (13, "negative", None, "N0", "T1", None, "high"),
    (13, "negative", None, "N0", "Tis", None, "high"),
]


@pytest.mark.parametrize(("row", "hpv", "years", "n", "t", "fakhry", "ang"), RTOG)
def test_rtog_0129_row_by_row_in_both_readings(
    row: Any, hpv: Any, years: Any, n: Any, t: Any, fakhry: Any, ang: Any
) -> None:
    for definition, expected in (("fakhry2019", fakhry), ("ang2010", ang)):
        made = rtog0129(hpv, years, n, t, definition=definition)  # type: ignore[arg-type]
        assert (made.value, made.row) == (expected, f"rtog0129:{row}")
        assert bool(made.reason) == (expected is None)


V9_CN = [
    ("v9-cN:1", facts(0, None, None, None), "N0", ()),
    ("v9-cN:2", facts(1, None, 6.1, None), "N3", ()),
    ("v9-cN:3", facts(2, "bilateral", 6.0, True), "N3", ()),
    ("v9-cN:4", facts(2, "bilateral", 6.0, False), "N2", ()),
    ("v9-cN:5", facts(2, "ipsilateral", 6.0, True), "N2", ()),
    ("v9-cN:6", facts(2, "ipsilateral", 6.0, False), "N1", ()),
    ("v9-cN:7", facts(1, "contralateral", 6.0, False), "N2", ()),
    ("v9-cN:8", facts(1, "contralateral", 6.0, True), "N2", ("unspecified_permutation",)),
    ("v9-cN:6", facts(1, "ipsilateral", 6.0, None), "N1", ("iene_unknown_lower_category",)),  # row 9
    ("v9-cN:4", facts(2, "bilateral", 6.0, None), "N2", ("iene_unknown_lower_category",)),
]


@pytest.mark.parametrize(("row", "nodes", "expected", "flags"), V9_CN)
def test_version_9_clinical_n_row_by_row(row: Any, nodes: Any, expected: Any, flags: Any) -> None:
    made = version9.clinical_n(nodes)
    assert (made.value, made.row, made.flags, made.reason) == (expected, row, flags, "")


def test_version_9_cannot_tell_n2c_with_extension() -> None:
    made = version9.clinical_n(FROM_N7["N2c"].with_ene(True))
    assert made.value is None
    assert set(made.possible) == {"N2", "N3"}
    assert version9.clinical_n(FROM_N7["N2c"].with_ene(False)).value == "N2"


@pytest.mark.parametrize(
    ("row", "count", "ene", "expected"),
    [
        (1, 0, None, "N0"),
        (2, 1, False, "N1a"),
        (3, 2, False, "N1b"),
        (3, 4, False, "N1b"),
        (4, 1, True, "N2"),
        (4, 4, True, "N2"),
        (5, 5, False, "N2"),
        (6, 5, True, "N3"),
    ],
)
def test_version_9_pathological_n_row_by_row(row: int, count: int, ene: bool | None, expected: str) -> None:
    made = version9.pathological_n(count, ene)
    assert (made.value, made.row) == (expected, f"v9-pN:{row}")


@pytest.mark.parametrize(
    ("row", "t", "n", "m", "expected"),
    [
        (1, "T1", "N0", "M1", "IV"),
        (2, "T4", "NX", "M0", "III"),
        (3, "T3", "N3", "M0", "III"),
        (4, "T3", "N0", "M0", "II"),
        (4, "T3", "N2", "M0", "II"),
        (5, "T1", "N2", "M0", "II"),
        (5, "T2", "N3", "M0", "II"),
        (6, "T0", "N1b", "M0", "I"),
        (6, "T2", "N1a", "M0", "I"),
        (6, "T1", "N0", "M0", "I"),
    ],
)
def test_version_9_pathological_stage_row_by_row(row: int, t: str, n: str, m: str, expected: str) -> None:
    made = version9.pathological_stage(t, n, m)
    assert (made.value, made.row) == (expected, f"v9-pstage:{row}")


@pytest.mark.parametrize(
    ("old", "new"),
    [("N0", "N0"), ("N1", "N1"), ("N2a", "N1"), ("N2b", "N1"), ("N2c", "N2"), ("N3", "N3"), ("NX", "NX")],
)
def test_the_conversion_from_7_to_8_p16_positive_loses_nothing(old: str, new: str) -> None:
    assert ajcc8.positive_n(FROM_N7[old]).value == new


def test_bare_n2_of_edition_7_cannot_be_converted() -> None:
    made = over_readings(readings("N2", FROM_N7), ajcc8.positive_n)
    assert made.value is None
    assert set(made.possible) == {"N1", "N2"}


@pytest.mark.parametrize(("old", "new"), [("T4a", "T4"), ("T4b", "T4"), ("T3", "T3"), ("T0", "T0")])
def test_t_of_the_p16_positive_chapter_has_no_letters(old: str, new: str) -> None:
    assert ajcc8.positive_t(old).value == new


@pytest.mark.parametrize(
    ("old", "new"),
    [("N0", "N0"), ("N1", "N1"), ("N2a", "N2a"), ("N2b", "N2b"), ("N2c", "N2c"), ("N3", "N3a")],
)
def test_edition_7_carries_over_to_p16_negative_without_extension(old: str, new: str) -> None:
    assert ajcc8.negative_n(FROM_N7[old].with_ene(False)).value == new
