"""The segmenter's training: nnU-Net itself, on the road's crops, into a bundle; a kill costs nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import OutputError, UsageError
from aiene.geometry.grid import Volume
from aiene.geometry.resample import pull_labels
from aiene.models.bundle import default_folder, read_bundle, verify_bundle
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.preprocess import profile
from aiene.preprocess.preprocess import load_preparation
from aiene.results.nifti import write_nifti
from aiene.segment.segmenter import load_segmenter
from aiene.training.dataset import Step, crop_of, find_pairs, prepared_crops, read_crop
from aiene.training.nnunet import failure, splits_of
from aiene.training.place import claim
from aiene.training.segmenter import SegmenterTraining, export_dataset, train_segmenter
from builders.shrunk_bundle import PATCH, shrunk_bundle

pytestmark = pytest.mark.slow

pytest.importorskip("nnunetv2", reason="nnU-Net is not installed (the extra `train`)")
SMALL = PhantomSettings(size=(70, 110, 110), spacing=(4.0, 2.4, 2.4), nodes=(2, 3), tilt_degrees=2.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose segmenter trains in a moment; its card names an organ, as one with organs would."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    shrunk_bundle(folder)
    return folder


def training(clinic: Path, tiny: Path, out: Path, **changes: Any) -> SegmenterTraining:
    given: dict[str, Any] = {"epochs": 2, "iterations": 2, "start_from": str(tiny), **changes}
    return SegmenterTraining(clinic / "ct", clinic / "labels", out, **given)


def with_crops(clinic: Path, out: Path, *, without: str = "") -> Path:
    """A place to export to where the crops, but for one, are made already."""
    claim(out / ".crops")
    shutil.copytree(clinic / "crops", out / ".crops", dirs_exist_ok=True)
    (out / ".crops" / f"{without}.npz").unlink(missing_ok=True)
    return out


def weights(bundle: Path, fold: int = 0) -> dict[str, torch.Tensor]:
    content = torch.load(bundle / "segmenter" / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)
    tensors: dict[str, torch.Tensor] = content["network_weights"]
    return tensors


@pytest.fixture(scope="module")
def trained(clinic: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Step]]:
    """A training from beginning to end, and what it told."""
    out = tmp_path_factory.mktemp("trained") / "mine"
    work = out.with_name("mine.training")
    claim(work)
    shutil.copytree(clinic / "crops", work / "crops")
    steps: list[Step] = []
    train_segmenter(training(clinic, tiny, out), steps.append)
    return out, steps


def test_contours_become_a_bundle_that_runs(trained: tuple[Path, list[Step]], clinic: Path) -> None:
    out, steps = trained
    bundle = read_bundle(out)
    verify_bundle(bundle)
    facts = bundle.card.provenance["segmenter"]
    assert (facts["patients"], facts["cases"], facts["epochs"]) == (5, 5, 2)
    assert facts["validation"]["GTVn"]["n"] >= 1
    assert facts["started_from"].startswith("tiny")
    assert bundle.card.segmenter.auxiliary == {}  # the contours know no organs
    assert "GTVn" in (out / "README.md").read_text()
    segmenter = load_segmenter(bundle.segmenter_folder)
    crop = crop_of(find_pairs(clinic / "ct", clinic / "labels")[0], load_preparation(bundle))
    assert set(np.unique(segmenter(crop.image).array)) <= {0, 1, 2}
    assert [s.done for s in steps if s.stage == "train"] == [1, 2]
    assert list((out.with_name("mine.training") / "tensorboard").rglob("events.out.tfevents*"))


def test_the_start_is_the_other_bundles_plan_and_weights(
    trained: tuple[Path, list[Step]], tiny: Path
) -> None:
    out, steps = trained
    taken = next(s.said for s in steps if s.stage == "weights")
    assert taken["new"] == 0
    assert taken["taken"] == len(weights(out))
    before = weights(tiny)
    assert any(not torch.equal(learned, before[name]) for name, learned in weights(out).items())
    plans = json.loads((out / "segmenter" / "plans.json").read_text())["configurations"]["3d_fullres"]
    assert plans["patch_size"] == list(PATCH)
    assert plans["normalization_schemes"] == ["NoNormalization"]


def test_a_training_that_was_killed_goes_on_to_the_same_weights(
    trained: tuple[Path, list[Step]], clinic: Path, tiny: Path, tmp_path: Path
) -> None:
    whole = trained[0]
    work = tmp_path / "cut.training"
    shutil.copytree(whole.with_name("mine.training"), work)
    shutil.rmtree(work / "nnUNet_results")

    def killed(step: Step) -> None:
        if step.stage == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_segmenter(training(clinic, tiny, tmp_path / "cut"), killed)
    assert not (tmp_path / "cut").exists()
    steps: list[Step] = []
    train_segmenter(training(clinic, tiny, tmp_path / "cut", go_on=True), steps.append)
    assert [s.done for s in steps if s.stage == "train"][-1] == 2
    assert next(s.said for s in steps if s.stage == "start")["epoch"] >= 1
    ours, theirs = weights(tmp_path / "cut"), weights(whole)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


def test_changed_labels_or_settings_are_not_trained_on_with_old_work(
    trained: tuple[Path, list[Step]], clinic: Path, tiny: Path, tmp_path: Path
) -> None:
    work = tmp_path / "mine.training"
    shutil.copytree(trained[0].with_name("mine.training"), work)
    with pytest.raises(UsageError, match=r"other data or settings \(different: epochs\)"):
        train_segmenter(training(clinic, tiny, tmp_path / "mine", epochs=3))
    (work / "dataset.sha256").write_text("0" * 64)
    with pytest.raises(UsageError, match="have changed since"):
        train_segmenter(training(clinic, tiny, tmp_path / "mine", go_on=True))
    with pytest.raises(UsageError, match="leave --continue out"):
        train_segmenter(training(clinic, tiny, tmp_path / "new", go_on=True))


def test_the_dataset_is_nnunets_and_holds_what_inference_sees(clinic: Path, tmp_path: Path) -> None:
    out = with_crops(clinic, tmp_path / "out", without="p2")
    dataset = export_dataset(SegmenterTraining(clinic / "ct", clinic / "labels", out))
    assert dataset.folder == tmp_path / "out" / "Dataset501_ENE"
    content = json.loads((dataset.folder / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "GTVp": 1, "GTVn": 2}
    assert content["numTraining"] == len(list((dataset.folder / "labelsTr").iterdir())) == 5
    pair = find_pairs(clinic / "ct", clinic / "labels")[2]
    crop = crop_of(pair, load_preparation(read_bundle(default_folder())))
    image = nib.load(dataset.folder / "imagesTr" / "p2_0000.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32).transpose(2, 1, 0), crop.image.array)
    native = pull_labels(crop.labels, crop.native, crop.to_native.inverse())
    truth = nib.load(pair.label).get_fdata().transpose(2, 1, 0) == 2
    both = np.count_nonzero((native.array == 2) & truth)
    assert 2 * both / (np.count_nonzero(native.array == 2) + np.count_nonzero(truth)) > 0.8


def test_no_patient_is_in_both_halves_of_a_split() -> None:
    patients = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}
    splits = splits_of(patients, {"a": 0, "b": 1, "c": 0})
    assert splits == [
        {"train": ["b1"], "val": ["a1", "a2", "c1"]},
        {"train": ["a1", "a2", "c1"], "val": ["b1"]},
    ]


def test_a_ct_without_a_neck_is_left_out_and_named_and_the_command_says_so(
    clinic: Path, tmp_path: Path
) -> None:
    images, labels = tmp_path / "ct", tmp_path / "labels"
    shutil.copytree(clinic / "ct", images)
    shutil.copytree(clinic / "labels", labels)
    phantom = make_phantom(940_009, SMALL)
    hu = phantom.ct.array.copy()
    hu[hu > 100] = 40  # no bone
    write_nifti(Volume(hu, phantom.ct.grid), images / "q_0000.nii.gz")
    write_nifti(phantom.labels, labels / "q.nii.gz")
    out = with_crops(clinic, tmp_path / "o")
    line = ["train", "segmenter", "--images", str(images), "--labels", str(labels), "-o", str(out)]
    done = CliRunner().invoke(app, [*line, "--export-dataset", "-d", "cpu"])
    assert done.exit_code == 1, done.output
    assert "left out: q:" in done.output
    assert len(list((out / "Dataset501_ENE" / "imagesTr").iterdir())) == 5


def test_crops_are_kept_and_made_anew_where_the_labels_change(clinic: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    shutil.copytree(clinic / "labels", labels)
    pairs = find_pairs(clinic / "ct", labels)[:1]
    preparation = load_preparation(read_bundle(default_folder()))
    (file,), _ = prepared_crops(pairs, preparation, tmp_path / "crops", "x")
    first = file.stat().st_mtime_ns
    prepared_crops(pairs, preparation, tmp_path / "crops", "x")
    assert file.stat().st_mtime_ns == first
    image = nib.load(pairs[0].label)
    smaller = np.asarray(image.dataobj).copy()
    smaller[:, :, : int(np.argwhere(smaller)[:, 2].mean())] = 0
    nib.save(nib.Nifti1Image(smaller, image.affine), pairs[0].label)
    before = read_crop(file, "p")
    prepared_crops(pairs, preparation, tmp_path / "crops", "x")
    assert not np.array_equal(read_crop(file, "p").labels.array, before.labels.array)


def test_crops_of_another_preparation_are_made_anew(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = find_pairs(clinic / "ct", clinic / "labels")[:1]
    preparation = load_preparation(read_bundle(default_folder()))
    (file,), _ = prepared_crops(pairs, preparation, tmp_path / "crops", "x")
    first = file.stat().st_mtime_ns
    monkeypatch.setattr("aiene.preprocess.profile.PREPARATION", profile.PREPARATION + 1)
    prepared_crops(pairs, preparation, tmp_path / "crops", "x")
    second = file.stat().st_mtime_ns
    assert second != first
    prepared_crops(pairs, preparation, tmp_path / "crops", "x")
    assert file.stat().st_mtime_ns == second


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "nnunet.log").write_text("...\nOSError: [Errno 28] No space left on device\n")
    error = failure(tmp_path / "nnunet.log", 1)
    assert isinstance(error, OutputError)
    assert "the disk is full; free some space, and continue with --continue" in str(error)
