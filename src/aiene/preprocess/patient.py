"""The patient out of a stored CT, in one frame however the CT is stored.

The registration is sensitive: a grid that differs in the tenth digit ends 0.00004 mm elsewhere, one that
differs in the sixth 0.3 mm. So what it sees must be the same to the bit for every storage order of one CT,
with any amount of air around the patient and whatever lies in that air. All that follows is made from
`Patient` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.errors import CaseError
from aiene.geometry.grid import Block, Grid, RigidTransform, Triple, Volume, bounding_box, triple

FLOOR_HU = -1000.0
"""Air. Scanners write -1024, -2000 or -3024 where they have measured nothing: all of it is air here."""

CEILING_HU = 3071.0
"""The top of a 12-bit CT; metal and damaged voxels beyond it are no brighter here."""

LEAST_BODY_MM2 = 4000.0
"""A disc of 71 mm: less than a neck, more than a spine alone, which some blanked CTs keep, and more than the
first slice of a crown that is not cut off."""

_STEPS = 1e5
_UP_FROM = 0.54  # not 0.5: spacings such as 200 mm / 512 lie exactly there

Cut = tuple[tuple[bool, bool], tuple[bool, bool], tuple[bool, bool]]

BODY_HU = -300.0
"""Over this is body on an averaged lattice: fat lies near -100, lung and air below -500."""

BONE_HU = 200.0
_OPENING_MM = 6.0  # what is thinner than twice this is no body

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Patient:
    """The box around a patient, in the anatomical order of axes.

    Parameters
    ----------
    volume : float32 HU from -1000 to 3071; its own frame begins at the box's first voxel, whatever place
        the scanner gave it.
    place : where the same voxels lie in the native CT's space.
    cut : for the low and the high end of each axis, whether the box ends within the patient.
    """

    volume: Volume
    place: Grid
    cut: Cut

    @property
    def to_native(self) -> RigidTransform:
        """Takes points of the frame to points of the native CT.

        A shift: it lays the boxes' middles on each other, and the rounded frame is nowhere more than a few
        micrometres off.
        """
        return RigidTransform(
            translation=triple(np.subtract(self.place.centre, self.volume.grid.centre)),
        )


def patient_of(ct: Volume) -> Patient:
    """The patient: the largest connected part of a CT that is denser than air, and the box around it.

    Parameters
    ----------
    ct : HU on the native grid, in any order of axes.

    Raises
    ------
    CaseError : there is nothing but air.
    """
    ordered = ct.anatomical()
    found = _largest_dense(ordered.array)
    if found is None:
        raise CaseError("no body was found in the CT", "check that it is a CT in HU")
    box, mask = found
    z, y, x = box
    place = ordered.grid.crop(
        (z.start, y.start, x.start), (z.stop - z.start, y.stop - y.start, x.stop - x.start)
    )
    hu = np.empty(place.size, dtype=np.float32)  # C-ordered: sums depend on the order in memory
    np.clip(ordered.array[box], FLOOR_HU, CEILING_HU, out=hu)
    return Patient(Volume(hu, _frame(place)), place, _cut(mask, place))


_SLAB = 32  # slices


def _largest_dense(hu: npt.NDArray[Any]) -> tuple[Block, npt.NDArray[np.bool_]] | None:
    """Box and mask (in the box) of the largest face-connected part over `BODY_HU`; None where there is none.

    Single dense voxels beside the patient are no part of it, so they cannot move the box. Of parts of one
    size the first in the anatomical order is taken.
    """
    dense = np.ascontiguousarray(hu > BODY_HU)
    outer = bounding_box(dense)
    if outer is None:
        return None
    parts, n = ndimage.label(dense[outer])
    counts = np.zeros(n + 1, dtype=np.int64)
    for first in range(0, len(parts), _SLAB):  # bincount makes int64 of what it counts
        counts += np.bincount(parts[first : first + _SLAB].ravel(), minlength=n + 1)
    largest = 1 + int(np.argmax(counts[1:]))
    inner = ndimage.find_objects(parts, max_label=largest)[largest - 1]
    z, y, x = (slice(o.start + i.start, o.start + i.stop) for o, i in zip(outer, inner, strict=True))
    return (z, y, x), parts[inner] == largest


def _cut(mask: npt.NDArray[np.bool_], place: Grid) -> Cut:
    """Whether the patient is as large as a neck in the outermost planes of the box, so that it goes on."""

    def of(axis: int) -> tuple[bool, bool]:
        planes = mask.sum(axis=tuple(a for a in range(3) if a != axis))[[0, -1]]
        low, high = planes * (place.voxel_volume_mm3 / place.spacing[axis]) >= LEAST_BODY_MM2
        return bool(low), bool(high)

    return of(0), of(1), of(2)


def _frame(place: Grid) -> Grid:
    """The box's own grid: from (0, 0, 0), spacing and cosines rounded to 1e-5.

    What was read from files of different order differs in digits beyond that, which text and float32 headers
    do not hold.
    """
    z, y, x = (_rounded(vector) for vector in place.direction)
    return Grid(size=place.size, spacing=_rounded(place.spacing), origin=(0.0, 0.0, 0.0), direction=(z, y, x))


def _rounded(values: Triple) -> Triple:
    return triple(np.floor(np.array(values) * _STEPS + (1 - _UP_FROM)) / _STEPS)


def body_mask(volume: Volume) -> Mask:
    """The largest connected body, without couch and head rest, its airways and lungs filled slice by slice.

    Parameters
    ----------
    volume : HU on a lattice of a few mm.
    """
    dense = volume.array > BODY_HU
    radii = [max(1, round(_OPENING_MM / s)) for s in volume.grid.spacing]
    eroded = dense.copy()
    for axis, radius in enumerate(radii):
        eroded = ndimage.minimum_filter1d(eroded, 2 * radius + 1, axis=axis, mode="nearest")
    parts, n = ndimage.label(eroded)
    if n == 0:
        return np.zeros(dense.shape, dtype=bool)
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    for axis, radius in enumerate(radii):
        largest = ndimage.maximum_filter1d(largest, 2 * radius + 3, axis=axis, mode="nearest")
    return np.stack([ndimage.binary_fill_holes(plane) for plane in largest & dense])


def dilate(mask: Mask, spacing: tuple[float, float, float], rim_mm: float) -> Mask:
    """The mask with a rim around it, as a box filter does it."""
    for axis, s in enumerate(spacing):
        mask = ndimage.maximum_filter1d(mask, 2 * max(1, round(rim_mm / s)) + 1, axis=axis)
    return mask


def centre_of(mask: Mask, volume: Volume) -> npt.NDArray[np.float64] | None:
    """LPS mm (x, y, z) of the mean of a mask's voxels; None for an empty mask."""
    if not mask.any():
        return None
    return volume.grid.points(np.array(ndimage.center_of_mass(mask)))
