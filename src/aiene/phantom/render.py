"""From shapes to HU on any grid, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.geometry.grid import Grid
from aiene.phantom.body import Anatomy
from aiene.phantom.lesions import DISPLACEMENT_REACH, Fields, Lesion, pushed_back
from aiene.phantom.pose import Pose
from aiene.phantom.shapes import Field, Shape, Tissue

AIR_HU = -1000.0
_SKIN_HU = 15.0
_MUSCLE_HU = 52.0
_BLOCK_VOXELS = 1_000_000
_STRIDE = 4
_SKULL_MM = 7.5

Box = tuple[slice, slice, slice]
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scanner:
    """How the CT is taken.

    Parameters
    ----------
    blur_mm : standard deviation of the point spread, in plane.
    noise_hu : standard deviation of the noise.
    noise_grain_mm : correlation length of the noise in plane.
    texture_hu : standard deviation of the tissue's own unevenness, at about 5 mm.
    """

    blur_mm: float = 0.6
    noise_hu: float = 12.0
    noise_grain_mm: float = 0.7
    texture_hu: float = 7.0


def blocks(grid: Grid) -> Iterator[slice]:
    """Slabs of the first array axis of about a million voxels."""
    thickness = max(1, _BLOCK_VOXELS // (grid.size[1] * grid.size[2]))
    for start in range(0, grid.size[0], thickness):
        yield slice(start, min(start + thickness, grid.size[0]))


def points_of(grid: Grid, slab: slice) -> Fields:
    """LPS x, y, z of the voxel centres of a slab, float32."""
    a = grid.affine
    k, j, i = (np.arange(n, dtype=np.float64) for n in grid.size)
    fields = []
    for axis in range(3):
        field = (
            (a[axis, 0] * k[slab])[:, None, None]
            + (a[axis, 1] * j)[None, :, None]
            + (a[axis, 2] * i)[None, None, :]
            + a[axis, 3]
        )
        fields.append(field.astype(np.float32))
    return fields[0], fields[1], fields[2]


def render_slab(
    anatomy: Anatomy, pose: Pose, lesions: list[Lesion], points: Fields, voxel_mm: float, *, table: bool
) -> tuple[Field, Labels, Labels]:
    """HU before blur and noise, labels (1 GTVp, 2 GTVn), and node numbers, of one slab."""
    hard = pose.canonical_fields(points)
    soft = _soft_fields(pose, lesions, points, hard, voxel_mm)
    body = _body_distance(anatomy, soft)
    hu = _flesh(anatomy, body, soft)
    painter = _Painter(voxel_mm)
    for tissue in anatomy.tissues:
        if tissue.layer == "soft":
            painter.paint(hu, tissue, soft, body)
    labels = np.zeros(hu.shape, dtype=np.uint8)
    numbers = np.zeros(hu.shape, dtype=np.uint8)
    _plant(lesions, points, hu, labels, numbers, voxel_mm)
    _skull(anatomy, hu, hard, voxel_mm)
    covered = np.zeros(hu.shape, dtype=bool)
    for tissue in anatomy.tissues:
        if tissue.layer == "hard":
            painter.paint(hu, tissue, hard, body, covered)
    outside = np.clip(0.5 + body / np.float32(max(0.8, voxel_mm)), 0, 1)
    hu += outside * (np.float32(AIR_HU) - hu)
    if table:
        _table(hu, body, hard)
    gone = covered | (body > -0.5)
    labels[gone] = 0
    numbers[gone] = 0
    return hu, labels, numbers


def hard_clearance(
    anatomy: Anatomy, pose: Pose, points_lps: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Distance (mm) of LPS points (n, 3) to bone, air and 3 mm under the skin; positive where free."""
    q = pose.canonical(points_lps).astype(np.float32)
    fields = (q[:, 0], q[:, 1], q[:, 2])
    free = -(_body_distance(anatomy, fields) + 3.0)
    for tissue in anatomy.tissues:
        if tissue.layer == "hard" and _near(tissue.shape, q):
            free = np.minimum(free, tissue.shape.distance(*fields))
    skull = anatomy.brain.distance(*fields) - np.float32(_SKULL_MM)
    clear: npt.NDArray[np.float64] = np.minimum(free, skull).astype(np.float64)
    return clear


def _near(shape: Shape, points: npt.NDArray[np.float32]) -> bool:
    low, high = shape.bounds()
    return bool(((points > low - 5) & (points < high + 5)).all(axis=1).any())


def _soft_fields(pose: Pose, lesions: list[Lesion], points: Fields, hard: Fields, voxel_mm: float) -> Fields:
    """Canonical coordinates of the tissue that was here before the lesions pushed it aside."""
    lobes = [lobe for lesion in lesions if lesion.label == 2 for lobe in lesion.lobes[:1]]
    moved: list[Field] | None = None
    boxes: list[Box] = []
    for lobe in lobes:
        reach = np.full(3, max(lobe.radii) * DISPLACEMENT_REACH)
        box = _box_of(points, np.array(lobe.centre) - reach, np.array(lobe.centre) + reach, voxel_mm)
        if box is None:
            continue
        moved = [p.copy() for p in points] if moved is None else moved
        pushed = pushed_back((moved[0][box], moved[1][box], moved[2][box]), lobe)
        for whole, part in zip(moved, pushed, strict=True):
            whole[box] = part
        boxes.append(box)
    if moved is None:
        return hard
    soft = [h.copy() for h in hard]
    for box in boxes:
        parts = pose.canonical_fields((moved[0][box], moved[1][box], moved[2][box]))
        for whole, canonical in zip(soft, parts, strict=True):
            whole[box] = canonical
    return soft[0], soft[1], soft[2]


def _body_distance(anatomy: Anatomy, fields: Fields) -> Field:
    """Signed distance (mm) to the skin, negative inside; outlines flow into each other over some mm."""
    distances = [shape.distance(*fields) for shape in anatomy.body]
    smooth = np.float32(6.0)
    total = distances[0]
    for d in distances[1:]:
        blend = np.clip(0.5 + 0.5 * (d - total) / smooth, 0, 1)
        total = d + blend * (total - d) - smooth * blend * (1 - blend)
    return total.astype(np.float32)


def _flesh(anatomy: Anatomy, body: Field, fields: Fields) -> Field:
    """Skin, fat under it, and muscle within the trunk; the neck is fat until its muscles are painted."""
    hu = np.full(body.shape, anatomy.fat_hu, dtype=np.float32)
    trunk = anatomy.body[-1].distance(*fields) + np.float32(anatomy.fat_mm * 1.6)
    flesh = np.clip(0.5 - trunk / 2, 0, 1) * np.clip((-fields[2] - 50) / 25, 0, 1)
    scalp = np.clip((fields[2] - 20) / 40, 0, 1) * np.clip(
        0.5 - (body + np.float32(anatomy.fat_mm)) / 2, 0, 1
    )
    hu += np.maximum(flesh, 0.35 * scalp) * np.float32(_MUSCLE_HU - anatomy.fat_hu)
    skin = np.clip((body + 2.0) / 1.0, 0, 1)
    hu += skin * (np.float32(_SKIN_HU) - hu)
    return hu


class _Painter:
    """Blends tissues into HU, each within the box that it can reach."""

    def __init__(self, voxel_mm: float) -> None:
        self._voxel_mm = voxel_mm

    def paint(
        self,
        hu: Field,
        tissue: Tissue,
        fields: Fields,
        body: Field,
        covered: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Paint one tissue in place; note in `covered` where it now is."""
        width = max(tissue.edge_mm, self._voxel_mm)
        low, high = tissue.shape.bounds()
        box = _box_of(fields, low - width, high + width, self._voxel_mm)
        if box is None:
            return
        x, y, z = (f[box] for f in fields)
        d = np.maximum(tissue.shape.distance(x, y, z), body[box] + np.float32(1.5))
        inside = np.clip(0.5 - d / np.float32(width), 0, 1)
        value = tissue.hu(d, z) if callable(tissue.hu) else np.float32(tissue.hu)
        part = hu[box]
        part += inside * (value - part)
        if covered is not None:
            covered[box] |= d < 0


def _box_of(
    fields: Fields, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], voxel_mm: float
) -> Box | None:
    """Block of indices that holds every voxel whose point lies in a box, judged on every fourth voxel."""
    reach = 2.5 * _STRIDE * voxel_mm
    coarse = [f[::_STRIDE, ::_STRIDE, ::_STRIDE] for f in fields]
    inside = np.ones(coarse[0].shape, dtype=bool)
    for values, a, b in zip(coarse, low, high, strict=True):
        inside &= (values > a - reach) & (values < b + reach)
    if not inside.any():
        return None
    found = []
    for axis, size in enumerate(fields[0].shape):
        hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        found.append(slice(max(0, int(hit[0] - 1) * _STRIDE), min(size, int(hit[-1] + 2) * _STRIDE)))
    return found[0], found[1], found[2]


def _plant(
    lesions: list[Lesion], points: Fields, hu: Field, labels: Labels, numbers: Labels, voxel_mm: float
) -> None:
    """Paint the lesions in place, and their labels."""
    number = 0
    for lesion in lesions:
        number += lesion.label == 2
        low, high = lesion.bounds(rim_mm=10.0)
        box = _box_of(points, low, high, voxel_mm)
        if box is None:
            continue
        x, y, z = (p[box] for p in points)
        hu[box], inside = lesion.paint(hu[box], (x, y, z), voxel_mm)
        labels[box][inside] = lesion.label
        numbers[box][inside] = number if lesion.label == 2 else 0


def _skull(anatomy: Anatomy, hu: Field, fields: Fields, voxel_mm: float) -> None:
    """Bone around the brain, and the brain, in place."""
    low, high = anatomy.brain.bounds()
    box = _box_of(fields, low - 12, high + 12, voxel_mm)
    if box is None:
        return
    x, y, z = (f[box] for f in fields)
    d = anatomy.brain.distance(x, y, z)
    part = hu[box]
    width = np.float32(max(1.0, voxel_mm))
    bone = np.clip(0.5 - (d - np.float32(_SKULL_MM)) / width, 0, 1)
    diploe = np.clip(1 - np.abs(d - np.float32(_SKULL_MM / 2)) / 2, 0, 1)
    part += bone * (np.float32(1050) - np.float32(450) * diploe - part)
    brain = np.clip(0.5 - d / width, 0, 1)
    part += brain * (np.float32(38) - part)


def _table(hu: Field, body: Field, fields: Fields) -> None:
    """A carbon table top under the patient, where there is no patient."""
    depth = fields[1] - np.float32(142) - fields[0] ** 2 * np.float32(0.0004)
    inside = (np.abs(depth) < 12) & (np.abs(fields[0]) < 250) & (body > 1)
    shell = np.abs(np.abs(depth) - 11) < 1.2
    hu[inside] = np.where(shell[inside], np.float32(-180), np.float32(-930))


def scanned(hu: Field, grid: Grid, scanner: Scanner, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """The CT that a scanner makes of perfect HU: texture, blur, noise, whole numbers."""
    spacing = np.array(grid.spacing)
    flesh = (hu > -200) & (hu < 250)
    hu = hu + flesh * _grained(rng, grid, np.full(3, 2.5)) * np.float32(scanner.texture_hu)
    blur = np.array((0.3 * spacing[0], scanner.blur_mm, scanner.blur_mm)) / spacing
    hu = ndimage.gaussian_filter(hu, blur, mode="nearest", truncate=3.0)
    grain = np.array((0.0, scanner.noise_grain_mm, scanner.noise_grain_mm))
    hu += _grained(rng, grid, grain) * np.float32(scanner.noise_hu)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _grained(rng: np.random.Generator, grid: Grid, sigma_mm: npt.NDArray[np.float64]) -> Field:
    """Correlated Gaussian noise of standard deviation 1."""
    noise = rng.standard_normal(grid.size, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, sigma_mm / np.array(grid.spacing), mode="wrap", truncate=3.0)
    result: Field = noise / np.float32(max(float(noise.std()), 1e-6))
    return result
