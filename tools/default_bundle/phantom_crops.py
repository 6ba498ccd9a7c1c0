"""Phantoms on the networks' crop: made, laid onto the template by the road itself, and kept on disk."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from aiene.errors import CaseError
from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.geometry.resample import downsample, pull_labels, resample
from aiene.ingest.case import NativeCt
from aiene.phantom.phantom import Phantom, PhantomSettings, Scanner, make_phantom
from aiene.preprocess.preprocess import Prepared, fixed_window, prepare
from aiene.preprocess.profile import OPEN
from aiene.preprocess.registration import Template

TRAINING_SEED = 10_000
NECK_SEED = 20_000
VALIDATION_SEED = 50_000
NECK_VALIDATION_SEED = 60_000
TEST_SEED = 90_000
NECK_TEST_SEED = 100_000
"""First seeds of the sets of persons, whole or necks, of training, validation and test; they never meet."""
NECK_IN_PLANE_MM = (0.5, 1.0)
NECK_SIGNS: dict[str, Any] = {"weakest_ene": 0.05, "mimic_share": 0.5}
"""Extension is learned and judged where its weakest signs and what looks like them cannot be told apart."""


CROP_GRID = Grid((64, 160, 160), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
"""Size and spacing of a crop; its place does not matter to the networks."""
FARTHEST_MM = 60.0
"""A crop whose centre lies farther than this from the neck's middle is a failed registration."""


@dataclass(frozen=True)
class Crop:
    """A phantom as the networks see it.

    Parameters
    ----------
    image : float16 (64, 160, 160), HU scaled to [0, 1].
    labels, numbers : uint8, 1 GTVp and 2 GTVn; number of the planted node.
    ene : strength of the signs for node 1, 2, ...; 0 without extension.
    organs : labels of the organs that were outlined (`organs.CLASSES`); another organ may lie in what is
        labelled background.
    """

    image: npt.NDArray[np.float16]
    labels: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.uint8]
    ene: npt.NDArray[np.float32]
    organs: tuple[int, ...] = ()


def scan_settings(
    seed: int, *, coarse_share: float = 0.2, in_plane_mm: tuple[float, float] = (0.75, 1.2)
) -> PhantomSettings:
    """An everyday scan: 0.75 to 1.2 mm in plane and 2.0 to 3.3 mm along z; a share of them much coarser."""
    rng = np.random.default_rng((seed, 77))
    coarse = rng.random() < coarse_share
    in_plane = float(rng.uniform(1.8, 4.0) if coarse else rng.uniform(*in_plane_mm))
    along = float(rng.uniform(2.0, 3.3) if not coarse else rng.uniform(2.5, 3.5))
    field_mm = float(rng.uniform(200, 270) if not coarse else rng.uniform(380, 520))
    length_mm = float(rng.uniform(255, 320))
    across = round(field_mm / in_plane)
    return PhantomSettings(
        size=(round(length_mm / along), across, across),
        spacing=(along, in_plane, in_plane),
        nodes=(1, 6),
        table=bool(rng.random() < 0.6),
        scanner=Scanner(
            blur_mm=float(rng.uniform(0.4, 0.9) * max(1.0, in_plane * 0.6)),
            noise_hu=float(rng.uniform(6, 20) * (0.6 if coarse else 1.0)),
            noise_grain_mm=float(rng.uniform(0.5, 1.0)),
            texture_hu=float(rng.uniform(4, 10)),
        ),
    )


def make_crops(seed: int, template: Template, plantings: int) -> list[Crop]:
    """One person with several sets of nodes; the first goes the whole road, the others lie a little off it.

    Raises
    ------
    CaseError : the road found no neck.
    """
    settings = scan_settings(seed)
    first = make_phantom(seed, settings)
    prepared = prepare(NativeCt(first.ct, 2), template, OPEN)
    off = np.linalg.norm(first.pose.canonical(prepared.to_native.apply(prepared.crop.grid.centre))[[0, 2]])
    if off > FARTHEST_MM:
        raise CaseError(f"the crop lies {off:.0f} mm off the neck's middle", "leave this seed out")
    crops = [as_crop(first, prepared, prepared.crop.array)]
    for again in range(1, plantings):
        other = make_phantom(seed, replace(settings, node_seed=seed + 1_000_000 * again))
        near = jittered(prepared, np.random.default_rng((seed, 78, again)))
        crops.append(as_crop(other, near, laid(other.ct, near)))
    return crops


def make_neck_crop(seed: int) -> Crop:
    """A phantom of which only the neck is scanned, finely, laid near where the registration would lay it.

    It costs a fifth of a whole phantom with its registration: more nodes to learn from, not to judge by.
    """
    rng = np.random.default_rng((seed, 79))
    scan = scan_settings(seed, coarse_share=0.0, in_plane_mm=NECK_IN_PLANE_MM)
    size = tuple(round(mm / s) for mm, s in zip((215.0, 180.0, 180.0), scan.spacing, strict=True))
    grid = Grid((size[0], size[1], size[2]), scan.spacing, (0.0, 0.0, 0.0))
    phantom = make_phantom(seed, replace(scan, grid=grid, nodes=(4, 6), table=False, **NECK_SIGNS))
    centre = np.add(grid.centre, (0, 3, -9)) + rng.normal(0, (3, 4, 7))
    lattice = replace(CROP_GRID, origin=tuple((centre - CROP_GRID.centre).tolist()))
    turn = _near_turn(lattice, rng)
    fine = downsample(phantom.ct, CROP_GRID.spacing)
    hu = resample(fine, lattice, order=1, outside=-1024, world=turn)
    return Crop(
        fixed_window(hu.array).astype(np.float16),
        pull_labels(phantom.labels, lattice, world=turn).array,
        pull_labels(phantom.node_map, lattice, world=turn).array,
        np.array([n.ene_strength for n in phantom.nodes], dtype=np.float32),
    )


def _near_turn(grid: Grid, rng: np.random.Generator) -> RigidTransform:
    """A small turn about the grid's centre."""
    x, y, z = np.radians(rng.normal(0, 3, size=3))
    turn = sitk.Euler3DTransform(grid.centre, x, y, z)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(turn.GetMatrix()).reshape(3, 3)
    matrix[:3, 3] = turn.TransformPoint((0.0, 0.0, 0.0))
    return RigidTransform.from_matrix(matrix)


def jittered(prepared: Prepared, rng: np.random.Generator) -> Prepared:
    """As if the registration had ended some degrees and mm elsewhere."""
    x, y, z = (float(v) for v in rng.normal(0, (4, 4, 8)))
    near = RigidTransform(translation=(x, y, z)).after(_near_turn(prepared.crop.grid, rng))
    return replace(prepared, to_native=prepared.to_native.after(near))


def laid(ct: Volume, prepared: Prepared) -> npt.NDArray[np.float32]:
    """A CT of the same grid on the same crop, as the open profile samples it."""
    z, y, x = prepared.crop.grid.spacing
    fine = downsample(ct, (z, y, x))
    float_ct = fine.with_array(fine.array.astype(np.float32))
    hu = resample(float_ct, prepared.crop.grid, order=1, outside=-1024, world=prepared.to_native)
    return fixed_window(hu.array)


def on_crop(labels: Volume, prepared: Prepared) -> npt.NDArray[np.uint8]:
    """Labels of the native grid at the crop's voxel centres, nearest neighbour."""
    grid: Grid = prepared.crop.grid
    result: npt.NDArray[np.uint8] = pull_labels(labels, grid, world=prepared.to_native).array
    return result


def as_crop(phantom: Phantom, prepared: Prepared, image: npt.NDArray[np.float32]) -> Crop:
    """A phantom's crop with its truth."""
    return Crop(
        image.astype(np.float16),
        on_crop(phantom.labels, prepared),
        on_crop(phantom.node_map, prepared),
        np.array([n.ene_strength for n in phantom.nodes], dtype=np.float32),
    )


def save_crop(file: Path, crop: Crop) -> None:
    """Write a crop; a half-written file never has the final name."""
    partial = file.with_suffix(".part.npz")
    np.savez_compressed(partial, image=crop.image, labels=crop.labels, numbers=crop.numbers, ene=crop.ene)
    partial.rename(file)


def load_crop(file: Path) -> Crop:
    """Read a crop."""
    with np.load(file) as stored:
        return Crop(stored["image"], stored["labels"], stored["numbers"], stored["ene"])


def write_necks(folder: Path, first_seed: int, count: int, workers: int) -> None:
    """Make the neck crops that are not there yet, in so many processes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {seed: folder / f"{seed}_0.npz" for seed in range(first_seed, first_seed + count)}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for job in [pool.submit(_write_neck, file, s) for s, file in files.items() if not file.exists()]:
            job.result()


def _write_neck(file: Path, seed: int) -> None:
    save_crop(file, make_neck_crop(seed))


def write_set(
    folder: Path, first_seed: int, persons: int, plantings: int, template: Template, workers: int
) -> list[str]:
    """Make the crops of many persons that are not there yet; returns why some could not be made."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_write_person, folder, seed, plantings, template)
            for seed in range(first_seed, first_seed + persons)
        ]
        return [failure for job in jobs if (failure := job.result()) is not None]


def _write_person(folder: Path, seed: int, plantings: int, template: Template) -> str | None:
    files = [folder / f"{seed}_{k}.npz" for k in range(plantings)]
    if all(file.exists() for file in files):
        return None
    try:
        crops = make_crops(seed, template, plantings)
    except CaseError as error:
        return f"{seed}: {error}"
    for file, crop in zip(files, crops, strict=True):
        save_crop(file, crop)
    print(f"{folder.name}: {seed}", flush=True)
    return None
