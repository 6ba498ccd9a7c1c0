"""Where nodes and primaries are planted, how many, how large, and with which signs.

Levels and their shares follow the order in which oropharyngeal and other head-and-neck cancers spread (level
II far before III, then V, IV and Ib; retropharyngeal seldom): J. P. Shah, Am. J. Surg. 160:405, 1990;
V. Gregoire et al., Radiother. Oncol. 110:172, 2014 for the levels' borders.

Sizes are log-normal about 15 mm within 8 to 35 mm: most are over the short axis of 10 to 11 mm from which a
node counts as enlarged (doi 10.1186/s40644-022-00504-z). The signs of extension are those that readers go by,
irregular border, stranding, lost fat plane and necrosis (A. H. Aiken et al., Am. J. Neuroradiol. 36:1776,
2015). Necrosis is rarer without extension (D. R. Randall et al., Head Neck 37:92, 2015: odds ratio 12; here
3.7) and, like the size from a mean radius of 5 mm on, does not give extension away by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aiene.phantom.lesions import Lesion, Lobe, Margin, Side
from aiene.phantom.pose import Pose

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
    nodes : fewest and most nodes.
    ene_share : share of nodes with extension.
    primary_share : share of patients with a primary tumour.
    weakest_ene : least strength of the signs of extension, above 0.
    mimic_share : share of the nodes without extension that look a little like it all the same.
    """

    nodes: tuple[int, int]
    ene_share: float
    primary_share: float
    weakest_ene: float = WEAKEST_ENE
    mimic_share: float = 0.0


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
