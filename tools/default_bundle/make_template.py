"""Make the template of the default bundle: the mean of many head-and-neck CTs, in which no person is seen.

    python -m tools.default_bundle.make_template OPENKBP OUT.nrrd

Every CT of OpenKBP that covers the neck well and is not held out is laid rigidly onto a first one and
averaged; the mean is laid onto its own mirror image and averaged with it, so that x = 0 is the midline; that
mean is the target of the next round. The origin of its space is the neck's centre, found from the targets.

Data: OpenKBP (A. Babier et al., Med. Phys. 48:5549, 2021; MIT licence).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy.linalg import fractional_matrix_power

from aiene.geometry.grid import Grid, RigidTransform, Volume, to_sitk, volume_of
from aiene.geometry.resample import resample
from aiene.ingest.case import NativeCt
from aiene.preprocess.profile import OPEN, STEADY
from aiene.preprocess.registration import Template, centred_pose, refine, registration_image
from aiene.preprocess.registration_quality import register
from aiene.preprocess.resampling import open_working
from tools.default_bundle.holdout import held_out

LEAST_COVERED_MM = 300.0
ROUNDS = 3
LATTICE = Grid(size=(108, 126, 126), spacing=(3.0, 2.0, 2.0), origin=(-125.0, -125.0, -140.0))
"""Around the neck's centre: planning CTs end some 180 mm above it, the shoulders begin 70 mm below."""

QUANTUM_HU = 8

Matrix = npt.NDArray[np.float64]


def training_patients(folder: Path) -> list[str]:
    """Patients whose CT covers the neck and shoulders, without those held out."""
    with (folder / "patients.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    away = held_out(row["patient"] for row in rows)
    good = [r for r in rows if r["patient"] not in away and float(r["covered_z_mm"]) >= LEAST_COVERED_MM]
    best_first = sorted(good, key=lambda r: (-float(r["covered_z_mm"]), r["patient"]))
    return [row["patient"] for row in best_first]


def read(file: Path) -> Volume:
    """A volume of OpenKBP."""
    return volume_of(sitk.ReadImage(str(file)))


def laid(
    folder: Path, patients: list[str], template: Template
) -> Iterator[tuple[str, RigidTransform, float]]:
    """Each patient's transform from template points to CT points, and its metric."""
    for patient in patients:
        working = open_working(NativeCt(read(folder / patient / "ct.nii.gz"), 2), OPEN)
        fit = register(working, template, replace(OPEN, rescue=False))
        yield patient, working.to_native.after(fit.kept.pose.rigid()), fit.kept.verdict.metric


def average(folder: Path, poses: dict[str, RigidTransform], lattice: Grid) -> Volume:
    """Mean HU of the laid CTs; every CT counts where its slices hold an image."""
    total = np.zeros(lattice.size, dtype=np.float64)
    count = np.zeros(lattice.size, dtype=np.float64)
    for patient, pose in poses.items():
        ct = read(folder / patient / "ct.nii.gz")
        filled = np.flatnonzero(ct.array.max(axis=(1, 2)) > -900)
        known = np.zeros(ct.grid.size, dtype=np.float32)
        known[filled[0] : filled[-1] + 1] = 1
        clipped = ct.with_array(ct.array.clip(-1000, 1000).astype(np.float32))
        share = resample(ct.with_array(known), lattice, order=1, outside=0, world=pose).array > 0.99
        total += np.where(share, resample(clipped, lattice, order=1, outside=-1000, world=pose).array, 0)
        count += share
    mean = np.divide(total, count, out=np.full(lattice.size, -1000.0), where=count >= len(poses) * 0.25)
    return Volume(mean.astype(np.float32), lattice)


def symmetric(mean: Volume) -> tuple[Volume, RigidTransform]:
    """A mean averaged with its mirror image about x = 0, after its own midplane was laid there.

    Returns also the transform from the new space to the old one.
    """
    mirrored = _mirrored(mean)
    start = centred_pose(mean, mirrored)
    onto = refine(registration_image(mean, STEADY), registration_image(mirrored, STEADY), start, STEADY)
    if onto is None:
        raise ValueError("the mean and its mirror image lost all overlap while they were aligned")
    half = np.real(fractional_matrix_power(onto.rigid().matrix, -0.5))
    turn, _, other = np.linalg.svd(half[:3, :3])
    half[:3, :3] = turn @ other
    to_old = RigidTransform.from_matrix(half)
    upright = resample(mean, mean.grid, order=1, outside=-1000, world=to_old)
    return mean.with_array((upright.array + _mirrored(upright).array) / 2), to_old


def _mirrored(volume: Volume) -> Volume:
    """The volume reflected in the plane x = 0, on its own lattice, which must be symmetric about it."""
    return volume.with_array(np.ascontiguousarray(volume.array[:, :, ::-1]))


def neck_centre(folder: Path, poses: dict[str, RigidTransform], midline: float) -> tuple[float, float, float]:
    """Where the crop must be centred so that it holds the patients' targets, in the template's space.

    Along y and z the middle between the usual ends (2nd and 98th percentile of voxels, median over the
    patients) of all planning targets; along x the midline.
    """
    ends = []
    for patient, pose in poses.items():
        targets = read(folder / patient / "ptv.nii.gz")
        points = pose.inverse().apply(targets.grid.points(np.argwhere(targets.array > 0)))
        ends.append(np.percentile(points[:, 1:], [2, 98], axis=0))
    y, z = np.median(ends, axis=0).mean(axis=0)
    return midline, float(y), float(z)


def write(template: Volume, centre: tuple[float, float, float], file: Path) -> None:
    """Write the template, rounded so that it packs well, with the neck's centre in its header."""
    rounded = (np.round(template.array.clip(-1000, 1000) / QUANTUM_HU) * QUANTUM_HU).astype(np.int16)
    image = to_sitk(template.with_array(rounded))
    image.SetMetaData("neck_centre_lps_mm", " ".join(f"{v:g}" for v in centre))
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file), True, 9)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("openkbp", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    patients = training_patients(arguments.openkbp)
    print(f"{len(patients)} patients")
    template = first_template(arguments.openkbp, patients[0])
    for number in range(ROUNDS):
        results = list(laid(arguments.openkbp, patients, template))
        limit = np.quantile([metric for _, _, metric in results], 0.9)
        poses = {patient: pose for patient, pose, metric in results if metric <= limit}
        centre = neck_centre(arguments.openkbp, poses, 0.0)
        print(f"round {number + 1}: {len(poses)} used, metric at most {limit:.3f}, off {np.round(centre, 1)}")
        moved = {patient: pose.after(RigidTransform(translation=centre)) for patient, pose in poses.items()}
        volume, _ = symmetric(average(arguments.openkbp, moved, LATTICE))
        template = Template(volume, (0.0, 0.0, 0.0))
    write(template.volume, template.neck_centre, arguments.out)


def first_template(folder: Path, patient: str) -> Template:
    """One patient's CT with its targets' middle at the origin."""
    ct = read(folder / patient / "ct.nii.gz")
    x, y, z = neck_centre(folder, {patient: RigidTransform()}, float(ct.grid.centre[0]))
    there = RigidTransform(translation=(x, y, z))
    volume = resample(ct, LATTICE, order=1, outside=-1000, world=there)
    return Template(volume.with_array(volume.array.astype(np.float32)), (0.0, 0.0, 0.0))


if __name__ == "__main__":
    main()
