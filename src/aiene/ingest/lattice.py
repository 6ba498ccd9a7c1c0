"""From the lattice that a file describes, sheared or not, to a volume on a rectangular grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.geometry.grid import Grid, Volume, corner_indices

Matrix = npt.NDArray[np.float64]

AIR_HU: Final = -1024.0
"""What lies outside the scan, and outside the scanned parallelepiped where a shear is undone."""

_SNAP_VOXELS: Final = 0.5
"""A lattice that nowhere leaves its rectangular neighbour by more than this is taken for it."""


@dataclass(frozen=True)
class Squared:
    """A lattice next to a rectangular one.

    Parameters
    ----------
    vectors : 3 x 3, its columns the rectangular steps (LPS mm) along z, y, x.
    angle_degrees : how far its axes are from being at right angles.
    off_by_voxels : the largest distance of a corner voxel from its place on the rectangular lattice of the
        same size and middle, in the smallest voxel spacing.
    """

    vectors: Matrix
    angle_degrees: float
    off_by_voxels: float

    @property
    def snaps(self) -> bool:
        """The deviation is too small to matter."""
        return self.off_by_voxels <= _SNAP_VOXELS


def nearest_square(affine: Matrix, size: tuple[int, int, int]) -> Squared:
    """The rectangular lattice nearest to one that may be sheared, by polar decomposition of its unit vectors.

    `affine` is 4 x 4, from indices (z, y, x, 1) to LPS points. Left-handed lattices stay left-handed.
    """
    steps = affine[:3, :3]
    spacing = np.linalg.norm(steps, axis=0)
    u, _, vt = np.linalg.svd(steps / spacing)
    return _squared(affine, size, (u @ vt) * spacing)


def keep_planes(affine: Matrix, size: tuple[int, int, int]) -> Squared:
    """The rectangular lattice with the same slice planes: the slice step loses its part within the plane.

    So a gantry tilt is undone by shifting each slice within its own plane, and a mask comes back onto the
    source slices by shifting alone.
    """
    steps = affine[:3, :3]
    normal = np.cross(steps[:, 2], steps[:, 1])
    normal /= np.linalg.norm(normal)
    return _squared(
        affine, size, np.column_stack([normal * (normal @ steps[:, 0]), steps[:, 1], steps[:, 2]])
    )


def on_rectangle(array: npt.NDArray[Any], affine: Matrix, square: Squared) -> Volume:
    """The voxels on the rectangular lattice, which is made large enough to hold all of them.

    Where the deviation is too small to matter, the same voxels with snapped axes, turned about the middle;
    else a linear interpolation, float32, air (-1024 HU) where the file has no voxels; the outermost
    ones reach one voxel further.
    """
    size: tuple[int, int, int] = array.shape
    if square.snaps:
        return Volume(array, Grid.from_affine(_about_the_middle(affine, size, square.vectors), size))
    inverse = np.linalg.inv(square.vectors)
    # in steps of the new lattice, from the old origin
    corners = corner_indices(size) @ affine[:3, :3].T @ inverse.T
    low = np.floor(corners.min(axis=0) + 1e-6)
    wide: tuple[int, int, int] = tuple(int(n) for n in np.ceil(corners.max(axis=0) - 1e-6) - low + 1)  # type: ignore[assignment]
    target = np.eye(4)
    target[:3, :3], target[:3, 3] = square.vectors, affine[:3, 3] + square.vectors @ low
    rim = affine.copy()  # the outermost voxels are repeated once, so that none is lost between two lattices
    rim[:3, 3] -= affine[:3, :3].sum(axis=1)
    moved = ndimage.affine_transform(
        np.pad(array.astype(np.float32, copy=False), 1, mode="edge"),
        np.linalg.inv(rim) @ target,
        output_shape=wide,
        order=1,
        mode="constant",
        cval=AIR_HU,
    )
    return Volume(moved, Grid.from_affine(target, wide))


def as_json(affine: Matrix, size: tuple[int, int, int]) -> dict[str, Any]:
    """The file's own lattice for the record: enough to find each source voxel again."""
    return {
        "size_zyx": [int(n) for n in size],
        "index_zyx_to_lps_mm": [[float(v) for v in row] for row in affine],
    }


def _squared(affine: Matrix, size: tuple[int, int, int], vectors: Matrix) -> Squared:
    units = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(units.T @ units)[np.triu_indices(3, 1)]
    middle = (np.array(size) - 1) / 2
    off = (corner_indices(size) - middle) @ (affine[:3, :3] - vectors).T
    return Squared(
        vectors=vectors,
        angle_degrees=float(np.degrees(np.arcsin(np.clip(cosines, 0, 1)).max())),
        off_by_voxels=float(np.linalg.norm(off, axis=1).max() / np.linalg.norm(vectors, axis=0).min()),
    )


def _about_the_middle(affine: Matrix, size: tuple[int, int, int], vectors: Matrix) -> Matrix:
    middle = (np.array(size) - 1) / 2
    snapped = affine.copy()
    snapped[:3, :3] = vectors
    snapped[:3, 3] = affine[:3, 3] + (affine[:3, :3] - vectors) @ middle
    return snapped


# Stored numbers to the two types in which HU travel: int16 where nothing is lost, else float32.


PIXEL_TYPES: Final = {
    kind: number for number, kind in enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"))
}
"""SimpleITK's numbers of the pixel types, with which the published resampling fills."""

_INT16 = np.iinfo(np.int16)


def fits_int16(values: npt.NDArray[Any]) -> bool:
    """Whether every value is a whole number that int16 can hold."""
    if values.dtype == np.int16:
        return True
    if not (values.min() >= _INT16.min and values.max() <= _INT16.max):  # also False for NaN
        return False
    return np.issubdtype(values.dtype, np.integer) or bool((values == np.rint(values)).all())


def narrow(values: npt.NDArray[Any], slope: float = 1.0, intercept: float = 0.0) -> npt.NDArray[Any]:
    """Values times slope plus intercept, computed in float64, as int16 where nothing is lost, else float32.

    Works plane by plane along the first axis. NaN and infinite values stay what they are.
    """
    plain = slope == 1.0 and intercept == 0.0
    if plain and values.dtype == np.dtype("=i2"):
        return values
    result: npt.NDArray[Any] = np.zeros(values.shape, dtype=np.int16)
    # what float32 cannot hold becomes infinite, and is found
    with np.errstate(over="ignore", invalid="ignore"):
        for k, plane in enumerate(values):
            hu = plane if plain else plane.astype(np.float64) * slope + intercept
            if result.dtype == np.int16 and not fits_int16(hu):
                result = result.astype(np.float32)
            result[k] = hu
    return result
