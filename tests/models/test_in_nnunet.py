"""Our bundles' segmenters in nnU-Net v2's own predictor: the same labels, from the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aiene.geometry.grid import Volume
from aiene.models.bundle import default_folder
from aiene.models.importers.trial import SEEDS, trial_crop
from aiene.segment.segmenter import load_segmenter

pytestmark = pytest.mark.slow

FOLDER = default_folder() / "segmenter"
PART = (slice(4, 36), slice(20, 116), slice(20, 116))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """nnU-Net's predictor; it wants to know its folders when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        predict = pytest.importorskip("nnunetv2.inference.predict_from_raw_data")
    made = predict.nnUNetPredictor(
        use_mirroring=True, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    made.initialize_from_trained_model_folder(str(FOLDER), use_folds=(0,))
    return made


def _crop() -> Volume:
    image = trial_crop(SEEDS[0]).fed("crop")
    start = (PART[0].start, PART[1].start, PART[2].start)
    size = (32, 96, 96)
    return Volume(np.ascontiguousarray(image.array[PART]), image.grid.crop(start, size))


def test_nnunets_own_predictor_gives_the_labels_of_the_default_bundle(predictor: Any, tmp_path: Path) -> None:
    crop = _crop()
    found, probabilities = predictor.predict_single_npy_array(
        crop.array[None].copy(), {"spacing": list(crop.grid.spacing)}, None, None, True
    )
    segmenter = load_segmenter(FOLDER, mirroring=True)
    assert segmenter.mirror_axes == (2,)
    ours = segmenter.probabilities(crop)
    np.testing.assert_allclose(ours, probabilities, atol=2e-3)  # nnU-Net adds its logits up in float16
    best = np.sort(ours, axis=0)[-2:]
    undecided = best[1] - best[0] < 4e-3
    assert undecided.mean() < 2e-3  # organs have borders too
    np.testing.assert_array_equal(ours.argmax(axis=0)[~undecided], found[~undecided])
    assert set(np.unique(found)) >= {0, 2}  # else any empty map would pass
