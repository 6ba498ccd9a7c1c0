"""Sizes that no CT of a neck has, checked before anything large is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from aiene.errors import InputError

MIN_SLICES: Final = 4
"""Fewer voxels than this along an axis are no volume that a neck could be seen in."""

MIN_SPACING_MM: Final = 0.1
MAX_SPACING_MM: Final = 20.0
_MAX_DEFLATE: Final = 1032
"""Deflate cannot make data smaller than this many times (zlib's technical details)."""

_BYTES_NEEDED: Final = 8
"""Peak per voxel while reading: the stored values, the HU, and a copy in float32 at worst."""


def check_size(path: Path, size: Sequence[int]) -> None:
    """Refuse a volume of fewer than four voxels along an axis.

    Raises
    ------
    InputError : the image is two-dimensional or nearly so.
    """
    shown = " x ".join(str(n) for n in size)
    if min(size) < 2:
        raise InputError(path, f"it is a single two-dimensional image ({shown})", "give the whole CT volume")
    if min(size) < MIN_SLICES:
        raise InputError(path, f"it has only {min(size)} slices ({shown})", "give the whole CT volume")


def check_spacing(path: Path, spacing: Sequence[float], unit: str = "") -> None:
    """Refuse a voxel spacing that no CT has.

    Parameters
    ----------
    path : named in the error.
    spacing : mm along each axis.
    unit : what the header says of its unit of length, where that may be the cause.

    Raises
    ------
    InputError : a spacing is zero, not a number, under 0.1 mm or over 20 mm.
    """
    if all(math.isfinite(v) and MIN_SPACING_MM <= v <= MAX_SPACING_MM for v in spacing):
        return
    shown = " x ".join(f"{v:.4g}" for v in spacing)
    raise InputError(
        path,
        f"its voxel spacing of {shown} mm is no CT's ({MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} mm)"
        + (f"; {unit}" if unit else ""),
        "correct the spacing or its unit in the header" if unit else "correct the spacing in the header",
    )


def check_promise(path: Path, promised: int, *, offset: int = 0, deflated: bool = False) -> None:
    """Refuse a header that promises more bytes than its file can hold.

    Parameters
    ----------
    path : the file that holds the voxels.
    promised : bytes of voxels by the header.
    offset : where they begin.
    deflated : the file is compressed with deflate (gzip).

    Raises
    ------
    InputError : the file is shorter than its header says.
    """
    there = path.stat().st_size
    possible = there * _MAX_DEFLATE if deflated else there - offset
    if promised > possible:
        raise InputError(
            path,
            f"its header promises {_gib(promised)} of voxels, but the file has only {_gib(there)}",
            "the file is cut off or its header is wrong: get it again",
        )


def check_memory(path: Path, voxels: int) -> None:
    """Refuse a volume that this machine's free memory cannot hold.

    Raises
    ------
    InputError : reading would need more than is free.
    """
    needed, free = voxels * _BYTES_NEEDED, psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            path,
            f"reading its {voxels} voxels needs {_gib(needed)} of memory, and {_gib(free)} are free",
            "crop or resample the CT to the head and neck, or use a larger machine",
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**20 else f"{size} bytes"
