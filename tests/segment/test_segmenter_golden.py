"""The golden nnU-Net v1 model, imported and run, against what nnU-Net v1 itself gave."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from aiene.geometry import Volume, volume_of
from aiene.models.import_nnunet import import_segmenter
from aiene.segment import Segmenter, load_segmenter
from aiene.segment.preparation import network_input


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
    calls = []
    remembered = segmenter.scores(prepared)

    class Remembering(Segmenter):  # so that the network runs once per case
        def scores(self, prepared: object) -> np.ndarray:
            calls.append(prepared)
            return remembered

    np.testing.assert_allclose(remembered[(slice(None), *at)].T, expected["softmax"], atol=2e-5, rtol=0)
    twin = Remembering(**{name: getattr(segmenter, name) for name in segmenter.__dataclass_fields__})
    labels = twin.predict(crop)
    wanted = _read(nnunet / "golden" / f"{answer}.nii.gz").array
    assert calls
    assert labels.grid == crop.grid
    assert labels.array.dtype == np.uint8
    assert (labels.array != wanted).sum() <= 1e-4 * wanted.size
    assert (wanted > 0).any()


def _read(file: Path) -> Volume:
    return volume_of(sitk.ReadImage(str(file)))
