"""Planted lymph nodes and primary tumours: how they look, where they lie, how many and how large.

A node without extranodal extension has a smooth, sharp margin and a plane of fat around it. With extension
the margin is rough and blurred, the fat plane is gone in part, strands reach into the fat, the centre is
necrotic more often, and neighbouring nodes may be matted. `strength` (0 to 1) says how plain these signs are.

Levels and their shares follow the order in which oropharyngeal and other head-and-neck cancers spread (level
II far before III, then V, IV and Ib; retropharyngeal seldom): J. P. Shah, Am. J. Surg. 160:405, 1990; V.
Gregoire et al., Radiother. Oncol. 110:172, 2014 for the levels' borders.

Sizes are log-normal about 15 mm within 8 to 35 mm: most are over the short axis of 10 to 11 mm from which a
node counts as enlarged (doi 10.1186/s40644-022-00504-z). The signs of extension are those that readers go by,
irregular border, stranding, lost fat plane and necrosis (A. H. Aiken et al., Am. J. Neuroradiol. 36:1776,
2015). Necrosis is rarer without extension (D. R. Randall et al., Head Neck 37:92, 2015: odds ratio 12; here
3.7) and, like the size from a mean radius of 5 mm on, does not give extension away by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from aiene.phantom.anatomy import Field, Pose, ellipsoid_distance

Side = Literal["left", "right", "midline"]
Fields = tuple[Field, Field, Field]

DISPLACEMENT_REACH = 3.5
"""Tissue further off than this many radii is not moved."""


@dataclass(frozen=True)
class Lobe:
    """One ellipsoid of a lesion.

    Parameters
    ----------
    centre : LPS mm.
    radii : mm along its own axes.
    axes : rows are the unit vectors (LPS) of its own axes.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    axes: tuple[tuple[float, float, float], ...]

    def local(self, points: Fields) -> Fields:
        """Points along the lobe's own axes, mm from its centre."""
        d = [p - np.float32(c) for p, c in zip(points, self.centre, strict=True)]
        m = np.array(self.axes, dtype=np.float32)
        x, y, z = (m[i, 0] * d[0] + m[i, 1] * d[1] + m[i, 2] * d[2] for i in range(3))
        return x, y, z

    @property
    def mean_radius(self) -> float:
        """Radius in mm of the sphere of the same volume."""
        return float(np.prod(self.radii) ** (1 / 3))


@dataclass(frozen=True)
class Margin:
    """How a lesion ends.

    Parameters
    ----------
    roughness : amplitude of its irregularity, as a share of the radius.
    waves : rows (x, y, z, phase) of plane waves on the unit sphere that make the irregularity.
    edge_mm : width over which its HU fade into the surroundings.
    fat_plane_mm : width of the fat around it; 0 is none.
    stranding : 0 to 1, how much of the fat nearby is streaked.
    """

    roughness: float
    waves: tuple[tuple[float, float, float, float], ...]
    edge_mm: float
    fat_plane_mm: float
    stranding: float

    def bumps(self, local: Fields) -> Field:
        """Irregularity (share of the radius) in the direction of each point."""
        length = np.maximum(np.sqrt(local[0] ** 2 + local[1] ** 2 + local[2] ** 2), np.float32(1e-3))
        total = np.zeros_like(length)
        for kx, ky, kz, phase in self.waves:
            total += np.cos((kx * local[0] + ky * local[1] + kz * local[2]) / length + np.float32(phase))
        scale = np.float32(self.roughness / np.sqrt(max(len(self.waves), 1) / 2))
        bumps: Field = total * scale
        return bumps


@dataclass(frozen=True)
class Lesion:
    """A node or a primary tumour.

    Parameters
    ----------
    lobes : the first is the main one; more of them are matted together.
    margin : how it ends.
    hu : of its solid part.
    necrosis : share of the radius that is necrotic; 0 is none.
    necrosis_hu : of that.
    label : 1 GTVp, 2 GTVn.
    """

    lobes: tuple[Lobe, ...]
    margin: Margin
    hu: float
    necrosis: float
    necrosis_hu: float
    label: int

    def distance(self, points: Fields) -> Field:
        """Signed distance in mm at LPS points, negative inside."""
        nearest: Field | None = None
        for lobe in self.lobes:
            local = lobe.local(points)
            d = ellipsoid_distance(local, lobe.radii)
            if self.margin.roughness:
                d = d - self.margin.bumps(local) * np.float32(lobe.mean_radius)
            nearest = d if nearest is None else np.minimum(nearest, d)
        if nearest is None:
            raise ValueError("a lesion has at least one lobe")
        return nearest

    def bounds(self, rim_mm: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Lowest and highest LPS point of a box that holds the lesion and a rim."""
        reach = [max(lobe.radii) * (1 + 2 * self.margin.roughness) + rim_mm for lobe in self.lobes]
        centres = np.array([lobe.centre for lobe in self.lobes])
        return (centres - np.array(reach)[:, None]).min(axis=0), (centres + np.array(reach)[:, None]).max(
            axis=0
        )

    def paint(self, hu: Field, points: Fields, voxel_mm: float) -> tuple[Field, npt.NDArray[np.bool_]]:
        """The surroundings' HU with the lesion in them, and where it is."""
        d = self.distance(points)
        margin = self.margin
        if margin.fat_plane_mm:
            near = np.clip((np.float32(margin.fat_plane_mm) - d) / np.float32(0.8) + np.float32(0.5), 0, 1)
            hu = hu + np.float32(0.75) * near * (-95 - hu)
        if margin.stranding:
            hu = _streaked(hu, d, points, margin)
        inside = np.clip(0.5 - d / np.float32(max(margin.edge_mm, voxel_mm)), 0, 1)
        filling = self._filling(points)
        painted: Field = (hu + inside * (filling - hu)).astype(np.float32)
        return painted, d < 0

    def _filling(self, points: Fields) -> Field:
        filling = np.full(points[0].shape, self.hu, dtype=np.float32)
        for lobe in self.lobes if self.necrosis else ():
            local = lobe.local(points)
            inner = tuple(r * self.necrosis for r in lobe.radii)
            d = ellipsoid_distance(local, inner)  # type: ignore[arg-type]
            d = d - np.float32(1.5) * self.margin.bumps(local) * np.float32(lobe.mean_radius)
            core = np.clip(0.5 - d / np.float32(2.5), 0, 1)
            filling += core * (np.float32(self.necrosis_hu) - filling)
        return filling


def _streaked(hu: Field, d: Field, points: Fields, margin: Margin) -> Field:
    """Fat near the lesion with streaks of soft tissue; other tissue stays."""
    wave = np.zeros_like(d)
    for kx, ky, kz, phase in margin.waves[:4]:
        length = np.float32(1.4 / max(float(np.linalg.norm((kx, ky, kz))), 1e-3))  # one streak every 4.5 mm
        angle = (kx * points[0] + ky * points[1] + kz * points[2]) * length + np.float32(phase)
        wave = np.maximum(wave, np.clip((np.cos(angle) - np.float32(0.45)) * 2, 0, 1))
    near = np.clip(1 - d / 9, 0, 1) * np.float32(margin.stranding)
    share = np.where(hu < 20, near * (np.float32(0.35) + np.float32(0.65) * wave), 0)
    streaked: Field = (hu + share * (np.float32(35) - hu)).astype(np.float32)
    return streaked


def pushed_back(points: Fields, lobe: Lobe) -> Fields:
    """Where tissue that now lies at `points` lay before the lobe grew there.

    Nine tenths of the lobe's volume are made room for by moving tissue outwards from its centre; the movement
    fades to nothing at `DISPLACEMENT_REACH` radii.
    """
    local = lobe.local(points)
    rho = np.sqrt(sum((a / np.float32(r)) ** 2 for a, r in zip(local, lobe.radii, strict=True)))
    kept = np.float32(0.1)
    outside = np.maximum(rho, 1)
    factor = np.cbrt(outside**3 - (1 - kept)) / outside
    fade = np.clip((np.float32(DISPLACEMENT_REACH) - rho) / np.float32(1.2), 0, 1)
    factor = 1 - (1 - factor) * fade
    x, y, z = (np.float32(c) + (p - np.float32(c)) * factor for p, c in zip(points, lobe.centre, strict=True))
    return x, y, z


Clearance = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

LEVELS: dict[str, tuple[float, tuple[float, float, float], tuple[float, float, float]]] = {
    "II": (0.46, (42, 0, 32), (3, 5, 13)),
    "III": (0.20, (38, -2, -9), (3, 4, 8)),
    "IV": (0.10, (31, 0, -54), (3, 4, 9)),
    "V": (0.12, (50, 30, -12), (3, 6, 20)),
    "Ib": (0.08, (38, -44, 0), (4, 6, 4)),
    "RP": (0.04, (17, -9, 52), (1, 1, 7)),
}
"""Level: share of nodes, canonical centre on the left (mm), spread (mm)."""


SMALLEST_ENE_MM = 5.0
"""Mean radius under which a node has no extension: the signs would be finer than a CT shows."""
WEAKEST_ENE = 0.35
"""Strength of the signs of extension from which on a reader sees them at once."""


@dataclass(frozen=True)
class PlantedNode:
    """A node as it was planted.

    Parameters
    ----------
    centre_lps_mm : of the main lobe.
    radii : mm along its own axes (not along x, y, z).
    ene : with extranodal extension.
    ene_strength : 0 to 1, how plain its signs are; 0 without extension.
    side : of the neck.
    level : `Ib`, `II`, `III`, `IV`, `V` or `RP` (retropharyngeal).
    label : its number (1, 2, ...) in `Phantom.node_map`.
    lobes : more than one where nodes are matted.
    """

    centre_lps_mm: tuple[float, float, float]
    radii: tuple[float, float, float]
    ene: bool
    ene_strength: float
    side: Side
    level: str
    label: int
    lobes: int


@dataclass(frozen=True)
class Wishes:
    """What is to be planted.

    Parameters
    ----------
    nodes : fewest and most planted nodes.
    ene_share : share of nodes with extranodal extension.
    weakest_ene : least strength of its signs, above 0.
    mimic_share : share of the nodes without extension that look a little like it all the same.
    primary_share : share of patients with a primary tumour.
    """

    nodes: tuple[int, int] = (1, 6)
    ene_share: float = 0.45
    weakest_ene: float = WEAKEST_ENE
    mimic_share: float = 0.0
    primary_share: float = 0.6


def plant(
    rng: np.random.Generator, wishes: Wishes, pose: Pose, clearance: Clearance, enhancement: float
) -> tuple[list[Lesion], list[PlantedNode]]:
    """Primary tumour (if any) and nodes, in that order.

    Parameters
    ----------
    pose : takes canonical places to the scan.
    clearance : distance (mm) of LPS points to bone, air and skin, positive where free.
    enhancement : 0 without contrast medium to 1.
    """
    lesions = [_primary(rng, pose, enhancement)] if rng.random() < wishes.primary_share else []
    nodes: list[PlantedNode] = []
    planted: list[Lesion] = []
    for _ in range(int(rng.integers(wishes.nodes[0], wishes.nodes[1] + 1))):
        placed = _place(rng, pose, clearance, planted)
        if placed is None:
            continue
        lobe, side, level = placed
        lesion, strength = draw_node(
            rng,
            lobe,
            enhancement,
            ene=bool(rng.random() < wishes.ene_share),
            weakest=wishes.weakest_ene,
            mimic_share=wishes.mimic_share,
        )
        planted.append(lesion)
        nodes.append(
            PlantedNode(
                lobe.centre, lobe.radii, strength > 0, strength, side, level, len(planted), len(lesion.lobes)
            )
        )
    return [*lesions, *planted], nodes


def _place(
    rng: np.random.Generator, pose: Pose, clearance: Clearance, taken: list[Lesion]
) -> tuple[Lobe, Side, str] | None:
    """A free place for an ellipsoid; None where twelve tries found none."""
    names, shares = list(LEVELS), np.array([LEVELS[name][0] for name in LEVELS])
    for _ in range(12):
        level = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        side: Side = "left" if rng.random() < 0.5 else "right"
        _, middle, spread = LEVELS[level]
        canonical = np.array(middle) + np.array(spread) * np.clip(rng.normal(size=3), -1.8, 1.8)
        canonical[0] *= 1 if side == "left" else -1
        diameter = float(np.clip(np.exp(rng.normal(np.log(15), 0.38)), 8, 35))
        if level == "RP":
            diameter = min(diameter, 14.0)
        lobe = freed(draw_lobe(rng, pose.world(canonical), diameter / 2), clearance)
        if lobe is not None and all(are_apart(lobe, other) for lesion in taken for other in lesion.lobes):
            return lobe, side, level
    return None


def draw_lobe(rng: np.random.Generator, centre: npt.NDArray[np.float64], radius: float) -> Lobe:
    """An ellipsoid of that mean radius, longest roughly along the neck."""
    ratios = np.array([rng.uniform(0.8, 1.05), rng.uniform(0.8, 1.05), rng.uniform(1.0, 1.4)])
    a, b, c = (float(v) for v in radius * ratios / np.prod(ratios) ** (1 / 3))
    x, y, z = (float(v) for v in centre)
    return Lobe((x, y, z), (a, b, c), _turned(rng))


def _turned(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """Axes turned by up to some 40 degrees."""
    q, r = np.linalg.qr(np.eye(3) + 0.35 * rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return tuple((float(row[0]), float(row[1]), float(row[2])) for row in q.T)


def _surface(lobe: Lobe) -> npt.NDArray[np.float64]:
    """Points (26, 3) on the lobe's surface."""
    corners = np.array([c for c in np.ndindex(3, 3, 3) if c != (1, 1, 1)], dtype=np.float64) - 1
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    points: npt.NDArray[np.float64] = np.array(lobe.centre) + (corners * lobe.radii) @ np.array(lobe.axes)
    return points


def freed(lobe: Lobe, clearance: Clearance) -> Lobe | None:
    """The lobe moved off bone, air and skin; None where it does not fit."""
    for _ in range(8):
        points = _surface(lobe)
        free = clearance(points)
        short = np.minimum(free - 1.0, 0.0)
        if short.min() > -0.5:
            return lobe
        push = ((np.array(lobe.centre) - points) * short[:, None]).sum(axis=0)
        length = float(np.linalg.norm(push))
        step = -push / max(length, 1e-6) * min(float(-short.min()), 3.0)
        x, y, z = (float(v) for v in np.array(lobe.centre) + step)
        lobe = Lobe((x, y, z), lobe.radii, lobe.axes)
    return None


def are_apart(lobe: Lobe, other: Lobe) -> bool:
    """Whether there is room between two nodes: 4 mm beyond their largest radii."""
    gap = float(np.linalg.norm(np.subtract(lobe.centre, other.centre)))
    return gap > max(lobe.radii) + max(other.radii) + 4.0


def draw_waves(
    rng: np.random.Generator, count: int, low: float, high: float
) -> tuple[tuple[float, float, float, float], ...]:
    """Plane waves of a margin's irregularity: rows of wave numbers between `low` and `high`, and a phase."""
    directions = rng.normal(size=(count, 3))
    directions *= (rng.uniform(low, high, size=count) / np.linalg.norm(directions, axis=1))[:, None]
    phases = rng.uniform(0, 2 * np.pi, size=count)
    rows = np.column_stack([directions, phases])
    return tuple((float(x), float(y), float(z), float(phase)) for x, y, z, phase in rows)


def draw_node(
    rng: np.random.Generator,
    lobe: Lobe,
    enhancement: float,
    *,
    ene: bool,
    weakest: float = WEAKEST_ENE,
    mimic_share: float = 0.0,
) -> tuple[Lesion, float]:
    """A node of that place, and the strength of its signs of extension."""
    ene = ene and lobe.mean_radius >= SMALLEST_ENE_MM
    strength = float(rng.uniform(weakest, 1.0)) if ene else 0.0
    margin = _broken(rng, lobe, strength) if ene else _whole(rng)
    if not ene and mimic_share and rng.random() < mimic_share:
        margin = _mimicking(rng)
    lobes = [lobe]
    if ene and rng.random() < 0.35:  # matted
        for _ in range(int(rng.integers(1, 3))):
            way = rng.normal(size=3)
            x, y, z = np.array(lobe.centre) + way / np.linalg.norm(way) * lobe.mean_radius * 0.9
            size = rng.uniform(0.55, 0.8)
            a, b, c = (float(r * size) for r in lobe.radii)
            lobes.append(Lobe((float(x), float(y), float(z)), (a, b, c), lobe.axes))
    necrotic = rng.random() < (0.55 if ene else 0.25)
    lesion = Lesion(
        lobes=tuple(lobes),
        margin=margin,
        hu=float(45 + enhancement * rng.uniform(35, 85)),
        necrosis=float(rng.uniform(0.4, 0.72)) if necrotic else 0.0,
        necrosis_hu=float(rng.uniform(12, 38)),
        label=2,
    )
    return lesion, strength


def _broken(rng: np.random.Generator, lobe: Lobe, strength: float) -> Margin:
    """The margin of a node with extension."""
    return Margin(
        roughness=0.05 + 0.11 * strength,
        waves=draw_waves(rng, 14, 4.0, 11.0),
        edge_mm=1.0 + min(2.8 * strength, 0.3 * lobe.mean_radius),
        fat_plane_mm=0.0,
        stranding=0.25 + 0.6 * strength,
    )


def _whole(rng: np.random.Generator) -> Margin:
    """The margin of a node within its capsule."""
    return Margin(
        roughness=float(rng.uniform(0.0, 0.025)),
        waves=draw_waves(rng, 8, 2.0, 5.0),
        edge_mm=float(rng.uniform(0.5, 1.0)),
        fat_plane_mm=float(rng.uniform(0.5, 1.8)),
        stranding=0.0,
    )


def _mimicking(rng: np.random.Generator) -> Margin:
    """A lobulated or inflamed node within its capsule: no more than the weakest signs of extension."""
    return Margin(
        roughness=float(rng.uniform(0.02, 0.075)),
        waves=draw_waves(rng, 14, 3.0, 9.0),
        edge_mm=float(rng.uniform(0.7, 1.9)),
        fat_plane_mm=float(rng.uniform(0.5, 1.0)) if rng.random() < 0.5 else 0.0,
        stranding=float(rng.uniform(0.0, 0.35)),
    )


def _primary(rng: np.random.Generator, pose: Pose, enhancement: float) -> Lesion:
    """A tumour of the tonsil or the base of the tongue."""
    tonsil = rng.random() < 0.6
    side = float(rng.choice([-1, 1]))
    middle = (side * 20, -24, 28) if tonsil else (side * rng.uniform(0, 12), -38, 12)
    centre = pose.world(np.array(middle) + 2 * rng.normal(size=3))
    lobe = draw_lobe(rng, centre, float(rng.uniform(8, 16)))
    margin = Margin(0.1, draw_waves(rng, 10, 3.0, 7.0), 2.0, 0.0, 0.0)
    return Lesion((lobe,), margin, float(48 + enhancement * rng.uniform(35, 65)), 0.0, 0.0, label=1)
