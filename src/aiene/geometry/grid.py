"""`Grid`, the one truth about space, and `Volume`, an array that never travels without one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

Triple = tuple[float, float, float]
Points = npt.NDArray[np.float64]

AXIAL: tuple[Triple, Triple, Triple] = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Unit vectors (LPS) along z, y and x of an ordinary axial stack that rises towards the head."""

_ORTHONORMAL_TOLERANCE = 1e-4
_SAME_COSINE = 1e-4
"""Direction cosines that differ by less count as one where an order is chosen: headers round them."""


@dataclass(frozen=True)
class AxisOrder:
    """Another storage order of the same voxels.

    Parameters
    ----------
    axes : the array axis that becomes the first, second and third.
    reversed : whether that axis then runs the other way.
    """

    axes: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]

    @property
    def is_identity(self) -> bool:
        """Whether it leaves everything as it is."""
        return self.axes == (0, 1, 2) and not any(self.reversed)

    @property
    def inverse(self) -> AxisOrder:
        """The order that takes the voxels back."""
        a, b, c = (self.axes.index(axis) for axis in range(3))
        return AxisOrder((a, b, c), (self.reversed[a], self.reversed[b], self.reversed[c]))


ORDERS = tuple(
    AxisOrder((a, b, c), (r, s, t))
    for a, b, c in permutations((0, 1, 2))
    for r, s, t in product((False, True), repeat=3)
)
"""All 48 ways to store the same voxels; the first leaves them as they are."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an array lie in the patient.

    Array axes are (z, y, x); points are LPS, (x, y, z), in mm. A left-handed direction is as good as a
    right-handed one: real scanners write both.

    Parameters
    ----------
    size : voxels along z, y, x, each at least 1.
    spacing : mm along z, y, x, each over 0.
    origin : LPS mm of the centre of voxel (0, 0, 0).
    direction : three unit vectors (LPS), along z, along y and along x, orthogonal to each other.

    Raises
    ------
    ValueError : a size, spacing or direction that describes no lattice.
    """

    size: tuple[int, int, int]
    spacing: Triple
    origin: Triple
    direction: tuple[Triple, Triple, Triple] = AXIAL

    def __post_init__(self) -> None:
        numbers = np.array([*self.spacing, *self.origin, *np.ravel(self.direction)], dtype=np.float64)
        if len(self.size) != 3 or min(self.size) < 1:
            raise ValueError(f"a grid has three sizes of at least 1, not {self.size}")
        if not np.isfinite(numbers).all() or min(self.spacing) <= 0:
            raise ValueError(
                f"voxel spacing {self.spacing} or origin {self.origin} is not a position in space"
            )
        vectors = np.array(self.direction)
        if not np.allclose(vectors @ vectors.T, np.eye(3), atol=_ORTHONORMAL_TOLERANCE):
            raise ValueError("direction cosines are not orthonormal")

    @classmethod
    def from_affine(cls, affine: npt.ArrayLike, size: tuple[int, int, int]) -> Grid:
        """The grid of a 4 x 4 matrix that takes indices (z, y, x, 1) to LPS points; no shear allowed."""
        matrix = np.asarray(affine, dtype=np.float64)
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if not np.isfinite(matrix).all() or (spacing <= 0).any():
            raise ValueError("voxel spacing is zero or not a number")
        vectors = (matrix[:3, :3] / spacing).T
        return cls(
            size=size,
            spacing=triple(spacing),
            origin=triple(matrix[:3, 3]),
            direction=(triple(vectors[0]), triple(vectors[1]), triple(vectors[2])),
        )

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Grid:
        """The grid of `facts`."""
        z, y, x = (triple(vector) for vector in facts["direction_zyx_lps"])
        return cls(
            size=tuple(facts["size_zyx"]),
            spacing=triple(facts["spacing_zyx_mm"]),
            origin=triple(facts["origin_lps_mm"]),
            direction=(z, y, x),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """JSON values for the record of a case; `from_facts` takes them back."""
        return {
            "size_zyx": list(self.size),
            "spacing_zyx_mm": list(self.spacing),
            "origin_lps_mm": list(self.origin),
            "direction_zyx_lps": [list(vector) for vector in self.direction],
        }

    @cached_property
    def affine(self) -> Points:
        """4 x 4, from indices (z, y, x, 1) to LPS points (x, y, z, 1); read-only."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.array(self.direction).T * np.array(self.spacing)
        matrix[:3, 3] = self.origin
        matrix.flags.writeable = False
        return matrix

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm3."""
        return float(np.prod(self.spacing))

    @property
    def voxel_diagonal_mm(self) -> float:
        """Length of a voxel's diagonal in mm."""
        return float(np.linalg.norm(self.spacing))

    @property
    def extent_mm(self) -> Triple:
        """Size times spacing along z, y, x, in mm."""
        return triple(np.array(self.size) * np.array(self.spacing))

    @property
    def centre(self) -> Triple:
        """LPS mm of the middle of the grid."""
        return triple(self.points((np.array(self.size) - 1) / 2))

    def points(self, indices: npt.ArrayLike) -> Points:
        """LPS points (..., 3) of indices (..., 3) in (z, y, x) order, which may be fractions."""
        return np.asarray(indices, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def indices(self, points_lps: npt.ArrayLike) -> Points:
        """Continuous indices (..., 3) in (z, y, x) order of LPS points (..., 3)."""
        offset = np.asarray(points_lps, dtype=np.float64) - self.affine[:3, 3]
        return offset @ np.linalg.inv(self.affine[:3, :3]).T

    def index_map(self, target: Grid) -> Points:
        """4 x 4, from indices on `target` to indices on this grid."""
        return np.linalg.inv(self.affine) @ target.affine

    def crop(self, start: tuple[int, int, int], size: tuple[int, int, int]) -> Grid:
        """The same lattice from voxel `start` on; may reach outside."""
        return replace(self, size=size, origin=triple(self.points(np.array(start))))

    def reordered(self, order: AxisOrder) -> Grid:
        """The grid of the same voxels stored in another order; nothing moves."""
        if order.is_identity:
            return self
        first = [
            n - 1 if r else 0 for n, r in zip(np.take(self.size, order.axes), order.reversed, strict=True)
        ]
        index = np.zeros(3)
        index[list(order.axes)] = first
        z, y, x = (
            triple(np.array(self.direction[axis]) * (-1.0 if turned else 1.0) + 0.0)  # + 0.0: no -0.0
            for axis, turned in zip(order.axes, order.reversed, strict=True)
        )
        a, b, c = order.axes
        return Grid(
            size=(self.size[a], self.size[b], self.size[c]),
            spacing=(self.spacing[a], self.spacing[b], self.spacing[c]),
            origin=triple(self.points(index)),
            direction=(z, y, x),
        )

    def anatomical_order(self) -> AxisOrder:
        """The order in which the axes run nearest to head, back and left, as those of an axial stack do.

        All 48 storage orders of one CT lead to one and the same grid: of the 24 orders that are not mirrored
        against `AXIAL`, the one with the largest sum of cosines to it; where several are equal (a CT turned
        by 45 degrees), the one whose cosines, read in order, are the larger at the first difference.
        """
        best: list[tuple[AxisOrder, npt.NDArray[np.float64]]] = []
        for order in ORDERS:
            rows = np.array(self.direction)[list(order.axes)] * np.where(order.reversed, -1.0, 1.0)[:, None]
            if np.linalg.det(rows) * np.linalg.det(AXIAL) > 0:
                best.append((order, np.array([np.sum(rows * AXIAL), *rows.ravel()])))
        for place in range(10):
            most = max(cosines[place] for _, cosines in best)
            best = [(order, cosines) for order, cosines in best if cosines[place] > most - _SAME_COSINE]
        return best[0][0]

    def corners(self) -> Points:
        """LPS points (8, 3) of the centres of the eight corner voxels."""
        return self.points(corner_indices(self.size))

    def apart_mm(self, affine: npt.NDArray[np.float64]) -> float:
        """The largest distance of a corner voxel by another affine (4 x 4) from its place here."""
        points = corner_indices(self.size) @ affine[:3, :3].T + affine[:3, 3]
        return float(np.linalg.norm(points - self.corners(), axis=1).max())

    def differences(self, other: Grid) -> tuple[float, float]:
        """How far two grids of one size lie apart.

        Returns the largest distance of two corner voxels in mm, and the largest difference of a direction
        cosine.
        """
        shift = np.linalg.norm(self.corners() - other.corners(), axis=1).max()
        turn = np.abs(np.array(self.direction) - np.array(other.direction)).max()
        return float(shift), float(turn)


@dataclass(frozen=True, eq=False)
class Volume:
    """An array (z, y, x) and the grid that it lies on. Treat the array as read-only.

    Raises
    ------
    ValueError : the array's shape is not the grid's size.
    """

    array: npt.NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        if tuple(self.array.shape) != tuple(self.grid.size):
            raise ValueError(f"array of shape {self.array.shape} on a grid of size {self.grid.size}")

    def with_array(self, array: npt.NDArray[Any]) -> Volume:
        """Other voxels in the same place."""
        return Volume(array, self.grid)

    def reordered(self, order: AxisOrder) -> Volume:
        """The same voxels in the same places, stored in another order; a view of the same memory."""
        step = tuple(slice(None, None, -1) if turned else slice(None) for turned in order.reversed)
        return Volume(self.array.transpose(order.axes)[step], self.grid.reordered(order))

    def anatomical(self) -> Volume:
        """The volume in the anatomical order of its grid; a view of the same memory."""
        return self.reordered(self.grid.anatomical_order())


def corner_indices(size: npt.ArrayLike) -> Points:
    """Indices (8, 3) of the eight corner voxels of an array of a size."""
    corners: Points = np.array(list(np.ndindex(2, 2, 2)), dtype=np.float64) * (np.asarray(size) - 1)
    return corners


def triple(values: npt.ArrayLike) -> Triple:
    """Three plain floats, for a frozen record, out of any three numbers."""
    a, b, c = (float(v) for v in np.asarray(values))
    return a, b, c


# The one border to SimpleITK, whose arrays and points are both written (x, y, z).


def to_sitk(volume: Volume) -> sitk.Image:
    """A SimpleITK image of the same voxels in the same place."""
    grid = volume.grid
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(grid.spacing[::-1])
    image.SetOrigin(grid.origin)
    image.SetDirection(np.array(grid.direction)[::-1].T.ravel().tolist())
    return image


def grid_of(image: sitk.Image) -> Grid:
    """The grid of a three-dimensional SimpleITK image.

    Raises
    ------
    ValueError : the image is not three-dimensional, or its geometry describes no lattice.
    """
    if image.GetDimension() != 3:
        raise ValueError(f"an image of {image.GetDimension()} dimensions instead of 3")
    columns = np.array(image.GetDirection()).reshape(3, 3).T[::-1]
    z, y, x = (tuple(float(v) for v in column) for column in columns)
    return Grid(
        size=image.GetSize()[::-1],
        spacing=image.GetSpacing()[::-1],
        origin=image.GetOrigin(),
        direction=(z, y, x),  # type: ignore[arg-type]
    )


def volume_of(image: sitk.Image) -> Volume:
    """The volume of a three-dimensional SimpleITK image; its voxels are copied."""
    return Volume(sitk.GetArrayFromImage(image), grid_of(image))


Matrix = tuple[tuple[float, ...], ...]
Block = tuple[slice, slice, slice]


def bounding_box(mask: npt.NDArray[Any]) -> Block | None:
    """The smallest block that holds every voxel of a map (z, y, x) that is not 0; None for an empty one."""
    plane = np.any(mask, axis=2)  # seven times as quick as scipy's find_objects
    across, along = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if not across.size:
        return None
    z, y = slice(int(across[0]), int(across[-1]) + 1), slice(int(along[0]), int(along[-1]) + 1)
    columns = np.flatnonzero(mask[z, y].any(axis=(0, 1)))
    return z, y, slice(int(columns[0]), int(columns[-1]) + 1)


_TIE = 1e-8
"""Of a voxel: far over the rounding of an index map (1e-12), far below what any file says. A point in the
middle between two voxels goes to the one of the higher index; without it the last bit of an origin would
decide, which differs with the storage order."""


def nearest_voxels(indices: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The voxels nearest to fractional indices, of two equally near ones that of the higher index."""
    return np.floor(np.asarray(indices) + (0.5 + _TIE)).astype(np.int64)


@dataclass(frozen=True)
class RigidTransform:
    """Takes LPS points (mm) of one space to another: rotation, then translation.

    Parameters
    ----------
    rotation : 3 x 3 orthonormal matrix of determinant 1, on columns (x, y, z).
    translation : mm along x, y, z.

    Raises
    ------
    ValueError : the matrix is no rotation, or a number is not finite.
    """

    rotation: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        turn = np.array(self.rotation, dtype=np.float64)
        if turn.shape != (3, 3) or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-6):
            raise ValueError("the matrix is not orthonormal")
        if np.linalg.det(turn) < 0 or not np.isfinite(self.translation).all():
            raise ValueError("the transform mirrors, or shifts to nowhere")

    @classmethod
    def from_matrix(cls, matrix: npt.ArrayLike) -> RigidTransform:
        """The transform of a 4 x 4 matrix on points (x, y, z, 1)."""
        m = np.asarray(matrix, dtype=np.float64)
        x, y, z = (float(v) for v in m[:3, 3])
        return cls(tuple(tuple(float(v) for v in row) for row in m[:3, :3]), (x, y, z))

    @cached_property
    def matrix(self) -> npt.NDArray[np.float64]:
        """4 x 4, on points (x, y, z, 1); read-only."""
        m = np.eye(4)
        m[:3, :3] = self.rotation
        m[:3, 3] = self.translation
        m.flags.writeable = False
        return m

    @property
    def angle_degrees(self) -> float:
        """How far the transform turns, about whichever axis."""
        cosine = (np.trace(self.matrix[:3, :3]) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))

    def apply(self, points_lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Points (..., 3) taken to the other space."""
        moved: npt.NDArray[np.float64] = (
            np.asarray(points_lps, dtype=np.float64) @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        )
        return moved

    def inverse(self) -> RigidTransform:
        """The way back, exact: the rotation's transpose."""
        back = self.matrix[:3, :3].T
        m = np.eye(4)
        m[:3, :3] = back
        m[:3, 3] = -back @ self.matrix[:3, 3]
        return RigidTransform.from_matrix(m)

    def after(self, first: RigidTransform) -> RigidTransform:
        """`first`, then this one."""
        return RigidTransform.from_matrix(self.matrix @ first.matrix)
