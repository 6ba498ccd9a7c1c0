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

from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.models.bundle import find_bundle
from aiene.segment.segmenter import load_bundle_segmenter
from aiene.training import dataset
from aiene.training.dataset import Pair, TrainingCrop
from aiene.training.segmenter import SegmenterTraining, train_segmenter
from builders.plain_necks import laid, written
from builders.shrunk_bundle import pack, shrunk_bundle

pytestmark = pytest.mark.slow

pytest.importorskip("nnunetv2", reason="nnU-Net is not installed (the extra `train`)")
CASES = 12


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
    net = shrunk_bundle(start, patch=(16, 48, 48))
    elsewhere = crops_of(written(tmp_path / "elsewhere", range(1, 4), 200.0))
    taught(net, elsewhere, 30)
    pack(start, net)
    own = written(tmp_path / "own", range(10, 10 + CASES), 110.0)
    unseen = crops_of(written(tmp_path / "unseen", range(30, 33), 110.0))
    before = dice(start, unseen)
    assert dice(start, elsewhere) > 0.5  # else it would be no start
    settings = SegmenterTraining(own / "ct", own / "labels", tmp_path / "mine", start_from=str(start))
    bundle, used = train_segmenter(replace(settings, epochs=3, iterations=40))
    after = dice(bundle.path, unseen)
    assert len(used.patient_of) == CASES
    assert after > before + 0.1, (before, after)
