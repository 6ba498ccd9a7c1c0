"""Necks so plain that they lie on the networks' crop already: trainings on them need no registration."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.ingest.masks import read_mask
from aiene.ingest.read import read_case
from aiene.preprocess.preprocess import Preparation, fixed_window
from aiene.results.nifti import write_nifti
from aiene.training.dataset import Pair, TrainingCrop

GRID = Grid((24, 64, 64), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def written(root: Path, seeds: range, node_hu: float) -> Path:
    """Necks of muscle in air, with bright vessels, and balls of one HU that are nodes."""
    axes = [np.arange(n) * s for n, s in zip(GRID.size, GRID.spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    for seed in seeds:
        rng = np.random.default_rng(seed)
        hu = np.where((y - 32) ** 2 + (x - 32) ** 2 < 28**2, 50.0, -1000.0)
        for _ in range(3):
            hu[(y - rng.uniform(16, 48)) ** 2 + (x - rng.uniform(16, 48)) ** 2 < 3**2] = 300.0
        labels = np.zeros(GRID.size, np.uint8)
        for _ in range(3):
            centre = rng.uniform((12, 18, 18), (58, 46, 46))
            far = sum((a - c) ** 2 for a, c in zip((z, y, x), centre, strict=True))
            labels[far < rng.uniform(6, 10) ** 2] = 2
        hu[labels == 2] = node_hu
        hu += rng.normal(0, 8, GRID.size)
        for name, array in (("ct", hu.astype(np.int16)), ("labels", labels)):
            (root / name).mkdir(parents=True, exist_ok=True)
            write_nifti(Volume(array, GRID), root / name / f"p{seed}.nii.gz")
    return root


def laid(pair: Pair, preparation: Preparation | None = None) -> TrainingCrop:
    """What `crop_of` gives of a CT that needs no registration."""
    ct = read_case(pair.case).volume
    labels = read_mask(pair.label, like=ct.grid)
    image = ct.with_array(fixed_window(ct.array.astype(np.float32)))
    return TrainingCrop(pair.case_id, pair.patient_id, image, labels, RigidTransform(), ct.grid)
