"""Reading and preparing a large CT make no copies in wider types: bytes of memory for each voxel."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aiene.geometry.grid import Grid, Volume
from aiene.ingest.case import NativeCt
from aiene.ingest.checks import in_ct_range
from aiene.preprocess.profile import OPEN
from aiene.preprocess.resampling import open_working


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that some work held at a time, of what numpy allocates."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def thick_cylinder() -> Volume:
    """A body of 100 x 240 x 240 voxels in air; some of the air is below -1024 HU."""
    z, y, x = np.ogrid[:100, :240, :240]
    hu = np.where((y - 120) ** 2 + (x - 120) ** 2 < 100**2, 40, -1000 - 100 * (z % 2)).astype(np.int16)
    return Volume(hu, Grid(hu.shape, (1.5, 1.0, 1.0), (0.0, 0.0, 0.0)))


def test_values_below_air_are_mended_in_the_type_of_the_ct() -> None:
    hu = thick_cylinder().array
    mended = in_ct_range(Path("ct.nii"), hu).array
    assert mended.dtype == np.int16
    np.testing.assert_array_equal(mended, np.maximum(hu, -1024))
    assert peak_bytes(lambda: in_ct_range(Path("ct.nii"), hu)) < 4 * hu.size  # float64 would be 10


def test_the_open_preparation_holds_less_than_nine_bytes_a_voxel() -> None:
    ct = thick_cylinder()
    assert peak_bytes(lambda: open_working(NativeCt(ct, 2), OPEN)) < 9 * ct.array.size  # 13 with int64 counts
