"""A synthetic head-and-neck CT with lymph nodes of known truth: rendered, scanned, and as DICOM files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from aiene.geometry.grid import Grid, Triple, Volume
from aiene.phantom.anatomy import Anatomy, Field, Pose, Tissue, build_anatomy, draw_pose
from aiene.phantom.lesions import (
    DISPLACEMENT_REACH,
    Fields,
    Lesion,
    PlantedNode,
    Wishes,
    plant,
    pushed_back,
)

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
    for tissue in anatomy.tissues:
        if tissue.layer == "soft":
            _paint(hu, tissue, soft, body, voxel_mm)
    labels = np.zeros(hu.shape, dtype=np.uint8)
    numbers = np.zeros(hu.shape, dtype=np.uint8)
    _plant(lesions, points, hu, labels, numbers, voxel_mm)
    _skull(anatomy, hu, hard, voxel_mm)
    covered = np.zeros(hu.shape, dtype=bool)
    for tissue in anatomy.tissues:
        if tissue.layer == "hard":
            _paint(hu, tissue, hard, body, voxel_mm, covered)
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
    for tissue in (one for one in anatomy.tissues if one.layer == "hard"):
        low, high = tissue.shape.bounds()
        if ((q > low - 5) & (q < high + 5)).all(axis=1).any():
            free = np.minimum(free, tissue.shape.distance(*fields))
    skull = anatomy.brain.distance(*fields) - np.float32(_SKULL_MM)
    clear: npt.NDArray[np.float64] = np.minimum(free, skull).astype(np.float64)
    return clear


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


def _paint(
    hu: Field,
    tissue: Tissue,
    fields: Fields,
    body: Field,
    voxel_mm: float,
    covered: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Blend one tissue in place, within the box that it can reach; note in `covered` where it now is."""
    width = max(tissue.edge_mm, voxel_mm)
    low, high = tissue.shape.bounds()
    box = _box_of(fields, low - width, high + width, voxel_mm)
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


_INTERCEPT = -1024


@dataclass(frozen=True)
class PhantomSettings(Wishes):
    """What kind of phantom is wanted; everything else comes from the seed.

    Parameters
    ----------
    grid : where the voxels shall lie (any spacing, direction and size); None: an axial stack of `size` and
        `spacing` around the patient, with an origin drawn from the seed.
    size, spacing : voxels and mm along z, y, x where no grid is given.
    variation : 0 is the average person lying straight, 1 the usual spread.
    tilt_degrees : spread of the three angles at which patients lie.
    table : a table top under the patient.
    scanner : blur, noise and texture.
    node_seed : plants other nodes into the same person; None: the seed itself.
    """

    grid: Grid | None = None
    size: tuple[int, int, int] = (90, 256, 256)
    spacing: Triple = (3.0, 1.0, 1.0)
    variation: float = 1.0
    tilt_degrees: float = 4.0
    table: bool = True
    scanner: Scanner = field(default_factory=Scanner)
    node_seed: int | None = None


@dataclass(frozen=True, eq=False)
class Phantom:
    """A CT and the truth about it, all on one grid.

    Parameters
    ----------
    ct : int16 HU.
    labels : uint8, 1 GTVp, 2 GTVn.
    node_map : uint8, number of the planted node.
    nodes : what was planted, in the order of their numbers.
    pose : takes the scan's points to canonical anatomy.
    """

    ct: Volume
    labels: Volume
    node_map: Volume
    nodes: tuple[PlantedNode, ...]
    pose: Pose


def make_phantom(seed: int, settings: PhantomSettings | None = None) -> Phantom:
    """A phantom patient; the same seed and settings give the same bytes.

    Person, lesions and noise have random streams of their own: the same seed on another grid is the same
    person with the same nodes.

    Parameters
    ----------
    seed : which person.
    settings : which kind of phantom and scan; None: the usual ones.
    """
    wanted = settings or PhantomSettings()
    node_seed = seed if wanted.node_seed is None else wanted.node_seed
    grid = wanted.grid or _axial_grid(wanted, np.random.default_rng((seed, 0)))
    person = np.random.default_rng((seed, 1))
    pose = draw_pose(
        person, centre_lps=grid.centre, variation=wanted.variation, tilt_degrees=wanted.tilt_degrees
    )
    anatomy = build_anatomy(person, wanted.variation)
    lesions, nodes = plant(
        np.random.default_rng((seed, 2, node_seed)),
        wanted,
        pose,
        lambda points: hard_clearance(anatomy, pose, points),
        anatomy.enhancement,
    )
    hu = np.empty(grid.size, dtype=np.float32)
    labels = np.empty(grid.size, dtype=np.uint8)
    numbers = np.empty(grid.size, dtype=np.uint8)
    voxel_mm = float(min(np.sort(grid.spacing)[:2]))
    for slab in blocks(grid):
        hu[slab], labels[slab], numbers[slab] = render_slab(
            anatomy, pose, lesions, points_of(grid, slab), voxel_mm, table=wanted.table
        )
    ct = scanned(hu, grid, wanted.scanner, np.random.default_rng((seed, 3, node_seed)))
    return Phantom(Volume(ct, grid), Volume(labels, grid), Volume(numbers, grid), tuple(nodes), pose)


def _axial_grid(settings: PhantomSettings, rng: np.random.Generator) -> Grid:
    """An ordinary axial stack; scanners put the origin anywhere."""
    half = (np.array(settings.size) - 1) / 2 * np.array(settings.spacing)
    middle = rng.uniform((-15, -190, -900), (15, -110, 300))
    x, y, z = (float(v) for v in middle - half[::-1])
    return Grid(settings.size, settings.spacing, (x, y, z))


# DICOM series


def write_dicom_series(ct: Volume, folder: Path, *, name: str) -> list[Path]:
    """Write one file per slice.

    Parameters
    ----------
    ct : HU, whole numbers from -1024 to 31743, array (z, y, x).
    folder : where the files go; made if need be.
    name : patient name and id, and the seed of every UID, so that the files are the same on each run.

    Returns
    -------
    The files, lowest slice index first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(ct.grid.size[0]):
        file = folder / f"CT{index + 1:04d}.dcm"
        _slice(ct, index, name).save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def _slice(ct: Volume, index: int, name: str) -> Dataset:
    grid = ct.grid
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = _uid(name, f"slice {index}")
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, _uid(name, f"slice {index}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(name, "study"), _uid(name, "series")
    ds.FrameOfReferenceUID = _uid(name, "frame of reference")
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = name, name, "", "O"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20260101", "120000", "", "1"
    ds.ReferringPhysicianName, ds.PositionReferenceIndicator = "", ""
    ds.Modality, ds.Manufacturer = "CT", "AI-ENE phantom"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.BodyPartExamined, ds.SeriesDescription = "NECK", "phantom, soft tissue"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 1, 1, index + 1
    ds.KVP, ds.SliceThickness, ds.ConvolutionKernel = "120", f"{grid.spacing[0]:.4f}", "B31f"
    ds.PatientPosition = "HFS"
    ds.ImagePositionPatient = [f"{v:.6f}" for v in grid.points(np.array([index, 0, 0]))]
    ds.ImageOrientationPatient = [f"{v:.8f}" for v in (*grid.direction[2], *grid.direction[1])]
    ds.PixelSpacing = [f"{grid.spacing[1]:.6f}", f"{grid.spacing[2]:.6f}"]
    ds.Rows, ds.Columns = grid.size[1], grid.size[2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(_INTERCEPT), "1", "HU"
    ds.PixelData = (ct.array[index].astype(np.int32) - _INTERCEPT).astype("<u2").tobytes()
    return ds


def _uid(name: str, what: str) -> str:
    return str(generate_uid(entropy_srcs=["AI-ENE phantom", name, what]))
