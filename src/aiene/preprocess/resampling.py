"""The CT as registration and crop see it: resampled or averaged, and cut where it shows the whole body.

Coarse lattices are block means on the CT's own axes, or an upright lattice on the template's axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from aiene.errors import CaseError
from aiene.geometry.grid import Grid, RigidTransform, Triple, Volume, to_sitk, volume_of
from aiene.geometry.resample import block_factors, block_mean, downsample
from aiene.ingest.case import NativeCt
from aiene.preprocess.patient import FLOOR_HU, LEAST_BODY_MM2, Mask, Patient, body_mask, dilate, patient_of
from aiene.preprocess.profile import PUBLISHED, Profile

_WHOLE_BODY_SLICES = 200
_DROPPED_SHARE = 0.65
_OVERVIEW_MM = (6.0, 6.0, 6.0)
_RIM_MM = 15.0
_TISSUE_HU = -500.0
_BESIDE = 3
_FAR_MM = 1000.0


# Coarse lattices


@dataclass(frozen=True, eq=False)
class Working:
    """A CT on its way to the template.

    Parameters
    ----------
    volume : HU, float32: what is registered and sampled.
    to_native : takes its points to points of the native CT. The published cut leaves the origin where it was,
        and the open profile works in a frame of its own; this puts it right.
    known : the part of the native grid that holds a body.
    """

    volume: Volume
    to_native: RigidTransform
    known: Grid


def published_working(ct: NativeCt, profile: Profile = PUBLISHED) -> Working:
    """The CT at 1 x 1 x 3 mm, float32, filled with the number of its pixel type, the whole body cut off."""
    volume = resample_to_crop_spacing(ct, profile.crop_spacing)
    n = volume.grid.size[0]
    if n <= _WHOLE_BODY_SLICES:
        return Working(volume, RigidTransform(), known_part(ct.volume))
    first = int(n * _DROPPED_SHARE)
    # The published code keeps the old origin here. The registration repeats to the bit only in those
    # coordinates, so they are kept as well, and the way back carries the difference.
    kept = Volume(volume.array[first:], replace(volume.grid, size=(n - first, *volume.grid.size[1:])))
    true = volume.grid.crop((first, 0, 0), kept.grid.size)
    x, y, z = (t - k for t, k in zip(true.origin, kept.grid.origin, strict=True))
    return Working(kept, RigidTransform(translation=(x, y, z)), known_part(ct.volume))


def resample_to_crop_spacing(ct: NativeCt, crop_spacing: Triple = PUBLISHED.crop_spacing) -> Volume:
    """The whole CT at 1 x 1 x 3 mm (x, y, z), linear, float32; outside is the number of the pixel type."""
    image = to_sitk(ct.volume)
    spacing = crop_spacing[::-1]
    pairs = zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)
    size = [max(1, round(n * old / new)) for n, old, new in pairs]
    return volume_of(
        sitk.Resample(
            image,
            size,
            sitk.Transform(),
            sitk.sitkLinear,
            image.GetOrigin(),
            spacing,
            image.GetDirection(),
            float(ct.pixel_type),
            sitk.sitkFloat32,
        )
    )


def open_working(ct: NativeCt, profile: Profile) -> Working:
    """The CT's uppermost part that holds a body, in air, averaged to at most the crop's spacing.

    It is the same to the bit for every storage order of a CT, with any amount of air around the patient and
    with anything in that air.

    Raises
    ------
    CaseError : there is no body in the CT.
    """
    patient = patient_of(ct.volume)
    hu = patient.volume
    factors = block_factors(hu.grid.spacing, _OVERVIEW_MM)
    overview = block_mean(hu, factors)
    body = _body_in_air(overview)
    upper = _upper_body(overview, body, profile.whole_body_mm)
    near = dilate(body, overview.grid.spacing, _RIM_MM)
    for axis, factor in enumerate(factors):
        near = near.repeat(factor, axis=axis).take(np.arange(hu.grid.size[axis]), axis=axis)
    known = _known_around(patient)
    hu.array[~near] = FLOOR_HU  # in place: the box may hold a thousand slices
    part = _with_rim(patient, upper.min(axis=0) * factors, (upper.max(axis=0) + 1) * factors)
    return Working(
        downsample(part, _along_axes(profile.crop_spacing, hu.grid)),
        patient.to_native,
        known,
    )


def _body_in_air(overview: Volume) -> Mask:
    """The body's mask. The box may end with the couch, which is thin only where air lies beyond it."""
    beside = ((0, 0), (_BESIDE, _BESIDE), (_BESIDE, _BESIDE))
    wide = np.pad(overview.array, beside, constant_values=FLOOR_HU)
    _, y, x = overview.grid.size
    grid = overview.grid.crop((0, -_BESIDE, -_BESIDE), wide.shape)
    return body_mask(Volume(wide, grid))[:, _BESIDE : _BESIDE + y, _BESIDE : _BESIDE + x]


def _with_rim(patient: Patient, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> Volume:
    """Voxels `first` to `last` of the box and 15 mm around, in air; no more where the box cuts the body."""
    hu = patient.volume
    size = np.array(hu.grid.size)
    rim = np.ceil(_RIM_MM / np.array(hu.grid.spacing)).astype(int)
    low_cut, high_cut = np.array(patient.cut).T
    low = np.maximum(first - rim, np.where(low_cut, 0, -rim))
    high = np.minimum(last + rim, np.where(high_cut, size, size + rim))
    inside = tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, size, strict=True))
    beside = np.stack([np.maximum(-low, 0), np.maximum(high - size, 0)], axis=1)
    part = np.ascontiguousarray(np.pad(hu.array[inside], beside, constant_values=FLOOR_HU))
    return Volume(part, hu.grid.crop((int(low[0]), int(low[1]), int(low[2])), part.shape))


def _known_around(patient: Patient) -> Grid:
    """Where the CT shows a body or the air beside it: a file without that air knows no less.

    Beside the patient it has no end, but for sides at which the CT cuts the patient off.
    """
    known = known_part(Volume(patient.volume.array, patient.place))
    far = np.ceil(_FAR_MM / np.array(known.spacing)).astype(int)
    more = np.where(patient.cut, 0, far[:, None])
    more[head_axis(known)] = 0
    size = np.array(known.size) + more.sum(axis=1)
    start = -more[:, 0]
    return known.crop(
        (int(start[0]), int(start[1]), int(start[2])), (int(size[0]), int(size[1]), int(size[2]))
    )


def known_part(volume: Volume) -> Grid:
    """The part of the grid that holds a body: without the end slices of less tissue than a neck has."""
    axis = head_axis(volume.grid)
    counts = np.count_nonzero(volume.array > _TISSUE_HU, axis=tuple(a for a in range(3) if a != axis))
    areas = counts * volume.grid.voxel_volume_mm3 / volume.grid.spacing[axis]
    filled = np.flatnonzero(areas >= LEAST_BODY_MM2)
    if filled.size == 0:
        return volume.grid
    start, size = [0, 0, 0], list(volume.grid.size)
    start[axis], size[axis] = int(filled[0]), int(filled[-1] - filled[0] + 1)
    return volume.grid.crop((start[0], start[1], start[2]), (size[0], size[1], size[2]))


def head_axis(grid: Grid) -> int:
    """The array axis that runs most along the patient."""
    return int(np.argmax(np.abs(np.array(grid.direction)[:, 2])))


def _upper_body(overview: Volume, body: Mask, length_mm: float) -> npt.NDArray[np.int64]:
    """Indices (n, 3) of the body's voxels in its uppermost `length_mm`."""
    if not body.any():
        raise CaseError("no body was found in the CT", "check that it is a CT in HU")
    indices = np.argwhere(body)
    heights = overview.grid.points(indices)[:, 2]
    upper: npt.NDArray[np.int64] = indices[heights >= heights.max() - length_mm]
    return upper


def _along_axes(crop_spacing: Triple, grid: Grid) -> Triple:
    """The crop's spacing along the grid's own axes: that of slices along the patient, that of rows across."""
    z, y, x = (crop_spacing[0] if axis == head_axis(grid) else crop_spacing[1] for axis in range(3))
    return z, y, x


def resample_onto(working: Working, lattice: Grid, transform: sitk.Transform, outside: float) -> Volume:
    """The CT on a lattice of the template's space, linear, float32."""
    like = to_sitk(Volume(np.zeros(lattice.size, dtype=np.uint8), lattice))
    return volume_of(
        sitk.Resample(to_sitk(working.volume), like, transform, sitk.sitkLinear, outside, sitk.sitkFloat32)
    )
