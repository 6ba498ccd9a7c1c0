"""What a user's own contours bring: the segmenter of a bundle, fine-tuned on twelve cases.

The registration has tests of its own and is left out here: the phantoms lie on the crop already.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.masks import read_mask
from aiene.ingest.read import read_case
from aiene.models.bundle import find_bundle
from aiene.preprocess.crop import fixed_window
from aiene.preprocess.template import Preparation
from aiene.results.nifti import write_nifti
from aiene.segment.segmenter import load_bundle_segmenter
from aiene.training import dataset
from aiene.training.records import Pair, TrainingCrop
from aiene.training.segmenter import SegmenterTraining, train_segmenter
from builders.shrunk_bundle import pack, shrunk_bundle

pytestmark = pytest.mark.slow

pytest.importorskip("nnunetv2", reason="nnU-Net is not installed (the extra `train`)")
GRID = Grid((32, 96, 96), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
CASES = 12


def written(root: Path, seeds: range, node_hu: float) -> Path:
    """Necks of muscle in air, with bright vessels, and balls of one HU that are nodes."""
    axes = [np.arange(n) * s for n, s in zip(GRID.size, GRID.spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    for seed in seeds:
        rng = np.random.default_rng(seed)
        hu = np.where((y - 48) ** 2 + (x - 48) ** 2 < 42**2, 50.0, -1000.0)
        for _ in range(3):
            hu[(y - rng.uniform(25, 70)) ** 2 + (x - rng.uniform(25, 70)) ** 2 < 3**2] = 300.0
        labels = np.zeros(GRID.size, np.uint8)
        for _ in range(3):
            centre = rng.uniform((20, 25, 25), (75, 70, 70))
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


def crops_of(root: Path) -> list[TrainingCrop]:
    found = [case for case in find_cases(root / "ct")[0] if isinstance(case, Case)]
    return [laid(Pair(c.case_id, c.case_id, c, root / "labels" / f"{c.case_id}.nii.gz")) for c in found]


def taught(net: torch.nn.Module, crops: list[TrainingCrop], steps: int) -> None:
    """A short training: what the bundle knows before it is fine-tuned."""
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    weight = torch.tensor([1.0, 1.0, 4.0])
    for step in range(steps):
        crop = crops[step % len(crops)]
        image, labels = torch.from_numpy(crop.image.array), torch.from_numpy(crop.labels.array).long()
        loss = functional.cross_entropy(net(image[None, None]), labels[None], weight=weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def dice(folder: Path, crops: list[TrainingCrop]) -> float:
    """Mean over crops, of the nodes."""
    segmenter = load_bundle_segmenter(find_bundle(str(folder)))
    values = []
    for crop in crops:
        found, true = segmenter(crop.image).array == 2, crop.labels.array == 2
        values.append(2 * (found & true).sum() / (found.sum() + true.sum()))
    return float(np.mean(values))


def test_twelve_cases_of_ones_own_make_a_better_segmenter_for_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another clinic's nodes are fainter than those that the bundle was made with."""
    torch.set_num_threads(1)
    monkeypatch.setattr(dataset, "crop_of", laid)
    start = tmp_path / "tiny"
    net = shrunk_bundle(start)
    elsewhere = crops_of(written(tmp_path / "elsewhere", range(1, 4), 200.0))
    taught(net, elsewhere, 60)
    pack(start, net)
    own = written(tmp_path / "own", range(10, 10 + CASES), 110.0)
    unseen = crops_of(written(tmp_path / "unseen", range(30, 33), 110.0))
    before = dice(start, unseen)
    assert dice(start, elsewhere) > 0.5  # else it would be no start
    settings = SegmenterTraining(own / "ct", own / "labels", tmp_path / "mine", start_from=str(start))
    bundle, used = train_segmenter(replace(settings, epochs=4, iterations=50))
    after = dice(bundle.path, unseen)
    assert len(used.patient_of) == CASES
    assert after > before + 0.1, (before, after)
