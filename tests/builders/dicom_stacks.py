"""Inputs and readings that several tests share, first written for test_dicom_stacking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aiene.errors import InputError
from aiene.ingest.case import Case, NativeCt, Refusal
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case


def only(source: Path) -> Case:
    cases, _ = find_cases(source)
    (case,) = cases
    assert isinstance(case, Case), case.reason
    return case


def read(source: Path) -> NativeCt:
    return read_case(only(source))


def refusal(source: Path) -> str:
    """The sentence by which the only case of a source is refused, at the search or at reading."""
    (case,) = find_cases(source)[0]
    if isinstance(case, Refusal):
        return case.reason
    with pytest.raises(InputError) as error:
        read_case(case)
    return str(error.value)


def mark_points(volume_ct: NativeCt) -> np.ndarray:
    """LPS points of the bright mark's voxels."""
    return volume_ct.volume.grid.points(np.argwhere(volume_ct.volume.array > 800))


def tilted(degrees: float) -> tuple[float, ...]:
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(np.radians(degrees))), -float(np.sin(np.radians(degrees))))
