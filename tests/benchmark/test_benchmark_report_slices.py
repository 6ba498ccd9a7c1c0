"""The slices that the report shows, and how numbers and names are written in it."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aiene.benchmark.comparators.slice_segmenters import AxialView
from aiene.benchmark.report.worst_cases import field, window, worst_slice
from aiene.geometry.grid import AXIAL, Grid
from aiene.report.formatting import TableBuilder, dig, estimate, in_words, shown
from aiene.report.style import label, look

FOOT = np.zeros((5, 6, 7), np.uint8)
FOOT[1:4, 2, 2] = 1  # long to the head,
FOOT[1, 2:4, 2] = 2  # shorter to the back,
FOOT[1, 2, 2:6] = 3  # longest to the left
SPACING = (3.0, 2.0, 1.0)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product([False, True], repeat=3)))
def test_whatever_the_order_of_the_axes_the_picture_is_the_same(
    axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    stored = FOOT.transpose(axes)
    vectors = []
    for place, axis in enumerate(axes):
        vectors.append(tuple((-1.0 if flips[place] else 1.0) * v for v in AXIAL[axis]))
        if flips[place]:
            stored = np.flip(stored, place)
    grid = Grid(stored.shape, tuple(SPACING[axis] for axis in axes), (0.0, 0.0, 0.0), tuple(vectors))  # type: ignore[arg-type]
    view = AxialView.of(grid)
    np.testing.assert_array_equal(view.turn(stored), FOOT)
    assert view.spacing == SPACING


def test_a_tilted_stack_keeps_its_axes() -> None:
    tilt = np.radians(20)
    along = ((0.0, -np.sin(tilt), np.cos(tilt)), (0.0, np.cos(tilt), np.sin(tilt)), (1.0, 0.0, 0.0))
    view = AxialView.of(Grid((5, 6, 7), SPACING, (0.0, 0.0, 0.0), along))
    assert view.order == (0, 1, 2)
    assert view.flips == ()


masks = hnp.arrays(bool, (4, 5, 6))


@given(masks, masks)
def test_no_slice_is_worse_than_the_worst(truth: np.ndarray, prediction: np.ndarray) -> None:
    wrong = (truth != prediction).sum(axis=(1, 2))
    if wrong.any():
        assert wrong[worst_slice(truth, prediction)] == wrong.max()
    else:
        assert truth[worst_slice(truth, prediction)].sum() == truth.sum(axis=(1, 2)).max()


@given(hnp.arrays(bool, (20, 30)), st.floats(0, 20), st.floats(1, 60))
def test_the_field_holds_all_that_is_marked(marked: np.ndarray, margin: float, least: float) -> None:
    rows, columns = field(marked, (1.0, 2.0), margin=margin, least=least)
    assert marked[rows, columns].sum() == marked.sum()
    assert 0 <= rows.start < rows.stop <= 20
    assert 0 <= columns.start < columns.stop <= 30


def test_the_field_is_as_large_as_asked_for() -> None:
    marked = np.zeros((200, 200), bool)
    marked[100, 100] = True
    rows, columns = field(marked, (1.0, 0.5), margin=10, least=60)
    assert (rows.start, rows.stop) == (70, 131)
    assert (columns.start, columns.stop) == (40, 161)


def test_the_window_is_grey_from_its_lower_to_its_upper_end() -> None:
    hu = np.array([-3000.0, -135.0, 40.0, 215.0, 3000.0, np.nan, np.inf])
    np.testing.assert_allclose(window(hu, 40, 350), [0, 0, 0.5, 1, 1, 0, 1])


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.12345, "ratio", "0.123"),
        (-0.0004, "ratio", "0.000"),
        (-0.5, "ratio", "−0.500"),
        (123.456, "mm", "123.5"),
        (12345.6, "ml", "12346"),
        (0.0004, "p", "< 0.001"),
        (0.04, "p", "0.040"),
        (3, "count", "3"),
        (1146206, "large", "1.1 M"),
        (43_274_236_528, "large", "43.3 G"),
        (512, "large", "512"),
        (None, "ratio", "–"),
    ],
)
def test_numbers_are_written_as_people_read_them(value: Any, kind: Any, text: Any) -> None:
    assert shown(value, kind) == text


def test_a_value_and_its_interval_have_the_same_digits() -> None:
    value = {"value": 29.795, "low": 3.14159, "high": 1350.1}
    assert [part.text for part in estimate(value, "ml").parts] == ["30", "3", " to ", "1350"]
    assert in_words(value, "ml") == "30 (3 to 1350)"
    assert in_words({"value": 0.5, "low": None, "high": None}) == "0.500"


def test_each_reason_is_told_once_for_all_whom_it_concerns() -> None:
    builder = TableBuilder("t", ("a",))
    for who in ("x", "y", "x"):
        builder.estimate(who, "slope", {"value": None, "reason": "too few."})
    builder.estimate("z", "slope", {"value": 1.0, "low": 0.5, "high": 2.0, "reason": ""})
    assert builder.table().notes == ("Slope of x, y: too few.",)


def test_a_path_that_is_not_there_is_none() -> None:
    assert dig({"a": [{"b": 1}]}, "a", 0, "b") == 1
    assert dig({"a": [{"b": 1}]}, "a", 1, "b") is None
    assert dig({"a": "text"}, "a", 0) is None
    assert dig(None, "a") is None


def test_seventy_models_look_different() -> None:
    assert len({(one.colour, one.marker) for one in map(look, range(70))}) == 70


def test_names_fit_and_are_no_formulas() -> None:
    assert label("a" * 50 + "z", 10, lines=1) == "aaaa…aaaaz"
    assert label("$x$") == r"\$x\$"
    assert label("") == ""


@given(st.text(max_size=90), st.integers(4, 30), st.integers(1, 3))
def test_no_name_is_longer_than_its_place(name: str, width: int, lines: int) -> None:
    parts = label(name, width, lines).replace(r"\$", "$").split("\n")
    assert len(parts) <= lines
    assert max(map(len, parts)) <= width


def test_long_names_that_differ_at_their_end_stay_different() -> None:
    names = [f"organisation/a-model-with-quite-a-long-name-{number}-base-224" for number in range(9)]
    assert len({label(name) for name in names}) == 9
