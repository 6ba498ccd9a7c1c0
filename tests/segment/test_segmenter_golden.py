"""The golden nnU-Net v1 model, imported and run, against what nnU-Net v1 itself gave."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from aiene.geometry.grid import Volume, volume_of
from aiene.models.importers.bundle import import_segmenter
from aiene.segment.preprocessing import network_input
from aiene.segment.segmenter import Segmenter, load_segmenter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sliding(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    target = tmp_path_factory.mktemp("sliding") / "segmenter"
    import_segmenter(golden / "networks" / "nnunet" / "nnUNet" / "Task501_ENE", target)
    return load_segmenter(target)


@pytest.fixture(scope="module")
def single(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    home = tmp_path_factory.mktemp("single")
    source, nnunet = home / "source", golden / "networks" / "nnunet"
    (source / "fold_0").mkdir(parents=True)
    for name in ("plans.pkl", "fold_0/model_final_checkpoint.model.pkl"):
        shutil.copyfile(nnunet / "single_tile" / name, source / name)
    name = "fold_0/model_final_checkpoint.model"
    shutil.copyfile(nnunet / "nnUNet" / "Task501_ENE" / name, source / name)
    import_segmenter(source, home / "segmenter")
    return load_segmenter(home / "segmenter")


@pytest.mark.parametrize("case", ["phantom", "openkbp", "spacing"])
def test_the_sliding_window_gives_what_nnunet_v1_gave(golden: Path, sliding: Segmenter, case: str) -> None:
    _agrees(golden / "networks" / "nnunet", sliding, case, case)


@pytest.mark.parametrize("case", ["phantom", "openkbp"])
def test_one_tile_gives_what_nnunet_v1_gave(golden: Path, single: Segmenter, case: str) -> None:
    _agrees(golden / "networks" / "nnunet", single, case, f"{case}_single_tile")


def _agrees(nnunet: Path, segmenter: Segmenter, case: str, answer: str) -> None:
    crop = _read(nnunet / "inputs" / f"{case}_0000.nii.gz")
    expected = np.load(nnunet / "golden" / f"{answer}.npz")
    at = tuple(expected["index_zyx"].T.astype(int))
    prepared = network_input(crop, segmenter.plan)
    if "network_input" in expected:
        np.testing.assert_allclose(prepared.image[at], expected["network_input"], atol=1e-5, rtol=0)
    softmax = segmenter.scores(prepared)
    np.testing.assert_allclose(softmax[(slice(None), *at)].T, expected["softmax"], atol=2e-5, rtol=0)
    labels = segmenter.labels(prepared, softmax)
    wanted = _read(nnunet / "golden" / f"{answer}.nii.gz")
    assert labels.dtype == np.uint8
    assert labels.shape == crop.array.shape
    assert (labels != wanted.array).sum() <= 1e-4 * wanted.array.size
    assert (wanted.array > 0).any()


def _read(file: Path) -> Volume:
    return volume_of(sitk.ReadImage(str(file)))
