"""Two scans under one series UID: told apart by what differs, with the true reason; list and run agree."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from aiene.ingest.case import Refusal
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from builders.dicom_files import ct, uid, write_series
from builders.dicom_stacks import only, read, refusal

SECOND = ct(12) + np.int16(5)


def write_phases(folder: Path, first: dict[str, Any], second: dict[str, Any], **common: Any) -> Path:
    write_series(folder, hu=ct(12), prefix="a", name="", **common, **first)

    def other(index: int, ds: Dataset) -> None:
        ds.SOPInstanceUID = uid("other", str(index))

    write_series(folder, hu=SECOND, prefix="b", change=other, **common, **second)
    return folder


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, "another acquisition at the same places"),
        (
            {"TemporalPositionIdentifier": 1},
            {"TemporalPositionIdentifier": 2},
            "another phase at the same places",
        ),
        ({"AcquisitionTime": "115950"}, {"AcquisitionTime": "120040"}, "another time at the same places"),
    ],
)
def test_phases_are_told_apart_and_the_reason_is_true(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], why: str
) -> None:
    folder = write_phases(tmp_path / "p", first, second)
    case = only(folder)
    assert len(case.files) == 12
    assert any(f"12 axial slices of the series do not fit its stack ({why})" in w for w in case.warnings)
    array = read_case(case).volume.array
    assert any(np.array_equal(array, whole) for whole in (ct(12), SECOND))


def test_the_venous_phase_is_taken_where_only_the_time_differs(tmp_path: Path) -> None:
    said = {"ContrastBolusAgent": "X", "ContrastBolusStartTime": "115930"}
    folder = write_phases(
        tmp_path / "p", {"AcquisitionTime": "115950"}, {"AcquisitionTime": "120040"}, **said
    )
    np.testing.assert_array_equal(read(folder).volume.array, SECOND)
    assert only(folder).aside[0].why == "arterial contrast"


def test_times_that_rise_within_each_phase_part_them_too(tmp_path: Path) -> None:
    def timed(begin: int) -> Callable[[int, Dataset], None]:
        def change(index: int, ds: Dataset) -> None:
            ds.AcquisitionTime = f"12{begin:02d}{index:02d}"
            ds.SOPInstanceUID = uid(str(begin), str(index))

        return change

    write_series(tmp_path / "p", hu=ct(12), prefix="a", change=timed(0))
    write_series(tmp_path / "p", hu=SECOND[:9], prefix="b", change=timed(2))  # the later one is shorter
    assert len(only(tmp_path / "p").files) == 12


@pytest.mark.parametrize("zipped", [False, True])
def test_where_nothing_tells_them_apart_the_list_refuses_what_the_run_would(
    tmp_path: Path, zipped: bool
) -> None:
    folder = write_phases(tmp_path / "in" / "p", {}, {})
    if zipped:
        shutil.make_archive(str(tmp_path / "in" / "p"), "zip", folder)
        shutil.rmtree(folder)
    (case,) = find_cases(tmp_path / "in")[0]
    assert isinstance(case, Refusal)
    assert "have the same position but show different images" in case.reason


def test_a_copy_of_every_slice_still_runs(tmp_path: Path) -> None:
    write_series(tmp_path / "p", hu=ct(12), prefix="a", AcquisitionTime="120000")
    write_series(tmp_path / "p", hu=ct(12), prefix="b", AcquisitionTime="120000")
    np.testing.assert_array_equal(read(tmp_path / "p").volume.array, ct(12))


@pytest.mark.parametrize(
    ("tags", "words"), [({"RescaleSlope": None}, "no rescale slope"), ({"RescaleSlope": "0"}, "slope is 0")]
)
def test_a_slice_without_its_scale_is_refused_by_the_list_too(
    tmp_path: Path, tags: dict[str, Any], words: str
) -> None:
    write_series(tmp_path / "p", hu=ct(12), **tags)
    (case,) = find_cases(tmp_path / "p")[0]
    assert isinstance(case, Refusal)
    assert words in refusal(tmp_path / "p")
