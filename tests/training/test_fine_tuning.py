"""What a user's own contours bring: the segmenter of a bundle, fine-tuned on twelve cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.models.bundle import find_bundle
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.preprocess.template import Preparation, load_preparation
from aiene.results.nifti import write_nifti
from aiene.segment.segmenter import load_bundle_segmenter
from aiene.training.dataset import Pair, TrainingCrop, crop_of
from aiene.training.segmenter import SegmenterTraining, train_segmenter
from builders.shrunk_bundle import pack, shrunk_bundle

pytestmark = pytest.mark.slow

pytest.importorskip("nnunetv2", reason="nnU-Net is not installed (the extra `train`)")
SMALL = PhantomSettings(size=(70, 110, 110), spacing=(4.0, 2.4, 2.4), nodes=(2, 4), tilt_degrees=2.0)
CASES = 12


def written(root: Path, seeds: range, node_hu: float, each: int = 1) -> Path:
    """Phantoms whose nodes have one HU, which even a network of a few weights can learn.

    Parameters
    ----------
    each : CTs of each phantom: mirrored by turns, with noise of their own.
    """
    for seed in seeds:
        phantom = make_phantom(seed, SMALL)
        for k in range(each):
            step = 1 - 2 * (k % 2)
            labels = phantom.labels.array[:, :, ::step]
            noise = np.random.default_rng((seed, k)).normal(0, 8, SMALL.size)
            ct = np.where(labels == 2, node_hu, phantom.ct.array[:, :, ::step]) + noise
            for name, array in (("ct", ct.astype(np.int16)), ("labels", labels)):
                (root / name).mkdir(parents=True, exist_ok=True)
                volume = phantom.ct.with_array(np.ascontiguousarray(array))
                write_nifti(volume, root / name / f"p{seed}-{k}.nii.gz")
    return root


def crops_of(root: Path, preparation: Preparation) -> list[TrainingCrop]:
    found = [case for case in find_cases(root / "ct")[0] if isinstance(case, Case)]
    pairs = [Pair(c.case_id, c.case_id, c, root / "labels" / f"{c.case_id}.nii.gz") for c in found]
    return [crop_of(pair, preparation) for pair in pairs]


def taught(net: torch.nn.Module, crops: list[TrainingCrop], steps: int) -> None:
    """A short training: what the bundle knows before it is fine-tuned."""
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        crop = crops[int(rng.integers(len(crops)))]
        nodes = np.argwhere(crop.labels.array == 2)
        about = nodes[int(rng.integers(len(nodes)))] - (16, 32, 32) + rng.integers(-8, 9, 3)
        z, y, x = np.clip(about, 0, np.array(crop.labels.grid.size) - (32, 64, 64))
        box = (slice(z, z + 32), slice(y, y + 64), slice(x, x + 64))
        image, labels = torch.from_numpy(crop.image.array[box]), torch.from_numpy(crop.labels.array[box])
        loss = functional.cross_entropy(
            net(image[None, None]), labels[None].long(), weight=torch.tensor([1.0, 1.0, 4.0])
        )
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


@pytest.mark.timeout(1800)
def test_twelve_cases_of_ones_own_make_a_better_segmenter_for_ones_own(tmp_path: Path) -> None:
    """Another clinic's nodes are fainter than those that the bundle was made with."""
    torch.set_num_threads(1)
    start = tmp_path / "tiny"
    net = shrunk_bundle(start)
    preparation = load_preparation(find_bundle(str(start)))
    elsewhere = written(tmp_path / "elsewhere", range(950_001, 950_002), 200.0)
    taught(net, crops_of(elsewhere, preparation), 40)
    pack(start, net)
    own = written(tmp_path / "own", range(960_001, 960_004), 110.0, each=4)
    unseen = crops_of(written(tmp_path / "unseen", range(970_001, 970_003), 110.0), preparation)
    before = dice(start, unseen)
    settings = SegmenterTraining(own / "ct", own / "labels", tmp_path / "mine", start_from=str(start))
    bundle, dataset = train_segmenter(replace(settings, epochs=2, iterations=25))
    after = dice(bundle.path, unseen)
    assert len(dataset.patient_of) == CASES
    assert after > before + 0.1, (before, after)
