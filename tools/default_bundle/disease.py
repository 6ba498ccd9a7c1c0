"""One patient's disease, by real numbers (`disease_numbers`): a primary, and chains of nodes that follow it.

Unlike `real_planting.draw_nodes`, which plants independent round nodes, this draws a patient: the subsite,
the levels that are involved together, the number of positive nodes, extension that depends on it, and gross
nodal volumes as they are drawn for radiotherapy: touching nodes are one, up to four lobes along the neck.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.phantom.lesions import LEVELS, Lesion, Lobe, Margin, draw_node, draw_waves
from tools.default_bundle.disease_numbers import (
    ENE_BY_NODES,
    ENE_OF_FURTHER,
    ENE_OF_MANY,
    LEVELS_INVOLVED,
    LONG_TO_MIDDLE,
    MIDDLE_TO_SHORT,
    NODE_HU,
    NODE_ML_LOG,
    NODE_ML_RANGE,
    POSITIVE_NODES,
    PRIMARY_HU,
    PRIMARY_ML,
    PRIMARY_PLACES,
    RETROPHARYNGEAL,
    SPREAD,
    SUBSITES,
    TILT_DEGREES,
    Spread,
    Subsite,
)
from tools.default_bundle.real_planting import CANONICAL_CENTRE, Patient, RealNode

Floats = npt.NDArray[np.float64]
Clearance = Callable[[Floats], Floats]

_BALL = np.array(list(np.ndindex(9, 9, 9)), dtype=np.float64) / 4 - 1
_BALL = _BALL[np.linalg.norm(_BALL, axis=1) <= 1.01]
_SHELL = np.array([p for p in np.ndindex(3, 3, 3) if p != (1, 1, 1)], dtype=np.float64) - 1
_SHELL /= np.linalg.norm(_SHELL, axis=1, keepdims=True)

_OVERLAP_MM = 1.5
"""A lesion may reach so far into bone, air or skin, as partial volume makes it seem."""
_FARTHEST_MM = 10.0
"""No chain is moved further to fit: it would leave its level."""
_TRIES = 24
_LEAST_FAT = 0.08
"""Share of fat where a node comes to lie: nodes grow between soft tissues, not within one."""
_MOST_AIR, _MOST_BONE = 0.3, 0.12
"""Shares of a primary that may lie in the airway (it grows into it) and in bone."""
_RP_ML = 1.5
"""Retropharyngeal nodes are small: there is no room for more."""


@dataclass(frozen=True)
class Plan:
    """What a patient is to have, before anything has a place.

    Parameters
    ----------
    subsite : of the primary.
    side : 1 for the left, -1 for the right.
    involved : (level, ipsilateral) of each involved level, the ipsilateral ones first.
    nodes : of each involved level, so many positive nodes.
    ene : with extension somewhere.
    """

    subsite: Subsite
    side: int
    involved: tuple[tuple[str, bool], ...]
    nodes: tuple[int, ...]
    ene: bool


@dataclass(frozen=True)
class Disease:
    """What was planted.

    Parameters
    ----------
    plan : what was wanted.
    primary : None where no place was found or none was wanted.
    nodes : gross nodal volumes, touching nodes as one.
    """

    plan: Plan
    primary: Lesion | None
    nodes: tuple[RealNode, ...]

    @property
    def lesions(self) -> list[Lesion]:
        """All of them, the primary first, so that nodes lie on top."""
        return [*([self.primary] if self.primary else []), *(n.lesion for n in self.nodes)]


def draw_plan(rng: np.random.Generator, *, positive: bool = True) -> Plan:
    """A patient's involved levels, nodes and extension.

    Parameters
    ----------
    positive : only node-positive patients.
    """
    names = list(SUBSITES)
    subsite = names[int(rng.choice(len(names), p=_shares(list(SUBSITES.values()))))]
    involved = draw_levels(rng, subsite, positive=positive)
    nodes = _nodes_of(rng, subsite, involved)
    ene = bool(involved) and rng.random() < ENE_BY_NODES.get(sum(nodes), ENE_OF_MANY)
    return Plan(subsite, 1 if rng.random() < 0.5 else -1, involved, nodes, bool(ene))


def draw_levels(
    rng: np.random.Generator, subsite: Subsite, *, positive: bool = False
) -> tuple[tuple[str, bool], ...]:
    """Involved levels, each with whether it is ipsilateral.

    Parameters
    ----------
    positive : at least one.
    """
    shares = SPREAD[subsite]
    if not positive and rng.random() >= shares.positive:
        return ()

    def hit(pair: tuple[float, float], given: bool) -> bool:
        return bool(rng.random() < pair[0 if given else 1])

    accepted = _acceptance(subsite)
    while True:
        found = _chained(rng, shares)
        if found and rng.random() < accepted[min(len(found), _MOST_LEVELS) - 1]:
            break
    if subsite in ("oropharynx", "hypopharynx") and rng.random() < RETROPHARYNGEAL:
        found = (*found, ("RP", True))
    return found


def _chained(rng: np.random.Generator, shares: Spread) -> tuple[tuple[str, bool], ...]:
    """Levels one after the other down the neck; none for some."""

    def hit(pair: tuple[float, float], given: bool) -> bool:
        return bool(rng.random() < pair[0 if given else 1])

    ii = bool(rng.random() < shares.ii)
    iii = hit(shares.iii, ii)
    other_ii = hit(shares.other_ii, ii)
    other_iii = hit(shares.other_iii, other_ii)
    found = {
        ("II", True): ii,
        ("III", True): iii,
        ("IV", True): hit(shares.iv, iii),
        ("Ib", True): hit(shares.ib, ii),
        ("V", True): hit(shares.v, iii),
        ("II", False): other_ii,
        ("III", False): other_iii,
        ("IV", False): hit(shares.other_iv, other_iii),
        ("Ib", False): hit(shares.other_ib, other_ii),
        ("V", False): hit(shares.other_v, other_ii),
    }
    return tuple(place for place, there in found.items() if there)


@functools.cache
def _acceptance(subsite: Subsite) -> tuple[float, ...]:
    """How often a draw of one, two, ... levels is kept, so that their number is distributed as in patients.

    Levels are involved together more often than one given the next says: real patients have one or many. The
    exponent goes three quarters of the way, so that the shares of one level given another stay near theirs.
    """
    rng = np.random.default_rng(0)
    drawn = [min(len(_chained(rng, SPREAD[subsite])), _MOST_LEVELS) for _ in range(6000)]
    made = np.bincount(drawn, minlength=_MOST_LEVELS + 1)[1:].astype(np.float64)
    wanted = np.array(LEVELS_INVOLVED[subsite]) / np.maximum(made / made.sum(), 1e-3)
    return tuple(float(w) for w in (wanted / wanted.max()) ** 0.75)


def _nodes_of(
    rng: np.random.Generator, subsite: Subsite, involved: Sequence[tuple[str, bool]]
) -> tuple[int, ...]:
    """Positive nodes of each involved level: at least one, the others where disease comes first.

    The two counts rise together (equal quantiles), so that both are distributed as they are in patients.
    """
    if not involved:
        return ()
    fewer, up_to = _quantiles_of_levels(subsite)[min(len(involved), _MOST_LEVELS)]
    counts, shares = zip(*POSITIVE_NODES, strict=True)
    reached = np.cumsum(_shares(list(shares)))
    total = int(counts[min(int(np.searchsorted(reached, rng.uniform(fewer, up_to))), len(counts) - 1)])
    nodes = np.ones(len(involved), dtype=int)
    weights = _shares([2.0 if level == "II" and same else 1.0 for level, same in involved])
    for _ in range(total - len(involved)):
        nodes[int(rng.choice(len(involved), p=weights))] += 1
    return tuple(int(n) for n in nodes)


_MOST_LEVELS = 6


@functools.cache
def _quantiles_of_levels(subsite: Subsite) -> dict[int, tuple[float, float]]:
    """Share of node-positive patients with fewer involved levels than a number, and with up to it."""
    rng = np.random.default_rng(0)
    drawn = [min(len(draw_levels(rng, subsite, positive=True)), _MOST_LEVELS) for _ in range(4000)]
    found = np.bincount(drawn, minlength=_MOST_LEVELS + 1) / len(drawn)
    up_to = np.cumsum(found)
    return {k: (float(up_to[k] - found[k]), float(up_to[k])) for k in range(1, _MOST_LEVELS + 1)}


def draw_node_ml(rng: np.random.Generator) -> float:
    """Volume in mL of one gross nodal volume."""
    return float(np.clip(np.exp(rng.normal(*NODE_ML_LOG)), *NODE_ML_RANGE))


def draw_primary_ml(rng: np.random.Generator) -> float:
    """Volume in mL of a primary."""
    median, below, above, largest = PRIMARY_ML
    z = float(rng.normal())
    return float(min(median * np.exp(z * (below if z < 0 else above)), largest))


def draw_chain(rng: np.random.Generator, centre: Floats, ml: float) -> tuple[Lobe, ...]:
    """One gross nodal volume: as many touching lobes along the neck as its length asks for.

    Parameters
    ----------
    centre : LPS mm.
    ml : volume of all lobes together.
    """
    stretch = max(1.0, float(LONG_TO_MIDDLE[0] * np.exp(rng.normal(0, LONG_TO_MIDDLE[1]))))
    flat = max(1.0, float(MIDDLE_TO_SHORT[0] * np.exp(rng.normal(0, MIDDLE_TO_SHORT[1]))))
    short = (6000 * ml / np.pi / (stretch * flat**2)) ** (1 / 3)
    middle, long = short * flat, short * flat * stretch
    count = int(np.clip(1 + np.floor((stretch - 0.7) / 0.8), 1, 4))
    step = float(rng.uniform(1.25, 1.75))  # of a half-length: from matted to just touching
    half = long / (2 + step * (count - 1))
    axes = _chain_axes(rng)
    lobes = []
    for k in range(count):
        along = (k - (count - 1) / 2) * step * half
        aside = rng.normal(0, 0.1 * short, size=2) if count > 1 else np.zeros(2)
        size = rng.uniform(0.8, 1.15) if count > 1 else 1.0
        at = centre + np.array([aside[0], aside[1], along]) @ axes
        radii = np.array([short / 2, middle / 2, half]) * size
        lobes.append(_lobe(at, radii, axes))
    return _scaled_to(tuple(lobes), centre, ml)


def _chain_axes(rng: np.random.Generator) -> Floats:
    """Rows: short, middle and long axis (LPS); the last about along z."""
    a, b = np.radians(rng.normal(0, TILT_DEGREES, size=2))
    turn = rng.uniform(0, np.pi)
    long = np.array([np.tan(a), np.tan(b), 1.0])
    long /= np.linalg.norm(long)
    first = np.cross(long, (np.cos(turn), np.sin(turn), 0.0))
    first /= np.linalg.norm(first)
    return np.array([first, np.cross(long, first), long])


def _lobe(at: Floats, radii: Floats, axes: Floats) -> Lobe:
    x, y, z = (float(v) for v in at)
    a, b, c = (float(v) for v in radii)
    rows = tuple((float(r[0]), float(r[1]), float(r[2])) for r in axes)
    return Lobe((x, y, z), (a, b, c), rows)


def volume_ml(lobes: Sequence[Lobe]) -> float:
    """Volume of the union of lobes, by points within each: a point in n of them counts a n-th."""
    total = 0.0
    for lobe in lobes:
        points = _points(lobe)
        covers = sum(_within(points, other) for other in lobes)
        total += 4 / 3 * np.pi * float(np.prod(lobe.radii)) * float(np.mean(1 / np.maximum(covers, 1))) / 1000
    return total


def _points(lobe: Lobe) -> Floats:
    points: Floats = np.array(lobe.centre) + (_BALL * lobe.radii) @ np.array(lobe.axes)
    return points


def _within(points: Floats, lobe: Lobe) -> npt.NDArray[np.bool_]:
    local = (points - np.array(lobe.centre)) @ np.array(lobe.axes).T / np.array(lobe.radii)
    inside: npt.NDArray[np.bool_] = np.linalg.norm(local, axis=1) <= 1.01
    return inside


def _scaled_to(lobes: tuple[Lobe, ...], centre: Floats, ml: float) -> tuple[Lobe, ...]:
    factor = (ml / volume_ml(lobes)) ** (1 / 3)
    return tuple(
        _lobe(centre + (np.array(o.centre) - centre) * factor, np.array(o.radii) * factor, np.array(o.axes))
        for o in lobes
    )


def freed_chain(lobes: tuple[Lobe, ...], clearance: Clearance) -> tuple[Lobe, ...] | None:
    """The chain moved as a whole off bone, air and skin; None where it does not fit nearby."""
    start = np.array(lobes[0].centre)
    for _ in range(10):
        if np.linalg.norm(np.array(lobes[0].centre) - start) > _FARTHEST_MM:
            return None
        points = np.concatenate([np.array(o.centre) + (_SHELL * o.radii) @ np.array(o.axes) for o in lobes])
        own = np.repeat([o.centre for o in lobes], len(_SHELL), axis=0)
        short = np.minimum(clearance(points) + _OVERLAP_MM - 1.0, 0.0)
        if short.min() > -1.0:
            return lobes
        push = ((points - own) * short[:, None]).sum(axis=0)
        move = push / max(float(np.linalg.norm(push)), 1e-6) * min(float(-short.min()), 3.0)
        lobes = tuple(_lobe(np.array(o.centre) + move, np.array(o.radii), np.array(o.axes)) for o in lobes)
    return None


def draw_disease(
    patient: Patient,
    rng: np.random.Generator,
    *,
    enhanced: bool,
    positive: bool = True,
    primary_share: float = 0.75,
) -> Disease:
    """A patient's disease at free places of a real CT.

    Parameters
    ----------
    patient : with a clearance to everything that the disease shall keep off.
    enhanced : whether vessels are filled with contrast medium.
    positive : with an involved level.
    primary_share : share of patients with a primary; the others' is taken as unknown or removed.
    """
    plan = draw_plan(rng, positive=positive)
    wanted = rng.random() < primary_share
    primary = _placed_primary(patient, rng, plan, enhanced=enhanced) if wanted else None
    volumes = sorted((draw_node_ml(rng) for _ in plan.involved), reverse=True)
    order = sorted(range(len(plan.involved)), key=lambda k: -plan.nodes[k])
    made: list[RealNode] = []
    for ml, k in zip(volumes, order, strict=True):
        level, same = plan.involved[k]
        side = plan.side if same else -plan.side
        lobes = _placed_chain(patient, rng, level, side, min(ml, _RP_ML) if level == "RP" else ml, made)
        if lobes is None:
            continue
        ene = plan.ene and (not any(n.strength for n in made) or rng.random() < ENE_OF_FURTHER)
        lesion, strength = _node(patient, rng, lobes, ene=bool(ene), enhanced=enhanced)
        made.append(RealNode(lesion, level, _short_axis(lobes), strength))
    return Disease(plan, primary, tuple(made))


def _node(
    patient: Patient, rng: np.random.Generator, lobes: tuple[Lobe, ...], *, ene: bool, enhanced: bool
) -> tuple[Lesion, float]:
    """Margin, necrosis and HU of a gross nodal volume."""
    largest = max(lobes, key=lambda o: o.mean_radius)
    lesion, strength = draw_node(rng, largest, 0.0, ene=ene, weakest=0.15, mimic_share=0.25)
    necrosis, low = lesion.necrosis, lesion.necrosis_hu
    if necrosis and rng.random() < 0.35:  # cystic, as human papilloma virus makes them: a thin wall
        necrosis, low = float(rng.uniform(0.75, 0.9)), float(rng.uniform(5, 25))
    if largest.mean_radius < 4.5:
        necrosis = 0.0
    hu = patient.muscle_hu + float(rng.uniform(*NODE_HU[enhanced]))
    return (
        replace(lesion, lobes=lobes, hu=hu, necrosis=necrosis, necrosis_hu=min(low, hu - 10.0)),
        strength,
    )


def _short_axis(lobes: Sequence[Lobe]) -> float:
    """The shortest diameter of the thickest lobe, mm."""
    return max(2 * min(o.radii) for o in lobes)


def _placed_chain(
    patient: Patient,
    rng: np.random.Generator,
    level: str,
    side: int,
    ml: float,
    taken: Sequence[RealNode],
) -> tuple[Lobe, ...] | None:
    """The best of the first free places; where the size fits nowhere, a smaller one."""
    _, middle, spread = LEVELS[level]
    for shrink in (1.0, 0.8, 0.6, 0.45):
        good: list[tuple[float, tuple[Lobe, ...]]] = []
        for _ in range(_TRIES):
            canonical = np.array(middle) + np.array(spread) * 1.5 * np.clip(rng.normal(size=3), -1.8, 1.8)
            canonical[0] *= side
            lobes = freed_chain(
                draw_chain(rng, world_point(patient, canonical), ml * shrink), patient.free_mm
            )
            if lobes is None or not _apart(lobes, taken):
                continue
            fat = tissue_shares(patient, lobes)[0]
            if fat >= _LEAST_FAT:
                good.append((fat + 0.3 * float(rng.random()), lobes))
            if len(good) >= 3:
                break
        if good:
            return max(good, key=lambda g: g[0])[1]
    return None


def _apart(lobes: Sequence[Lobe], taken: Sequence[RealNode]) -> bool:
    """Whether two gross nodal volumes stay two: some mm between any two lobes."""
    for other in (o for n in taken for o in n.lesion.lobes):
        for lobe in lobes:
            if _within(_points(other), replace(lobe, radii=_grown(lobe.radii, 4.0))).any():
                return False
    return True


def _grown(radii: tuple[float, float, float], mm: float) -> tuple[float, float, float]:
    a, b, c = radii
    return a + mm, b + mm, c + mm


def world_point(patient: Patient, canonical: Floats) -> Floats:
    """A point of the phantom's canonical anatomy in LPS mm of the CT, by the patient's own airway."""
    crop = patient.prepared.crop.grid
    there = canonical + np.array(patient.off_phantom_mm)
    at: Floats = patient.prepared.to_native.apply(crop.centre + there - np.array(CANONICAL_CENTRE))
    return np.asarray(at, dtype=np.float64).reshape(3)


def tissue_shares(patient: Patient, lobes: Sequence[Lobe]) -> tuple[float, float, float]:
    """Shares of fat, air and bone where lobes would lie."""
    points = np.concatenate([_points(o) for o in lobes])
    hu = ndimage.map_coordinates(patient.ct.array, patient.ct.grid.indices(points).T, order=1, cval=-1000.0)
    return (
        float(((hu < 0) & (hu > -160)).mean()),
        float((hu < -300).mean()),
        float((hu > 220).mean()),
    )


def _placed_primary(
    patient: Patient, rng: np.random.Generator, plan: Plan, *, enhanced: bool
) -> Lesion | None:
    """A tumour that replaces the tissue of its subsite and grows a little into the airway."""
    ml = draw_primary_ml(rng)
    places = PRIMARY_PLACES[plan.subsite]
    which = int(rng.choice(len(places), p=_shares([share for share, *_ in places])))
    _, middle, spread = places[which]
    for shrink in (1.0, 0.8, 0.6):
        for _ in range(_TRIES // 2):
            canonical = np.array(middle) + np.array(spread) * np.clip(rng.normal(size=3), -1.8, 1.8)
            canonical[0] *= plan.side
            lobes = _bulk(rng, world_point(patient, canonical), ml * shrink)
            _, air, bone = tissue_shares(patient, lobes)
            if air <= _MOST_AIR and bone <= _MOST_BONE:
                return _primary(patient, rng, lobes, ml * shrink, enhanced=enhanced)
    return None


def _bulk(rng: np.random.Generator, centre: Floats, ml: float) -> tuple[Lobe, ...]:
    """An irregular mass of two to four lobes."""
    radius = (ml * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    lobes = []
    for _ in range(int(rng.integers(2, 5))):
        way = rng.normal(size=3)
        at = centre + way / np.linalg.norm(way) * radius * rng.uniform(0.2, 0.7)
        axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        lobes.append(_lobe(at, radius * rng.uniform(0.55, 1.0, size=3), axes))
    return _scaled_to(tuple(lobes), centre, ml)


def _primary(
    patient: Patient, rng: np.random.Generator, lobes: tuple[Lobe, ...], ml: float, *, enhanced: bool
) -> Lesion:
    margin = Margin(
        roughness=float(rng.uniform(0.05, 0.15)),
        waves=draw_waves(rng, 12, 3.0, 8.0),
        edge_mm=float(rng.uniform(1.5, 4.0)),
        fat_plane_mm=0.0,
        stranding=float(rng.uniform(0.0, 0.4)),
    )
    hu = patient.muscle_hu + float(rng.uniform(*PRIMARY_HU[enhanced]))
    necrotic = ml > 12 and rng.random() < 0.35
    return Lesion(
        lobes, margin, hu, float(rng.uniform(0.3, 0.6)) if necrotic else 0.0, float(rng.uniform(12, 35)), 1
    )


def mimics(patient: Patient, rng: np.random.Generator, *, enhanced: bool) -> list[Lesion]:
    """What looks like a node and is none, labelled background: reactive nodes, veins, slips of muscle.

    Reactive nodes are flat, with a fatty hilum and a short axis of 3 to 7 mm; slips of muscle have its very
    HU and run along the neck.
    """
    made = []
    for _ in range(int(rng.integers(1, 5))):
        short = float(rng.uniform(3.0, 7.0))
        ml = np.pi / 6 * short**3 * float(rng.uniform(1.8, 3.5)) / 1000
        lobes = _placed_chain(patient, rng, str(rng.choice(["II", "III", "V", "Ib"])), _side(rng), ml, ())
        if lobes is not None:
            smooth = Margin(0.0, draw_waves(rng, 6, 2.0, 5.0), 0.7, float(rng.uniform(0.6, 1.5)), 0.0)
            hu = patient.muscle_hu + float(rng.uniform(*NODE_HU[enhanced])) - 5.0
            made.append(Lesion((lobes[0],), smooth, hu, float(rng.uniform(0.3, 0.5)), -60.0, label=0))
    for _ in range(int(rng.integers(0, 4))):
        vein = rng.random() < 0.6
        level = str(rng.choice(["II", "III", "IV", "V"]))
        lobes = _placed_chain(patient, rng, level, _side(rng), float(rng.uniform(0.2, 1.2)), ())
        if lobes is not None:
            r, x = float(rng.uniform(2.0, 4.5)), _chain_axes(rng)
            tube = _lobe(np.array(lobes[0].centre), np.array([r, r * rng.uniform(1, 1.8), r * 6]), x)
            above = float(rng.uniform(40, 140)) if vein and enhanced else float(rng.uniform(-12, 6))
            plain = Margin(0.0, draw_waves(rng, 6, 2.0, 5.0), 0.8, 0.6 if vein else 0.2, 0.0)
            made.append(Lesion((tube,), plain, patient.muscle_hu + above, 0.0, 0.0, label=0))
    return made


def _side(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _shares(values: Sequence[float]) -> Floats:
    shares: Floats = np.array(values, dtype=np.float64)
    total: Floats = shares / shares.sum()
    return total
