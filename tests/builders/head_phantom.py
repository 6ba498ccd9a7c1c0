"""A crude head and neck with planted spheres, drawn in physical space, so on any lattice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aiene.geometry.grid import Grid, RigidTransform, Volume

Floats = npt.NDArray[np.float64]

SPHERES: tuple[tuple[float, float, float, float], ...] = (
    (32.0, -22.0, 8.0, 10.0),  # x, y, z of the centre and radius, mm, in the head's own space
    (-34.0, -14.0, 12.0, 11.0),
    (38.0, 14.0, -32.0, 12.0),
    (-30.0, -12.0, -48.0, 10.0),
    (-33.0, 24.0, -10.0, 13.0),
)
NODE_HU = 200.0


@dataclass(frozen=True)
class Head:
    """Where the head lies: its own space to the patient's."""

    pose: RigidTransform = field(default_factory=RigidTransform)
    spheres: tuple[tuple[float, float, float, float], ...] = SPHERES

    def on(self, grid: Grid) -> Volume:
        """The head sampled on a grid: float32 HU."""
        points = grid.points(np.moveaxis(np.indices(grid.size), 0, -1).reshape(-1, 3))
        hu = drawn(self.pose.inverse().apply(points), self.spheres)
        return Volume(hu.reshape(grid.size).astype(np.float32), grid)

    def centres(self) -> Floats:
        """LPS mm of the spheres' centres in the patient's space, (n, 3)."""
        return self.pose.apply([sphere[:3] for sphere in self.spheres])


def drawn(p: Floats, spheres: tuple[tuple[float, float, float, float], ...]) -> Floats:
    """HU at points (n, 3) of the head's own space."""
    x, y, z = axes = tuple(np.ascontiguousarray(p.T))  # each in one piece: three times as fast
    hu = np.full(len(x), -1000.0)
    hu[(abs(z) < 115) & _disc(x, y, 0, 8, 58, 62)] = 40
    hu[_ball(axes, (0, 30, -135), (210, 90, 70))] = 20
    hu[_ball(axes, (0, -5, 105), (75, 95, 90))] = 30
    hu[_ball(axes, (0, 5, 110), (68, 85, 78)) & ~_ball(axes, (0, 5, 110), (61, 78, 71))] = 900
    hu[_disc(x, y, 0, 38, 15, 13) & (z < 60) & (z > -160)] = 500
    chin = _disc(x, y, 0, -20, 58, 66) & ~_disc(x, y, 0, -20, 49, 57) & (abs(z - 40) < 13) & (y < 0)
    hu[chin] = 900
    hu[_ball(axes, (80, 5, 95), (14, 14, 22))] = 40  # only one ear: left and right differ
    hu[_disc(x, y, 0, -12, 9, 8) & (z < 60) & (z > -170)] = -1000
    for *centre, radius in spheres:
        hu[_ball(axes, (centre[0], centre[1], centre[2]), (radius,) * 3)] = NODE_HU
    return hu


def turned_grid(
    order: tuple[int, int, int], signs: tuple[float, float, float], spacing: tuple[float, float, float]
) -> Grid:
    """A lattice whose array axes run along the patient's in any order and sign, around the neck.

    `order[a]` is the patient's axis (0: z, 1: y, 2: x) of array axis a.
    """
    extent, middle = np.array([330.0, 260.0, 380.0]), np.array([0.0, 0.0, 20.0])
    units = np.eye(3)[[2, 1, 0]]  # LPS unit vectors along the patient's z, y, x
    axes = np.array([units[o] * s for o, s in zip(order, signs, strict=True)])
    size = [max(1, int(extent[o] / step)) for o, step in zip(order, spacing, strict=True)]
    first = middle - ((np.array(size) - 1) / 2 * spacing) @ axes
    rows = [tuple(float(v) for v in axis) for axis in axes]
    x, y, z = (float(v) for v in first)
    return Grid((size[0], size[1], size[2]), spacing, (x, y, z), (rows[0], rows[1], rows[2]))  # type: ignore[arg-type]


def _ball(
    axes: Sequence[Floats], centre: tuple[float, float, float], radii: tuple[float, ...]
) -> npt.NDArray[np.bool_]:
    x, y, z = (((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True))
    inside: npt.NDArray[np.bool_] = x + y + z <= 1
    return inside


def _disc(x: Floats, y: Floats, cx: float, cy: float, rx: float, ry: float) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1
    return inside
