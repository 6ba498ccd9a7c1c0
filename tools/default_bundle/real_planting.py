"""Synthetic lymph nodes planted into real CTs, in a way that teaches the node and not the planting.

The native CT is changed before anything is resampled. Around each node it is sampled about a millimetre
apart; tissue is pushed aside (`aiene.phantom.lesions.pushed_back`; bone does not move), the node is painted
with partial volume at its edge, and the *difference* is averaged over each native voxel, blurred as the CT
itself is, and added. So nothing but the node's surroundings changes. Inside, the noise and the unevenness of
the patient's own soft tissue are put back. Levels, sizes, necrosis and margins are those of
`aiene.phantom.lesions`, with their sources; the node's HU is set against the patient's own muscle.

Decoys go the same way and are labelled background: small normal nodes with a fatty hilum, contrast-filled
vessels, and `blank` plantings, which change noise and resampling but hold no node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.geometry.grid import Grid, Volume
from aiene.phantom.lesions import (
    DISPLACEMENT_REACH,
    LEVELS,
    Lesion,
    Lobe,
    Margin,
    are_apart,
    draw_lobe,
    draw_node,
    draw_waves,
    freed,
    pushed_back,
)
from aiene.preprocess.preprocess import Prepared

Floats = npt.NDArray[np.float64]
Field = npt.NDArray[np.float32]

CANONICAL_CENTRE = (0.0, 3.0, -9.0)
"""Where the crop's centre lies in the phantom's canonical anatomy, as a rule (see `make_neck_crop`)."""
FINE_MM = 1.0
MUSCLE_HU = (20.0, 110.0)
BONE_HU, _AIR_HU = 220.0, -350.0
_SKIN_MM = 3.0
_TRIES = 40


@dataclass(frozen=True)
class RealNode:
    """A node that was planted into a real CT.

    Parameters
    ----------
    lesion : its shape, in LPS mm of the CT.
    level : `Ib`, `II`, ...
    short_axis_mm : twice the mean of its two smaller radii's smallest: the shortest diameter.
    strength : of the signs of extension; 0 without.
    """

    lesion: Lesion
    level: str
    short_axis_mm: float
    strength: float


@dataclass(frozen=True, eq=False)
class Patient:
    """A real CT with what planting must know of it.

    Parameters
    ----------
    ct : HU, float32.
    prepared : where the road laid it.
    target : bool on the CT's grid: high-dose target volumes, where real tumour lies that nobody outlined.
    clearance : mm to bone, air, skin and target, positive where free, on the CT's grid.
    muscle_hu, noise_hu : of its own muscle.
    off_phantom_mm : how far its neck lies from where the crop's centre says (`hosts.off_phantom`).
    """

    ct: Volume
    prepared: Prepared
    target: npt.NDArray[np.bool_]
    clearance: Field
    muscle_hu: float
    noise_hu: float
    off_phantom_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def free_mm(self, points: Floats) -> Floats:
        """Clearance at LPS points (n, 3), linear between voxels; -50 outside the CT."""
        index = self.ct.grid.indices(points)
        clearance: Floats = ndimage.map_coordinates(self.clearance, index.T, order=1, cval=-50.0)
        return clearance.astype(np.float64)


def patient_of(ct: Volume, prepared: Prepared, target: npt.NDArray[np.bool_]) -> Patient:
    """What planting must know of a CT."""
    hu = ct.array.astype(np.float32)
    body = _body(hu)
    hard = (hu > BONE_HU) | (hu < _AIR_HU) | ~body
    spacing = ct.grid.spacing
    free = ndimage.distance_transform_edt(~hard, sampling=spacing)
    skin = ndimage.distance_transform_edt(body, sampling=spacing) - _SKIN_MM
    away = ndimage.distance_transform_edt(~target, sampling=spacing) if target.any() else np.inf
    clearance = np.minimum(np.minimum(free - min(spacing) / 2, skin), away).astype(np.float32)
    muscle = ndimage.binary_erosion((hu > MUSCLE_HU[0]) & (hu < MUSCLE_HU[1]) & body)
    values = hu[muscle] if muscle.sum() > 100 else np.array([55.0, 65.0])
    rough = hu - ndimage.uniform_filter(hu, 3)
    noise = 1.4826 * float(np.median(np.abs(rough[muscle]))) * 1.02 if muscle.sum() > 100 else 8.0
    return Patient(ct.with_array(hu), prepared, target, clearance, float(np.median(values)), min(noise, 25.0))


def draw_nodes(patient: Patient, rng: np.random.Generator, count: int, ene_share: float) -> list[RealNode]:
    """Nodes at free places of the levels; fewer than `count` where none was found."""
    names = list(LEVELS)
    shares = np.array([LEVELS[name][0] for name in names])
    made: list[RealNode] = []
    for _ in range(count):
        level = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        diameter = float(np.clip(np.exp(rng.normal(np.log(15), 0.38)), 8, 35))
        lobe = _placed(patient, rng, level, min(diameter, 14.0) if level == "RP" else diameter)
        if lobe is None or not all(are_apart(lobe, other.lesion.lobes[0]) for other in made):
            continue
        lesion, strength = draw_node(rng, lobe, 0.0, ene=bool(rng.random() < ene_share))
        lesion = replace(lesion, hu=patient.muscle_hu + float(rng.uniform(-12, 45)))
        short = 2 * min(lesion.lobes[0].radii)
        made.append(RealNode(lesion, level, short, strength))
    return made


def _placed(patient: Patient, rng: np.random.Generator, level: str, diameter: float) -> Lobe | None:
    """The best of some free places: a node grows in fat or between soft tissues, not in the middle of one."""
    _, middle, spread = LEVELS[level]
    crop = patient.prepared.crop.grid
    best: tuple[float, Lobe] | None = None
    for _ in range(_TRIES):
        canonical = np.array(middle) + np.array(spread) * 1.5 * np.clip(rng.normal(size=3), -1.8, 1.8)
        canonical[0] *= 1 if rng.random() < 0.5 else -1
        at = patient.prepared.to_native.apply(crop.centre + canonical - np.array(CANONICAL_CENTRE))
        lobe = freed(draw_lobe(rng, at, diameter / 2), patient.free_mm)
        if lobe is None:
            continue
        score = _fat_share(patient, lobe) + 0.15 * float(rng.random())
        if best is None or score > best[0]:
            best = (score, lobe)
        if best[0] > 0.45:
            break
    return best[1] if best is not None and best[0] > 0.2 else None


def _fat_share(patient: Patient, lobe: Lobe) -> float:
    """Share of fat where the node would lie."""
    steps = np.array(list(np.ndindex(5, 5, 5)), dtype=np.float64) / 2 - 1
    steps = steps[np.linalg.norm(steps, axis=1) <= 1.01]
    points = np.array(lobe.centre) + (steps * lobe.radii) @ np.array(lobe.axes)
    values = ndimage.map_coordinates(
        patient.ct.array, patient.ct.grid.indices(points).T, order=1, cval=-1000.0
    )
    return float(((values < 0) & (values > -160)).mean())


def decoys(patient: Patient, rng: np.random.Generator) -> list[Lesion]:
    """Small normal nodes (short axis 3 to 6 mm, fatty hilum) and contrast-filled vessels."""
    made = []
    for _ in range(int(rng.integers(1, 4))):
        lobe = _placed(patient, rng, str(rng.choice(["II", "III", "V", "Ib"])), float(rng.uniform(3.5, 6.5)))
        if lobe is not None:
            smooth = Margin(0.0, draw_waves(rng, 6, 2.0, 5.0), 0.7, 1.0, 0.0)
            hu = patient.muscle_hu + float(rng.uniform(-10, 30))
            made.append(Lesion((lobe,), smooth, hu, 0.35, -60.0, label=0))
    for _ in range(int(rng.integers(0, 3))):
        lobe = _placed(patient, rng, str(rng.choice(["II", "III", "IV"])), float(rng.uniform(4, 7)))
        if lobe is not None:
            r = lobe.mean_radius
            axes = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
            tube = Lobe(lobe.centre, (r, r, r * float(rng.uniform(4, 7))), axes)
            plain = Margin(0.0, draw_waves(rng, 6, 2.0, 5.0), 0.8, 0.6, 0.0)
            made.append(
                Lesion((tube,), plain, patient.muscle_hu + float(rng.uniform(40, 140)), 0, 0, label=0)
            )
    return made


def planted(
    patient: Patient,
    lesions: list[Lesion],
    rng: np.random.Generator,
    *,
    blank: bool = False,
    every_lobe: bool = False,
) -> Volume:
    """The native CT with lesions in it.

    Parameters
    ----------
    lesions : in LPS mm.
    blank : process the same places, but leave the tissue as it is: only noise is drawn anew.
    every_lobe : each lobe of a node pushes tissue aside, a primary (label 1) replaces it, and bone stays
        bone, as `disease` wants it. Otherwise the main lobe pushes.
    """
    hu = patient.ct.array.copy()
    for lesion in lesions:
        box = _block(lesion, patient.ct.grid)
        if box is not None:
            pushing = _pushing(lesion) if every_lobe else lesion.lobes[:1]
            change = _change(patient, lesion, box, rng, blank=blank, pushing=pushing)
            hu[box] += np.where(hu[box] < BONE_HU, change, 0) if every_lobe else change
    return patient.ct.with_array(np.clip(np.rint(hu), -1024, 3071).astype(np.int16))


def _pushing(lesion: Lesion) -> tuple[Lobe, ...]:
    return () if lesion.label == 1 else lesion.lobes


def _change(
    patient: Patient,
    lesion: Lesion,
    box: tuple[slice, ...],
    rng: np.random.Generator,
    *,
    blank: bool,
    pushing: tuple[Lobe, ...],
) -> Field:
    grid = patient.ct.grid
    start = tuple(s.start for s in box)
    size = tuple(s.stop - s.start for s in box)
    parts = tuple(max(1, round(s / FINE_MM)) for s in grid.spacing)
    index = np.stack(
        np.meshgrid(
            *((np.arange(n * k) + 0.5) / k - 0.5 + s for n, k, s in zip(size, parts, start, strict=True)),
            indexing="ij",
        ),
        axis=-1,
    )
    points = grid.points(index.reshape(-1, 3)).reshape(index.shape).astype(np.float32)
    fields = (points[..., 0], points[..., 1], points[..., 2])
    before = _sampled(patient.ct.array, grid, fields)
    inside = np.clip(0.5 - lesion.distance(fields) / np.float32(1.0), 0, 1)
    if blank:
        change = np.zeros_like(before)
    else:
        moved = _moved(patient, fields, pushing)
        painted, _ = lesion.paint(_sampled(patient.ct.array, grid, moved), fields, FINE_MM)
        change = painted - before
    coarse, share = (_averaged(v, size, parts) for v in (change, inside))
    blur = [0.25, 0.35 if grid.spacing[1] > 2 else 0.6, 0.35 if grid.spacing[2] > 2 else 0.6]
    coarse = ndimage.gaussian_filter(coarse, blur)
    noise = rng.standard_normal(coarse.shape).astype(np.float32) * np.float32(patient.noise_hu)
    uneven = ndimage.gaussian_filter(rng.standard_normal(coarse.shape), 1.2).astype(np.float32)
    uneven *= np.float32(5.0 / max(float(uneven.std()), 1e-6))
    result: Field = (coarse + share * (0.8 * noise + uneven)).astype(np.float32)
    return result


def _moved(
    patient: Patient, fields: tuple[Field, ...], lobes: tuple[Lobe, ...]
) -> tuple[Field, Field, Field]:
    """Where the tissue was before; nothing moves within a few mm of bone and air."""
    pushed = (fields[0], fields[1], fields[2])
    for lobe in lobes:
        pushed = pushed_back(pushed, lobe)
    hold = np.clip(_sampled(patient.clearance, patient.ct.grid, fields) / np.float32(4.0), 0, 1)
    x, y, z = (p + hold * (q - p) for p, q in zip(fields, pushed, strict=True))
    return x, y, z


def _sampled(array: npt.NDArray[np.generic], grid: Grid, fields: tuple[Field, ...]) -> Field:
    points = np.stack([f.ravel() for f in fields], axis=-1).astype(np.float64)
    values = ndimage.map_coordinates(
        np.asarray(array, dtype=np.float32), grid.indices(points).T, order=1, mode="nearest"
    )
    result: Field = values.reshape(fields[0].shape).astype(np.float32)
    return result


def _averaged(fine: Field, size: tuple[int, ...], parts: tuple[int, ...]) -> Field:
    z, y, x = size
    a, b, c = parts
    mean: Field = fine.reshape(z, a, y, b, x, c).mean(axis=(1, 3, 5), dtype=np.float32)
    return mean


def _block(lesion: Lesion, grid: Grid) -> tuple[slice, slice, slice] | None:
    """Native voxels that the lesion or the tissue that it pushes reaches."""
    lows, highs = [], []
    for lobe in lesion.lobes:
        half = np.sqrt(((np.array(lobe.axes) * np.array(lobe.radii)[:, None]) ** 2).sum(axis=0))
        rim = min(max(8.0, (DISPLACEMENT_REACH - 1) * min(lobe.radii)), 25.0)
        reach = half * (1 + 2 * lesion.margin.roughness) + rim
        lows.append(np.array(lobe.centre) - reach)
        highs.append(np.array(lobe.centre) + reach)
    return box_in(grid, np.min(lows, axis=0), np.max(highs, axis=0))


def box_in(grid: Grid, low: Floats, high: Floats) -> tuple[slice, slice, slice] | None:
    """Block of voxels that holds an LPS box; None where it lies outside."""
    corners = np.array([[low[0], high[0]], [low[1], high[1]], [low[2], high[2]]])
    points = np.array([[corners[0][i], corners[1][j], corners[2][k]] for i, j, k in np.ndindex(2, 2, 2)])
    index = grid.indices(points)
    spans = []
    for axis, n in enumerate(grid.size):
        first, last = int(np.floor(index[:, axis].min())), int(np.ceil(index[:, axis].max())) + 1
        first, last = max(first, 0), min(last, n)
        if first >= last:
            return None
        spans.append(slice(first, last))
    return spans[0], spans[1], spans[2]


def _body(hu: Field) -> npt.NDArray[np.bool_]:
    """The patient: the largest piece of everything denser than air, holes of each slice filled."""
    dense: npt.NDArray[np.bool_] = ndimage.binary_opening(hu > -300)
    named, count = ndimage.label(dense)
    if not count:
        return dense
    largest = named == 1 + int(np.argmax(np.bincount(named.ravel())[1:]))
    return np.stack([ndimage.binary_fill_holes(plane) for plane in largest])
