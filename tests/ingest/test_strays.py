"""A slice with a place that cannot be is set aside and named, and the geometry of the others stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from builders.dicom_files import Array, ct, save, slice_dataset, write_series
from builders.dicom_stacks import only, read, refusal

GARBAGE = {
    "huge": ["3.4e9", "-1e-39", "3.4e9"],
    "denormal": ["1e-39", "1e-39", "1e-39"],
    "not a number": ["NaN", "NaN", "NaN"],
    "infinite": ["-20", "-15", "inf"],
    "beside": ["480", "-15", "109"],
    "between": ["-20", "-15", "110.2"],
    "far along": ["-20", "-15", "5e5"],
}


def add(folder: Path, position: list[str], name: str = "zz.dcm") -> None:
    ds = slice_dataset((ct()[3].astype(np.int32) + 1024).astype(np.uint16), name=name)
    ds.ImagePositionPatient = ["333" if word in ("NaN", "inf") else word for word in position]
    path = save(ds, folder / name)
    if {"NaN", "inf"} & set(position):  # pydicom would not write them
        said = "\\".join(map(str, ds.ImagePositionPatient)).encode()
        path.write_bytes(path.read_bytes().replace(said, "\\".join(position).encode()))


@pytest.mark.parametrize("kind", GARBAGE)
def test_one_garbage_position_is_set_aside_and_named(tmp_path: Path, kind: str) -> None:
    write_series(tmp_path / "one", hu=ct(24))
    add(tmp_path / "one", GARBAGE[kind])
    case, found = only(tmp_path / "one"), read(tmp_path / "one")
    np.testing.assert_array_equal(found.volume.array, ct(24))
    assert found.volume.grid.spacing == (3.0, 0.9, 0.8)
    assert found.volume.grid.origin == (-20.0, -15.0, 100.0)
    assert len(case.files) == 24
    assert [w for w in case.warnings if w.startswith("zz.dcm gives no position, or one that")]


def test_two_of_them_are_both_named(tmp_path: Path) -> None:
    write_series(tmp_path / "one", hu=ct(24))
    add(tmp_path / "one", GARBAGE["huge"], "y.dcm")
    add(tmp_path / "one", GARBAGE["between"], "z.dcm")
    np.testing.assert_array_equal(read(tmp_path / "one").volume.array, ct(24))
    assert any(w.startswith("y.dcm, z.dcm give no position") for w in only(tmp_path / "one").warnings)


def test_where_the_slice_is_needed_the_case_is_refused_and_it_is_named(tmp_path: Path) -> None:
    def garble(index: int, ds: Dataset) -> None:
        if index == 5:
            ds.ImagePositionPatient = ["-20", "-15", "3.4e9"]

    write_series(tmp_path / "one", hu=ct(24), change=garble)
    text = refusal(tmp_path / "one")
    assert "1 slice is missing within z = 112.0 to 118.0 mm" in text
    assert "CT005.dcm gives no position, or one that cannot belong to the series" in text


@pytest.mark.parametrize("end", [0, 23])
def test_a_slice_beyond_a_gap_is_not_astray(tmp_path: Path, end: int) -> None:
    write_series(tmp_path / "one", hu=ct(24), leave_out=[1 if end == 0 else 22])
    assert "1 slice is missing" in refusal(tmp_path / "one")


def test_many_odd_positions_are_no_strays(tmp_path: Path) -> None:
    def wander(index: int, ds: Dataset) -> None:
        if index % 3 == 0:
            ds.ImagePositionPatient = ["30", "-15", str(100 + 3 * index)]

    write_series(tmp_path / "one", hu=ct(24), change=wander)
    assert "shifted sideways against each other by up to" in refusal(tmp_path / "one")


@settings(max_examples=15, deadline=None)
@given(
    wild=st.lists(
        st.tuples(*[st.floats(-1e30, 1e30).filter(lambda v: abs(v) > 3000)] * 3), min_size=1, max_size=2
    ),
    tilt=st.floats(-20, 20),
)
@pytest.mark.slow
def test_any_wild_positions_leave_the_rest_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, wild: list[tuple[float, ...]], tilt: float
) -> None:
    folder = tmp_path_factory.mktemp("wild")
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    write_series(folder / "a", hu=ct(12), orientation=(1, 0, 0, 0, c, -s))
    alone: Array = read(folder / "a").volume.array
    for number, place in enumerate(wild):
        ds = slice_dataset(
            (ct()[3].astype(np.int32) + 1024).astype(np.uint16),
            name=f"w{number}",
            position=place,
            orientation=(1, 0, 0, 0, c, -s),
        )
        save(ds, folder / "a" / f"w{number}.dcm")
    np.testing.assert_array_equal(read(folder / "a").volume.array, alone)


@pytest.mark.parametrize(
    ("heights", "words"),
    [
        (
            (0, 3, 6, 9, 10.5, 12, 13.5, 15),
            "its slices lie 3.00 mm apart within z = 100.0 to 109.0 mm and 1.50 mm apart elsewhere",
        ),
        ((0, 3, 6, 12, 15, 18, 21, 24), "1 slice is missing within z = 106.0 to 112.0 mm"),
        ((0, 3, 6, 12, 18, 21, 24, 27), "2 slices are missing within"),
        ((0, 3, 7, 9, 13, 15, 18, 22), "unevenly spaced (2.00 to 4.00 mm apart)"),
        ((0, 6, 9, 15, 18, 24, 27, 30, 33, 39, 42, 48, 51, 54), "in 1 more places (spacing 3.00 mm)"),
    ],
)
def test_two_spacings_and_missing_slices_are_told_apart(
    tmp_path: Path, heights: tuple[float, ...], words: str
) -> None:
    def place(index: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = ["-20", "-15", str(100 + heights[index])]

    write_series(tmp_path / "one", hu=ct(len(heights)), change=place)
    assert words in refusal(tmp_path / "one")
