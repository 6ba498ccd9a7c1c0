"""Implicit shapes in canonical anatomy, and the pose that takes points of a scan there.

Each shape gives an approximate signed distance (mm, negative inside) at canonical points. Canonical axes
are x to the patient's left, y to the back and z to the head, in mm; the origin lies in front of the third
cervical vertebra at the height of the chin. The distances are first-order (function value over the length of
its gradient), which is exact at the surface: enough for partial volume and soft edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Bounds = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

_TABLE_STEP = 0.5
"""mm between the entries of a column's lookup tables."""

Hu = float | Callable[[Field, Field], Field]
Layer = Literal["soft", "hard"]
VERTEBRA_MM = 17.0
"""Height of a cervical vertebra with its disc."""

SPINE = (
    (-260, 0, 60, 17, 15),
    (-175, 0, 50, 16, 14),
    (-100, 0, 39, 14, 11),
    (-75, 0, 26, 12, 9),
    (-50, 0, 14, 10.5, 8.5),
    (-25, 0, 7, 10, 8),
    (0, 0, 2, 9.5, 8),
    (25, 0, -3, 9, 8),
    (60, 0, -3, 7, 7),
    (72, 0, -2, 5, 5),
)
"""Rows (z, x, y, half-width, half-depth) in mm of the vertebral bodies."""


def _scale(rng: np.random.Generator, amount: float) -> float:
    return float(1 + 0.08 * amount * rng.uniform(-1, 1))


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with axes along x, y and z, turned about x by `tilt` radians.

    Parameters
    ----------
    centre, radii : mm along x, y, z.
    tilt : turns the ellipsoid's y axis towards z.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    tilt: float = 0.0

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        """Signed distance in mm."""
        c, s = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        dy, dz = y - np.float32(self.centre[1]), z - np.float32(self.centre[2])
        local = (x - np.float32(self.centre[0]), c * dy + s * dz, c * dz - s * dy)
        return ellipsoid_distance(local, self.radii)

    def bounds(self) -> Bounds:
        """Box around the ellipsoid."""
        reach = np.array(self.radii)
        if self.tilt:
            reach = np.array([self.radii[0], max(self.radii[1:]), max(self.radii[1:])])
        return np.array(self.centre) - reach, np.array(self.centre) + reach

    def varied(self, rng: np.random.Generator, amount: float) -> Ellipsoid:
        """Shifted and scaled."""
        x, y, z = (float(c + amount * rng.normal()) for c in self.centre)
        a, b, c = (r * _scale(rng, amount) for r in self.radii)
        return replace(self, centre=(x, y, z), radii=(a, b, c))

    def mirrored(self) -> Ellipsoid:
        """On the other side."""
        return replace(self, centre=(-self.centre[0], self.centre[1], self.centre[2]))


def ellipsoid_distance(local: tuple[Field, Field, Field], radii: tuple[float, float, float]) -> Field:
    """First-order signed distance to an ellipsoid at points given along its own axes."""
    first = np.zeros_like(local[0])
    second = np.zeros_like(local[0])
    for along, radius in zip(local, radii, strict=True):
        scaled = along / np.float32(radius)
        first += scaled * scaled
        second += (scaled / np.float32(radius)) ** 2
    rho = np.sqrt(first)
    result: Field = rho * (rho - 1) / np.maximum(np.sqrt(second), np.float32(1e-6))
    centre = np.float32(-min(radii))
    return np.where(rho < 0.05, centre, result).astype(np.float32)


@dataclass(frozen=True)
class Column:
    """A solid whose cross-section at each height is a superellipse: trunk, muscle, vessel, airway, spine.

    Parameters
    ----------
    knots : rows (z, centre x, centre y, half-width a, half-depth b), z rising; linear in between.
    angle : radians by which the cross-section is turned about z.
    power : 2 is an ellipse, higher is more like a rectangle.
    egg : how much wider the back is than the front (-1 to 1).
    """

    knots: tuple[tuple[float, float, float, float, float], ...]
    angle: float = 0.0
    power: float = 2.0
    egg: float = 0.0
    _tables: Field = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows = np.array(self.knots, dtype=np.float64)
        heights = np.arange(rows[0, 0], rows[-1, 0] + _TABLE_STEP, _TABLE_STEP)
        tables = np.array([np.interp(heights, rows[:, 0], rows[:, i]) for i in range(1, 5)], dtype=np.float32)
        object.__setattr__(self, "_tables", tables)

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        """Signed distance in mm, by the cross-section; flat ends."""
        low, high = np.float32(self.knots[0][0]), np.float32(self.knots[-1][0])
        at = np.clip((z - low) / np.float32(_TABLE_STEP) + np.float32(0.5), 0, self._tables.shape[1] - 1)
        at = at.astype(np.int32)
        cx, cy, a, b = (table[at] for table in self._tables)
        dx, dy = x - cx, y - cy
        if self.angle:
            c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
            dx, dy = c * dx + s * dy, c * dy - s * dx
        v = dy / b
        if self.egg:
            a = a * (1 + np.float32(self.egg) * np.clip(v, -1, 1))
        u = dx / a
        rho = _superellipse(u, v, self.power)
        slope = np.maximum(np.hypot(u / a, v / b), np.float32(1e-6))
        side = np.where(rho < 0.05, -np.minimum(a, b), rho * (rho - 1) / slope)
        result: Field = np.maximum(side, np.maximum(low - z, z - high)).astype(np.float32)
        return result

    def bounds(self) -> Bounds:
        """Box around the column."""
        rows = np.array(self.knots)
        reach = np.maximum(rows[:, 3], rows[:, 4]) if self.angle else None
        a = rows[:, 3] * (1 + abs(self.egg)) if reach is None else reach
        b = rows[:, 4] if reach is None else reach
        low = [(rows[:, 1] - a).min(), (rows[:, 2] - b).min(), rows[0, 0]]
        high = [(rows[:, 1] + a).max(), (rows[:, 2] + b).max(), rows[-1, 0]]
        return np.array(low), np.array(high)

    def varied(self, rng: np.random.Generator, amount: float) -> Column:
        """Shifted in x and y, and scaled in cross-section."""
        dx, dy = amount * rng.normal(size=2)
        a, b = _scale(rng, amount), _scale(rng, amount)
        rows = tuple((k[0], float(k[1] + dx), float(k[2] + dy), k[3] * a, k[4] * b) for k in self.knots)
        return replace(self, knots=rows)

    def mirrored(self) -> Column:
        """On the other side."""
        rows = tuple((k[0], -k[1], *k[2:]) for k in self.knots)
        return replace(self, knots=rows, angle=-self.angle)


def _superellipse(u: Field, v: Field, power: float) -> Field:
    if power == 2.0:
        rho: Field = np.hypot(u, v)
        return rho
    p = np.float32(power)
    total: Field = ((np.abs(u) ** p + np.abs(v) ** p) ** np.float32(1 / power)).astype(np.float32)
    return total


@dataclass(frozen=True)
class Chain:
    """Rods with round ends along a line of points: clavicle, scapula, humerus, small vessels.

    Parameters
    ----------
    points : rows (x, y, z, radius) in mm.
    """

    points: tuple[tuple[float, float, float, float], ...]

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        """Signed distance in mm."""
        nearest = np.full(x.shape, np.inf, dtype=np.float32)
        for start, end in zip(self.points, self.points[1:], strict=False):
            a, b = np.array(start[:3], np.float32), np.array(end[:3], np.float32)
            way = b - a
            dx, dy, dz = x - a[0], y - a[1], z - a[2]
            t = (dx * way[0] + dy * way[1] + dz * way[2]) / np.float32(max(float(way @ way), 1e-6))
            t = np.clip(t, 0, 1)
            gap = np.sqrt((dx - t * way[0]) ** 2 + (dy - t * way[1]) ** 2 + (dz - t * way[2]) ** 2)
            np.minimum(nearest, gap - (start[3] + t * (end[3] - start[3])), out=nearest)
        return nearest

    def bounds(self) -> Bounds:
        """Box around the rods."""
        rows = np.array(self.points)
        return (rows[:, :3] - rows[:, 3:]).min(axis=0), (rows[:, :3] + rows[:, 3:]).max(axis=0)

    def varied(self, rng: np.random.Generator, amount: float) -> Chain:
        """Shifted and scaled."""
        dx, dy, dz = amount * rng.normal(size=3)
        s = _scale(rng, amount)
        return Chain(tuple((p[0] + dx, p[1] + dy, p[2] + dz, p[3] * s) for p in self.points))

    def mirrored(self) -> Chain:
        """On the other side."""
        return Chain(tuple((-p[0], *p[1:]) for p in self.points))


@dataclass(frozen=True)
class Arch:
    """The front part of an elliptical ring: mandible, rows of teeth, hyoid bone.

    Parameters
    ----------
    centre : x, y, z of the ring's centre in mm.
    radii : of the ring's middle line along x and y, mm.
    half_thickness, half_height : of the ring's wall, mm.
    back : how far behind the centre the ring goes on, mm.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float]
    half_thickness: float
    half_height: float
    back: float = 0.0

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        """Signed distance in mm."""
        dx, dy = x - np.float32(self.centre[0]), y - np.float32(self.centre[1])
        a, b = np.float32(self.radii[0]), np.float32(self.radii[1])
        rho = np.hypot(dx / a, dy / b)
        slope = np.maximum(np.hypot(dx / a**2, dy / b**2), np.float32(1e-4))
        wall = np.abs(rho * (rho - 1) / slope) - np.float32(self.half_thickness)
        high = np.abs(z - np.float32(self.centre[2])) - np.float32(self.half_height)
        result: Field = np.maximum(np.maximum(wall, high), dy - np.float32(self.back)).astype(np.float32)
        return result

    def bounds(self) -> Bounds:
        """Box around the arch."""
        c, t = np.array(self.centre), self.half_thickness
        low = c - np.array([self.radii[0] + t, self.radii[1] + t, self.half_height])
        return low, c + np.array([self.radii[0] + t, self.back, self.half_height])

    def varied(self, rng: np.random.Generator, amount: float) -> Arch:
        """Shifted and scaled."""
        x, y, z = (float(c + 0.5 * amount * rng.normal()) for c in self.centre)
        a, b = (r * _scale(rng, 0.5 * amount) for r in self.radii)
        return replace(self, centre=(x, y, z), radii=(a, b))

    def mirrored(self) -> Arch:
        """On the other side."""
        return replace(self, centre=(-self.centre[0], self.centre[1], self.centre[2]))


Shape = Ellipsoid | Column | Chain | Arch
"""What can be painted: signed distance at canonical points, a box around it, a varied and a mirrored copy."""


# Tissues: a shape and its HU


@dataclass(frozen=True)
class Tissue:
    """A shape and what it is filled with.

    Parameters
    ----------
    shape : where it lies.
    hu : one value, or a function of signed distance and canonical z (mm).
    layer : `soft` is pushed aside by nodes, `hard` (bone, air, lung) is not and lies on top of them.
    edge_mm : width of its border; at least a voxel is used.
    """

    shape: Shape
    hu: Hu
    layer: Layer = "soft"
    edge_mm: float = 1.0


def beside_spine(dx: float, dy: float, a: float, b: float, low: float, high: float) -> Column:
    """A column that follows the spine at an offset."""
    rows = np.array(SPINE)
    heights = [h for h in rows[:, 0] if low < h < high]
    knots = []
    for h in (low, *heights, high):
        y = float(np.interp(h, rows[:, 0], rows[:, 2]))
        knots.append((h, dx, y + dy, a, b))
    return Column(tuple(knots))


def segmented(bone: float, gap: float, share: float) -> Callable[[Field, Field], Field]:
    """Bone interrupted by discs: HU by canonical z."""
    edge = np.float32(np.cos(np.pi * share))

    def hu(distance: Field, z: Field) -> Field:
        wave = np.cos(z * np.float32(2 * np.pi / VERTEBRA_MM))
        cover = np.clip((wave - edge) * 4 + np.float32(0.5), 0, 1)
        shell = np.clip(1 + (distance + 1.5) / 2, 0, 1) * 280  # cortical bone is denser
        value: Field = (gap + cover * (bone - gap + shell)).astype(np.float32)
        return value

    return hu


def shell(outer: float, inner: float, thickness: float) -> Callable[[Field, Field], Field]:
    """Dense within `thickness` mm of the surface, `inner` HU deeper."""

    def hu(distance: Field, _z: Field) -> Field:
        rim = np.clip(distance + thickness + 0.5, 0, 1)
        value: Field = (inner + rim * (outer - inner)).astype(np.float32)
        return value

    return hu


def pairs(tissues: Iterable[Tissue]) -> list[Tissue]:
    """Left ones, each followed by its mirror image."""
    both = []
    for t in tissues:
        both += [t, Tissue(t.shape.mirrored(), t.hu, t.layer, t.edge_mm)]
    return both


Points = npt.NDArray[np.float64]

_ROUNDS = 40
"""Fixed-point rounds of the way back; each shrinks the error at least by half."""


@dataclass(frozen=True)
class Pose:
    """A scale, a turn, a bend of the neck and a gentle asymmetry.

    Parameters
    ----------
    matrix : 3 x 4, from LPS points to straight canonical points (x, y, z).
    bend : mm by which the head lies further back for each (100 mm)^2 over the thoracic inlet.
    waves : rows (axis moved, axis that drives it, amplitude mm, wavelength mm, phase).
    """

    matrix: tuple[tuple[float, float, float, float], ...]
    bend: float
    waves: tuple[tuple[int, int, float, float, float], ...]

    def canonical_fields(self, points: tuple[Field, Field, Field]) -> tuple[Field, Field, Field]:
        """Canonical x, y, z of points given as three arrays of one shape."""
        m = np.array(self.matrix, dtype=np.float32)
        x, y, z = points
        return self._bent([row[0] * x + row[1] * y + row[2] * z + row[3] for row in m])

    def canonical(self, points_lps: npt.ArrayLike) -> Points:
        """Canonical points (..., 3) of LPS points (..., 3)."""
        p = np.asarray(points_lps, dtype=np.float64)
        m = np.array(self.matrix)
        moved = p @ m[:, :3].T + m[:, 3]
        return np.stack(self._bent([moved[..., i] for i in range(3)]), axis=-1)

    def world(self, canonical: npt.ArrayLike) -> Points:
        """LPS points (..., 3) of canonical points (..., 3): the exact inverse, by fixed-point rounds."""
        goal = np.asarray(canonical, dtype=np.float64)
        straight = goal.copy()
        for _ in range(_ROUNDS):
            bent = np.stack(self._bent([straight[..., i] for i in range(3)]), axis=-1)
            straight = straight + (goal - bent)
        m = np.array(self.matrix)
        back: Points = (straight - m[:, 3]) @ np.linalg.inv(m[:, :3]).T
        return back

    def _bent(self, straight: list[npt.NDArray[np.floating]]) -> tuple[Field, Field, Field]:
        kind = straight[0].dtype.type
        out = list(straight)
        over = np.maximum(straight[2] + kind(80), 0) / kind(100)
        out[1] = straight[1] - kind(self.bend) * over * over
        for moved, driver, amplitude, wavelength, phase in self.waves:
            angle = straight[driver] * kind(2 * np.pi / wavelength) + kind(phase)
            out[moved] = out[moved] + kind(amplitude) * np.sin(angle)
        return out[0], out[1], out[2]


def draw_pose(
    rng: np.random.Generator, *, centre_lps: npt.ArrayLike, variation: float, tilt_degrees: float
) -> Pose:
    """A pose at random, with the middle of the neck near a point of the scan.

    Parameters
    ----------
    centre_lps : (x, y, z) mm, where the canonical point (0, 5, 0) comes to lie, but for some mm.
    variation : 0 is the average person lying straight, 1 the usual spread.
    tilt_degrees : spread of each of the three angles.
    """
    size = 1 + 0.06 * variation * np.clip(rng.normal(), -2, 2)
    scale = size * (1 + 0.04 * variation * np.clip(rng.normal(size=3), -2, 2))
    angles = np.radians(tilt_degrees * variation * np.clip(rng.normal(size=3), -2, 2))
    shift = variation * rng.normal(size=3) * (4, 4, 6)
    bend = float(6 * variation * np.clip(rng.normal(), -2, 2))
    waves = tuple(
        (
            moved,
            driver,
            float(variation * rng.uniform(0, 1.6)),
            float(rng.uniform(110, 220)),
            float(rng.uniform(0, 2 * np.pi)),
        )
        for moved, driver in ((0, 2), (1, 2), (2, 1), (0, 1), (1, 0), (2, 0))
    )
    linear = np.diag(1 / scale) @ _turn(angles)
    offset = np.array((0.0, 5.0, 0.0)) - linear @ (np.asarray(centre_lps, dtype=np.float64) + shift)
    rows = np.column_stack([linear, offset])
    a, b, c = (tuple(float(v) for v in row) for row in rows)
    return Pose((a, b, c), bend, waves)  # type: ignore[arg-type]


def _turn(angles: npt.NDArray[np.float64]) -> Points:
    """Rotation by angles about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turn: Points = about_z @ about_y @ about_x
    return turn
