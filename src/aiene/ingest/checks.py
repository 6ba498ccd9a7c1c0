"""Whether voxels can be HU of a patient in air; those that no CT can hold, brought into its range.

The rule
    NaN and infinite values are refused, and so is what float32 cannot hold. Below -1024 HU there is nothing:
    untagged padding (-2000, -3024, -32768) and the noise of air become -1024, as tagged padding does. Above
    30,710 HU, where the extended CT scale ends, a value is no measurement: what touches a face of the volume
    is padding of another kind (a negative number that was read unsigned) and becomes -1024 too, any other
    voxel becomes 30,710.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psutil
from scipy import ndimage

from aiene.errors import InputError, Said, joined, ours, said
from aiene.geometry.grid import Volume
from aiene.ingest.lattice import AIR_HU, narrow

_LOW, _HIGH = -4096, 4096  # the histogram's ends, one bin per HU; values beyond count in the last bins
_AIR_BELOW_HU: Final = -500
_MASK_VALUES: Final = 256
_SHIFT: Final = 1024
_SHORT_MM: Final = 100.0
_COARSE_MM: Final = 6.0


@dataclass(frozen=True)
class Census:
    """How many voxels have which value.

    Parameters
    ----------
    counts : int64 (8193,), voxels per rounded HU from -4096 to 4096.
    minimum, maximum : of all voxels.
    whole : every value is a whole number.
    """

    counts: npt.NDArray[np.int64]
    minimum: float
    maximum: float
    whole: bool

    def share(self, low: int, high: int) -> float:
        """Share of voxels from `low` to `high` HU, both included, 0 to 1."""
        part = self.counts[max(low, _LOW) - _LOW : max(high, _LOW) - _LOW + 1].sum()
        return float(part / self.counts.sum())

    @property
    def distinct(self) -> int:
        """How many different rounded values there are."""
        return int(np.count_nonzero(self.counts))


def check_finite(path: Path, array: npt.NDArray[Any]) -> None:
    """Refuse voxels that are not numbers.

    Raises
    ------
    InputError : a voxel is NaN or infinite; says how many.
    """
    if not np.issubdtype(array.dtype, np.floating):
        return
    bad = sum(int(np.count_nonzero(~np.isfinite(plane))) for plane in array)
    if bad:
        problem = said("{} of its {} voxels are NaN or infinite (as float32)", bad, array.size)
        raise InputError(path, problem, "write the CT again without such values")


def take_census(array: npt.NDArray[Any]) -> Census:
    """Count the values of finite voxels, plane by plane so that no copy of the volume is needed."""
    counts = np.zeros(_HIGH - _LOW + 1, dtype=np.int64)
    minimum, maximum, whole = np.inf, -np.inf, True
    for plane in array:
        rounded = np.rint(plane)
        whole = whole and bool((rounded == plane).all())
        minimum, maximum = min(minimum, float(plane.min())), max(maximum, float(plane.max()))
        bins = np.clip(rounded, _LOW, _HIGH).astype(np.int64) - _LOW
        counts += np.bincount(bins.ravel(), minlength=counts.size)
    return Census(counts, minimum, maximum, whole)


def check_hounsfield(path: Path, array: npt.NDArray[Any]) -> tuple[Said, ...]:
    """Refuse voxels that are clearly not HU of a patient in air; warn of odd ones.

    The limits were set so that each of the 105 CTs of OpenKBP passes without a warning of this kind.

    Parameters
    ----------
    path : named in the error.
    array : finite voxels, (z, y, x).

    Returns
    -------
    Warnings; none for an ordinary CT.

    Raises
    ------
    InputError : one value only, a mask, no air, stored values without their intercept, no soft tissue.
    """
    census = take_census(array)
    error = _impossible(path, census)
    if error is not None:
        raise error
    warnings = []
    if census.share(_LOW, _AIR_BELOW_HU) < 0.01:
        warnings.append(said("less than 1 % of the CT is air (below -500 HU): is it cropped, or not in HU?"))
    if census.share(-200, 200) < 0.01:
        warnings.append(said("less than 1 % of the CT is soft tissue (-200 to 200 HU): is it in HU?"))
    return tuple(warnings)


def check_coverage(volume: Volume) -> tuple[Said, ...]:
    """Warn where the CT is too short for a whole neck (under 100 mm) or too coarse for nodes (over 6 mm)."""
    height = np.abs(np.array(volume.grid.direction)[:, 2]) @ np.array(volume.grid.extent_mm)
    coarsest = max(volume.grid.spacing)
    warnings = []
    if height < _SHORT_MM:
        warnings.append(
            said("the CT covers only {:.0f} mm from head to foot: a part of the neck may be missing", height)
        )
    if coarsest > _COARSE_MM:
        warnings.append(said("its voxels are up to {:.1f} mm large: small nodes may be missed", coarsest))
    return tuple(warnings)


def _impossible(path: Path, census: Census) -> InputError | None:
    remedy = "give the CT in Hounsfield units (air about -1000, water 0)"
    if census.minimum == census.maximum:
        return InputError(path, said("every voxel has the value {:g}", census.minimum), remedy)
    if census.minimum >= 0 and census.whole and census.maximum < _MASK_VALUES:
        what = said("its values are {} small whole numbers, so it looks like a mask", census.distinct)
        return InputError(path, what, "give the CT, and masks by --masks")
    if _shifted(census, _SHIFT):
        return InputError(
            path,
            "its values look like stored values, 1024 above HU (air about 0, tissue about 1024)",
            "subtract 1024, or export the CT again with its rescale intercept applied",
        )
    if census.minimum > _AIR_BELOW_HU:
        what = said(
            "it holds no air (lowest value {:g}), so it is an MR, a mask, or not in HU", census.minimum
        )
        return InputError(path, what, remedy)
    if _shifted(census, -_SHIFT):
        problem = "its values look 1024 below HU, as if the intercept had been applied twice"
        return InputError(path, problem, "add 1024, or export the CT again")
    if census.share(-200, 300) < 0.002:
        return InputError(path, "it holds no soft tissue (nearly nothing from -200 to 300 HU)", remedy)
    return None


def _shifted(census: Census, by: int) -> bool:
    """Air and tissue stand `by` above their place, and at least one of them is missing in it."""
    air_there, tissue_there = census.share(by - 1100, by - 850), census.share(by - 150, by + 150)
    if by > 0:
        return air_there > 0.02 and tissue_there > 0.05 and census.share(-1100, -850) < 0.01
    return air_there > 0.02 and tissue_there > 0.05 and census.share(-150, 150) < 0.02


# Sizes that no CT of a neck has, checked before anything large is read.


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
    shown = joined(" x ", size)
    if min(size) < 2:
        raise InputError(
            path, said("it is a single two-dimensional image ({})", shown), "give the whole CT volume"
        )
    if min(size) < MIN_SLICES:
        raise InputError(
            path, said("it has only {} slices ({})", min(size), shown), "give the whole CT volume"
        )


def check_spacing(path: Path, spacing: Sequence[float], unit: Said | None = None) -> None:
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
    shown = joined(" x ", [said("{:.4g}", v) for v in spacing])
    raise InputError(
        path,
        said(
            "its voxel spacing of {} mm is not that of a CT ({:g} to {:g} mm){}",
            shown,
            MIN_SPACING_MM,
            MAX_SPACING_MM,
            said("; {}", unit) if unit else said(""),
        ),
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
            said(
                "its header announces {} of voxels, but the file contains only {}",
                _gib(promised),
                _gib(there),
            ),
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
            said(
                "reading its {} voxels needs {} of memory, and {} are free", voxels, _gib(needed), _gib(free)
            ),
            "crop or resample the CT to the head and neck, or use a larger machine",
        )


def _gib(size: int) -> Said:
    return said("{:.2f} GiB", size / 2**30) if size >= 2**20 else said("{} bytes", size)


HIGHEST_HU: Final = 30710.0
"""End of the extended CT scale (12 bits times ten). A 12-bit CT ends at 3071; dental metal on the extended
scale reaches 27,012 in the CTs of OpenKBP, none of which this range changes."""

_LOWEST_STORED: Final = -32768.0
"""Padding is a number of 16 bits: what lies below has another cause, and the user should look at it."""


@dataclass(frozen=True, eq=False)
class InRange:
    """Voxels within the range of CT, and what was done to bring them there.

    Parameters
    ----------
    array : HU; int16 where nothing is lost, else float32. The array that was given where all were in range.
    facts : counts for the record; empty where all were in range.
    warnings : what the user should look at.
    """

    array: npt.NDArray[Any]
    facts: dict[str, int] = field(default_factory=dict)
    warnings: tuple[Said, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        """What `case.json` says of it."""
        return {"out_of_range_voxels": self.facts} if self.facts else {}


def in_ct_range(path: Path, array: npt.NDArray[Any]) -> InRange:
    """Bring the voxels of a CT into the range of CT, by the rule above.

    Parameters
    ----------
    path : named in the error.
    array : HU (z, y, x), int16 or float32.

    Raises
    ------
    InputError : a voxel is NaN or infinite; says how many.
    """
    check_finite(path, array)
    lowest, highest = float(array.min()), float(array.max())
    if lowest >= AIR_HU and highest <= HIGHEST_HU:
        return InRange(array)
    below = int(np.count_nonzero(array < AIR_HU))
    above = array > HIGHEST_HU if highest > HIGHEST_HU else None
    # With limits of the array's own type: plain floats would make a float64 of a CT of int16.
    clipped = np.clip(array, array.dtype.type(AIR_HU), array.dtype.type(HIGHEST_HU))
    facts, warnings = {"below_air": below} if below else {}, []
    if lowest < _LOWEST_STORED:
        warnings.append(
            said(
                "it holds values down to {:g} HU, which no CT does: all below {:g} were taken as air",
                lowest,
                AIR_HU,
            )
        )
    if above is not None:
        count = int(np.count_nonzero(above))
        rim = _at_a_face(above)
        padded = int(np.count_nonzero(rim))
        clipped[rim] = AIR_HU
        facts |= {"above_ct_range": count - padded, "padding_above_ct_range": padded}
        warnings.append(_told(count, padded, highest))
    return InRange(narrow(clipped), facts, tuple(warnings))


def _told(count: int, padded: int, highest: float) -> Said:
    voxels = ours("1 voxel has a value") if count == 1 else said("{} voxels have values", count)
    if padded == count:
        taken = ours("taken as padding (air), since it is at the edge")
    elif padded:
        taken = said("{} at the edge were taken as padding (air), the others as {:g} HU", padded, HIGHEST_HU)
    else:
        taken = said("taken as {:g} HU", HIGHEST_HU)
    return said("{} that no CT holds (up to {:g} HU): {}", voxels, highest, taken)


def _at_a_face(there: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    parts, _ = ndimage.label(there)
    faces = [np.take(parts, side, axis=axis).ravel() for axis in range(3) for side in (0, -1)]
    touching = np.unique(np.concatenate(faces))
    return np.isin(parts, touching[touching > 0])
