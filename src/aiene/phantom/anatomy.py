"""A person without nodes: solid shapes with HU in canonical anatomy, and the pose that takes a scan there.

Positions and sizes are in `anatomy.toml`, read off the average proportions of adult planning CTs, and are
varied by a random generator. Enhancement is mostly that of a contrast CT in the venous phase (vessels 100 to
185 HU, glands 60 to 110, muscle 60), in some persons that of a CT without contrast medium.

Each shape gives an approximate signed distance (mm, negative inside) at canonical points: x to the patient's
left, y to the back and z to the head, in mm; the origin lies in front of the third cervical vertebra at the
height of the chin. The distances are first-order (function value over the length of its gradient), which is
exact at the surface: enough for partial volume and soft edges.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

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


def _segmented(bone: float, gap: float, share: float) -> Callable[[Field, Field], Field]:
    """Bone interrupted by discs: HU by canonical z."""
    edge = np.float32(np.cos(np.pi * share))

    def hu(distance: Field, z: Field) -> Field:
        wave = np.cos(z * np.float32(2 * np.pi / VERTEBRA_MM))
        cover = np.clip((wave - edge) * 4 + np.float32(0.5), 0, 1)
        shell = np.clip(1 + (distance + 1.5) / 2, 0, 1) * 280  # cortical bone is denser
        value: Field = (gap + cover * (bone - gap + shell)).astype(np.float32)
        return value

    return hu


def _shell(outer: float, inner: float, thickness: float) -> Callable[[Field, Field], Field]:
    """Dense within `thickness` mm of the surface, `inner` HU deeper."""

    def hu(distance: Field, _z: Field) -> Field:
        rim = np.clip(distance + thickness + 0.5, 0, 1)
        value: Field = (inner + rim * (outer - inner)).astype(np.float32)
        return value

    return hu


def _lung(distance: Field, z: Field) -> Field:
    """Lung, with ribs in its outermost 7 mm."""
    rib = np.clip(np.cos(z * np.float32(2 * np.pi / 24)) * 4 - 1.2, 0, 1) * np.clip((distance + 7) / 2, 0, 1)
    wall = np.clip((distance + 7) / 2, 0, 1)
    value: Field = (-830 * (1 - wall) + wall * (40 + 420 * rib)).astype(np.float32)
    return value


# The person: tissues of the table, and those that are drawn


@cache
def _table() -> dict[str, Any]:
    text = (resources.files("aiene.phantom") / "anatomy.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _shape(row: Mapping[str, Any]) -> Shape:
    """The shape of a row; see the head of `anatomy.toml`."""
    if "ellipsoid" in row:
        x, y, z, *radii = row["ellipsoid"]
        return Ellipsoid((x, y, z), tuple(radii), row.get("tilt", 0.0))
    if "arch" in row:
        x, y, z, a, b, *wall = row["arch"]
        return Arch((x, y, z), (a, b), *wall)
    if "chain" in row:
        return Chain(tuple(map(tuple, row["chain"])))
    if "beside_spine" in row:
        return _beside_spine(*row["beside_spine"])
    knots = _table()["spine"] if row["column"] == "spine" else row["column"]
    return Column(tuple(map(tuple, knots)), **{k: row[k] for k in ("angle", "power", "egg") if k in row})


def _beside_spine(dx: float, dy: float, a: float, b: float, low: float, high: float) -> Column:
    """A column that follows the spine at an offset."""
    rows = np.array(_table()["spine"])
    heights = [low, *(float(h) for h in rows[:, 0] if low < h < high), high]
    return Column(tuple((h, dx, float(np.interp(h, rows[:, 0], rows[:, 2])) + dy, a, b) for h in heights))


_FILLINGS: dict[str, Callable[..., Callable[[Field, Field], Field]]] = {
    "segmented": _segmented,
    "shell": _shell,
}


def _tissues(group: str, layer: Layer) -> list[Tissue]:
    """Those of the middle, then the left ones, each followed by its mirror image."""
    found = []
    for place in ("middle", "both"):
        for row in _table()[group].get(place, ()):
            hu = row["hu"]
            if isinstance(hu, dict):
                ((name, numbers),) = hu.items()
                hu = _FILLINGS[name](*numbers)
            tissue = Tissue(_shape(row), _lung if hu == "lung" else hu, layer, row.get("edge_mm", 1.0))
            found += (
                [tissue] if place == "middle" else [tissue, replace(tissue, shape=tissue.shape.mirrored())]
            )
    return found


def _vessels(rng: np.random.Generator, enhancement: float) -> list[Tissue]:
    """Both sides, then the heart; the jugular veins' widths are drawn for each side."""
    table = _table()["vessels"]
    hu = {
        blood: float(45 + enhancement * rng.uniform(*span))
        for blood, span in (("artery", (80, 140)), ("vein", (70, 130)))
    }
    found = []
    for side in (1, -1):
        wide = float(rng.uniform(0.75, 1.45))  # one jugular vein is often much wider
        for row in table["both"]:
            shape = _shape(row)
            if isinstance(shape, Column) and "jugular" in row:
                shape = replace(shape, knots=tuple((*k[:3], k[3] * wide, k[4] * wide) for k in shape.knots))
            found.append(Tissue(shape if side == 1 else shape.mirrored(), hu[row["blood"]]))
    return [*found, *(Tissue(_shape(row), hu[row["blood"]]) for row in table["middle"])]


def _strands(rng: np.random.Generator) -> list[Tissue]:
    """Thin muscles and small vessels that run anywhere in the neck: long, so no nodes."""
    found = []
    for _ in range(int(rng.integers(4, 13))):
        side = float(rng.choice([-1, 1]))
        x, y, z = side * rng.uniform(22, 56), rng.uniform(-45, 45), rng.uniform(-75, 45)
        way = rng.normal(size=3) * (0.5, 0.8, 1.0)
        dx, dy, dz = way / np.linalg.norm(way) * rng.uniform(14, 32)
        r = float(rng.uniform(1.2, 4.0))
        rod = Chain(((x - dx, y - dy, z - dz, r), (x, y, z, r * 1.2), (x + dx, y + dy * 0.6, z + dz, r)))
        found.append(Tissue(rod, float(rng.choice([rng.uniform(45, 65), rng.uniform(90, 170)]))))
    return found


def _small_nodes(rng: np.random.Generator) -> list[Tissue]:
    """Normal nodes of 3 to 7 mm along the jugular chain and in the posterior triangle: never labelled."""
    found = []
    for _ in range(int(rng.integers(6, 18))):
        z = float(rng.uniform(-75, 45))
        posterior = rng.random() < 0.35
        x = float(rng.normal(46 if posterior else 42, 3)) * float(rng.choice([-1, 1]))
        y = float(rng.normal(24 if posterior else -4, 6))
        size = float(rng.uniform(1.3, 2.4))
        shape = Ellipsoid(
            (x, y, z), (size, size * float(rng.uniform(1, 1.4)), size * float(rng.uniform(1, 2)))
        )
        found.append(Tissue(shape, float(rng.uniform(60, 100))))
    return found


@dataclass(frozen=True)
class Anatomy:
    """A person without nodes.

    Parameters
    ----------
    body : outlines whose union is the skin.
    brain : the inside of the skull.
    fat_mm : thickness of the fat under the skin.
    fat_hu : its HU.
    enhancement : 0 is a CT without contrast medium, 1 a strong one.
    tissues : in the order of painting.
    """

    body: tuple[Shape, ...]
    brain: Shape
    fat_mm: float
    fat_hu: float
    enhancement: float
    tissues: tuple[Tissue, ...]


def build_anatomy(rng: np.random.Generator, variation: float) -> Anatomy:
    """A person, drawn at random.

    Parameters
    ----------
    rng : drawn from in a fixed order, so that one seed is one person.
    variation : 0 is the average person, 1 the usual spread of sizes, positions and HU.
    """
    enhancement = float(rng.uniform(0.6, 1.0) if rng.random() < 0.85 else rng.uniform(0.0, 0.3))
    soft = [
        *(*_tissues("muscles", "soft"), *_strands(rng), *_tissues("viscera", "soft")),
        *(*_vessels(rng, enhancement), *_small_nodes(rng)),
    ]
    tissues = [_varied(t, rng, variation) for t in soft]
    hard = [tissue for name in ("ventricles", "bones", "air_spaces") for tissue in _tissues(name, "hard")]
    tissues += [_varied(tissue, rng, 0.4 * variation) for tissue in hard]
    return Anatomy(
        body=tuple(_shape(_table()[name]) for name in ("head", "neck", "trunk")),
        brain=_shape(_table()["brain"]),
        fat_mm=float(np.clip(4.0 + 2.0 * variation * rng.normal(), 1.5, 9.0)),
        fat_hu=float(np.clip(-95 + 9 * variation * rng.normal(), -115, -70)),
        enhancement=enhancement,
        tissues=tuple(tissues),
    )


def _varied(tissue: Tissue, rng: np.random.Generator, amount: float) -> Tissue:
    shape = tissue.shape.varied(rng, amount)
    shift = float(5 * amount * rng.normal())
    hu = tissue.hu
    if not callable(hu) and -200 < hu < 300:
        hu = hu + shift
    return replace(tissue, shape=shape, hu=hu)


# The pose


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
