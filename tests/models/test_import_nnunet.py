"""nnU-Net v1 models into v2's layout: made here with random weights, and the golden files."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from aiene.errors import ModelError
from aiene.geometry.grid import Grid, Volume
from aiene.models.importers import nnunet
from aiene.models.importers.bundle import Choices, import_segmenter
from aiene.segment.segmenter import load_segmenter

FEATURES = (4, 8, 16)
STRIDES = ([1, 2, 2], [2, 2, 2])
KERNELS = ([1, 3, 3], [3, 3, 3], [3, 3, 3])
CHECKPOINT = "model_final_checkpoint.model"
PATCH = (16, 32, 32)


def v1_weights(seed: int, convs: int = 2) -> OrderedDict[str, torch.Tensor]:
    """Random weights under the names of nnunet 1.7's Generic_UNet, from its documented structure."""
    numbers = torch.Generator().manual_seed(seed)
    weights: OrderedDict[str, torch.Tensor] = OrderedDict()

    def block(name: str, into: int, out: int, kernel: list[int]) -> None:
        weights[f"{name}.conv.weight"] = torch.randn((out, into, *kernel), generator=numbers)
        for leaf in ("conv.bias", "instnorm.weight", "instnorm.bias"):
            weights[f"{name}.{leaf}"] = torch.randn(out, generator=numbers)

    def stack(part: str, into: int, out: int, count: int, kernel: list[int]) -> None:
        for number in range(count):
            block(f"{part}.blocks.{number}", into if number == 0 else out, out, kernel)

    for level, out in enumerate(FEATURES[:-1]):
        stack(f"conv_blocks_context.{level}", (1, *FEATURES)[level], out, convs, KERNELS[level])
    stack("conv_blocks_context.2.0", FEATURES[1], FEATURES[2], convs - 1, KERNELS[2])
    stack("conv_blocks_context.2.1", FEATURES[2], FEATURES[2], 1, KERNELS[2])
    for step in range(2):
        below, skip, kernel = FEATURES[2 - step], FEATURES[1 - step], KERNELS[2 - step]
        weights[f"tu.{step}.weight"] = torch.randn((below, skip, *STRIDES[1 - step]), generator=numbers)
        stack(f"conv_blocks_localization.{step}.0", 2 * skip, skip, convs - 1, kernel)
        stack(f"conv_blocks_localization.{step}.1", skip, skip, 1, kernel)
        weights[f"seg_outputs.{step}.weight"] = torch.randn((3, skip, 1, 1, 1), generator=numbers)
    return weights


def v1_plans(**changes: Any) -> dict[str, Any]:
    stage = {
        "batch_size": 2,
        "num_pool_per_axis": [1, 2, 2],
        "patch_size": np.array(PATCH),
        "current_spacing": np.array([3.0, 1.0, 1.0]),
        "pool_op_kernel_sizes": list(STRIDES),
        "conv_kernel_sizes": list(KERNELS),
    }
    intensities = {"mean": np.float32(0.6), "sd": np.float32(0.2), "median": 0.6, "mn": 0.0, "mx": 1.0}
    intensities |= {"percentile_00_5": np.float64(0.05), "percentile_99_5": np.float64(0.95)}
    return {
        "num_modalities": 1,
        "modalities": {0: "CT"},
        "normalization_schemes": OrderedDict({0: "CT"}),
        "dataset_properties": {"intensityproperties": OrderedDict({0: intensities})},
        "num_classes": 2,
        "all_classes": [1, 2],
        "base_num_features": 4,
        "use_mask_for_norm": OrderedDict({0: False}),
        "keep_only_largest_region": None,
        "transpose_forward": [np.int64(0), 1, 2],
        "transpose_backward": [0, 1, 2],
        "conv_per_stage": 2,
        "plans_per_stage": {0: stage},
        **changes,
    }


@pytest.fixture
def make_v1(tmp_path: Path) -> Callable[..., Path]:
    """Builder of a v1 model folder in the published flat layout."""

    def make(
        seeds: tuple[int, ...] = (0,),
        *,
        folder: str = "Task501_ENE",
        trainer: str = "nnUNetTrainerV2",
        change: Callable[[OrderedDict[str, torch.Tensor]], object] = len,
        convs: int = 2,
        **plans: Any,
    ) -> Path:
        home = tmp_path / folder
        content = v1_plans(conv_per_stage=convs, **plans)
        for fold, seed in enumerate(seeds):
            file = home / f"fold_{fold}" / CHECKPOINT
            file.parent.mkdir(parents=True)
            weights = v1_weights(seed, convs)
            change(weights)
            torch.save({"epoch": 1, "state_dict": weights, "best_stuff": (1, np.float64(0.5))}, file)
            info = {"init": ("p", fold, "o", "d", False, 0, True, False, True), "name": trainer}
            Path(f"{file}.pkl").write_bytes(pickle.dumps({**info, "class": "c", "plans": content}))
        (home / "plans.pkl").write_bytes(pickle.dumps(content))
        return home

    return make


def crop() -> Volume:
    values = np.random.default_rng(2).uniform(0.01, 1, (20, 40, 40)).astype(np.float32)
    return Volume(values, Grid(values.shape, (3.0, 1.0, 1.0), (0.0, 0.0, 0.0)))


@pytest.mark.slow
def test_a_v1_model_becomes_a_v2_model_with_the_same_numbers(
    make_v1: Callable[..., Path], tmp_path: Path
) -> None:
    report = import_segmenter(make_v1(seeds=(3, 4)), tmp_path / "segmenter")
    assert report.source == "nnunet_v1"
    assert report.folds == (0, 1)
    assert report.labels == {"background": 0, "GTVp": 1, "GTVn": 2}
    assert report.parameters == sum(w.numel() for w in v1_weights(3).values())
    assert report.max_softmax_difference is not None
    assert report.max_softmax_difference < 1e-5
    tile = torch.randn((1, 1, *PATCH), generator=torch.Generator().manual_seed(9))
    plan = nnunet.read_plan(tmp_path / "Task501_ENE" / "fold_0" / f"{CHECKPOINT}.pkl")
    for fold, seed in enumerate((3, 4)):
        network = load_segmenter(tmp_path / "segmenter", folds=(fold,)).networks[0]
        expected = nnunet.forward(v1_weights(seed), plan, tile)
        torch.testing.assert_close(network(tile), expected, atol=1e-4, rtol=1e-5)
    assert np.unique(load_segmenter(tmp_path / "segmenter", folds=(0, 1))(crop()).array).size == 3


@pytest.mark.slow
def test_names_beside_a_v1_model_count_and_without_them_it_is_the_published_one(
    make_v1: Callable[..., Path], tmp_path: Path
) -> None:
    home = make_v1()
    report = import_segmenter(home, tmp_path / "a")
    assert report.chosen.labels == {"GTVp": 1, "GTVn": 2}
    assert "its files name no labels" in str(report)
    said = import_segmenter(home, tmp_path / "b", Choices(nodes_label="1", primary_label="none"))
    assert said.chosen.labels == {"GTVn": 1}
    names = {"0": "background", "1": "lymph_node", "2": "tumor"}
    (home / "dataset.json").write_text(json.dumps({"modality": {"0": "CT"}, "labels": names}))
    named = import_segmenter(home, tmp_path / "c")
    assert named.chosen.labels == {"GTVn": 1, "GTVp": 2}
    assert "its files name no labels" not in str(named)
    (home / "dataset.json").write_text(
        json.dumps({"modality": {"0": "CT"}, "labels": {"0": "b", "1": "node"}})
    )
    with pytest.raises(ModelError, match="names 1 labels, but the network has 2"):
        import_segmenter(home, tmp_path / "d")


@pytest.mark.slow
def test_nnunet_v2s_own_class_takes_the_imported_weights(
    make_v1: Callable[..., Path], tmp_path: Path
) -> None:
    """As nnU-Net v2 builds it from plans.json, with the full kernels."""
    import_segmenter(make_v1(), tmp_path / "segmenter")
    plans = json.loads((tmp_path / "segmenter" / "plans.json").read_text())
    block = plans["configurations"]["3d_fullres"]["architecture"]
    arguments = block["arch_kwargs"] | {
        "conv_op": nn.Conv3d,
        "norm_op": nn.InstanceNorm3d,
        "nonlin": nn.LeakyReLU,
    }
    assert set(block["_kw_requires_import"]) == {"conv_op", "norm_op", "dropout_op", "nonlin"}
    assert arguments["kernel_sizes"] == [[3, 3, 3]] * 3
    network = PlainConvUNet(1, num_classes=3, deep_supervision=True, **arguments).eval()
    saved = torch.load(tmp_path / "segmenter" / "fold_0" / "checkpoint_final.pth", weights_only=True)
    network.load_state_dict(saved["network_weights"], strict=True)
    assert saved["trainer_name"] == "nnUNetTrainer"
    assert saved["init_args"]["configuration"] == "3d_fullres"
    assert saved["inference_allowed_mirroring_axes"] == [0, 1, 2]
    tile = torch.randn((1, 1, *PATCH), generator=torch.Generator().manual_seed(9))
    plan = nnunet.read_plan(tmp_path / "Task501_ENE" / "fold_0" / f"{CHECKPOINT}.pkl")
    expected = nnunet.forward(v1_weights(0), plan, tile)
    torch.testing.assert_close(network(tile)[0], expected, atol=1e-4, rtol=1e-5)


def test_three_convolutions_per_level_are_kept(make_v1: Callable[..., Path], tmp_path: Path) -> None:
    report = import_segmenter(make_v1(convs=3), tmp_path / "segmenter")
    assert report.parameters == sum(w.numel() for w in v1_weights(0, 3).values())


@pytest.mark.parametrize(
    "nesting", ["", "nnUNet/3d_fullres/Task501_ENE/nnUNetTrainerV2__nnUNetPlansv2.1", "nnUNet/Task501_ENE"]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_flat_and_nested_folders_and_zips_of_them_are_found(
    make_v1: Callable[..., Path], tmp_path: Path, nesting: str, zipped: bool
) -> None:
    make_v1(folder=f"source/{nesting}")
    source = tmp_path / "source"
    if zipped:
        source = Path(shutil.make_archive(str(tmp_path / "model"), "zip", source))
    report = import_segmenter(source, tmp_path / "segmenter")
    assert report.folds == (0,)
    assert sorted(p.name for p in (tmp_path / "segmenter").iterdir()) == [
        "dataset.json",
        "fold_0",
        "plans.json",
    ]


@pytest.mark.slow
def test_a_v2_model_is_copied_byte_for_byte(make_v1: Callable[..., Path], tmp_path: Path) -> None:
    import_segmenter(make_v1(seeds=(0, 1)), tmp_path / "v2")
    (tmp_path / "v2" / "progress.png").write_bytes(b"not needed")
    report = import_segmenter(tmp_path / "v2", tmp_path / "copy")
    assert (report.source, report.folds, report.max_softmax_difference) == ("nnunet_v2", (0, 1), None)
    for name in ("plans.json", "dataset.json", "fold_1/checkpoint_final.pth"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "v2" / name).read_bytes()
    assert not (tmp_path / "copy" / "progress.png").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("tu.0.weight"), r"lacks the weights for decoder\.transpconvs\.0\.weight"),
        (
            lambda w: w.pop("conv_blocks_context.1.blocks.1.conv.bias"),
            r"encoder\.stages\.1\.0\.convs\.1\.conv\.bias",
        ),
        (
            lambda w: w.update({"attention.weight": torch.zeros(1)}),
            r"no part of the network takes: attention\.weight",
        ),
        (
            lambda w: w.update({"conv_blocks_context.0.blocks.0.instnorm.running_mean": torch.zeros(4)}),
            "running_mean",
        ),
        (
            lambda w: w.update({"seg_outputs.1.weight": torch.zeros(4, 4, 1, 1, 1)}),
            r"shape \(4, 4, 1, 1, 1\) where decoder\.seg_layers\.1\.weight takes \(3, 4, 1, 1, 1\)",
        ),
        (lambda w: w.update({"tu.1.weight": "text"}), "not a tensor"),
        (lambda w: w.clear(), "no weights"),
        (
            lambda w: w.update({"tu.1.weight": torch.full((8, 4, 1, 2, 2), torch.nan)}),
            r"tu\.1\.weight holds values that are not numbers",
        ),
    ],
)
def test_weights_that_are_missing_left_over_or_misshapen_are_named(
    make_v1: Callable[..., Path], tmp_path: Path, change: Callable[[Any], object], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        import_segmenter(make_v1(change=change), tmp_path / "segmenter")
    assert [p.name for p in tmp_path.iterdir()] == ["Task501_ENE"]  # nothing half made is left


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainer": "nnUNetTrainerV2_ReLU"}, "trainer nnUNetTrainerV2_ReLU may build another"),
        ({"trainer": "nnUNetTrainerV2CascadeFullRes"}, "may build another"),
        ({"num_modalities": 2}, "2 images at a time"),
        ({"normalization_schemes": {0: "CT2"}}, "cannot be brought over"),
        ({"use_mask_for_norm": {0: True}}, "cannot be brought over"),
        ({"all_classes": [1, 3]}, "do not count up"),
        ({"plans_per_stage": {}}, "not what nnU-Net v1 leaves"),
        ({"base_num_features": 5}, "where .* takes"),
    ],
)
def test_a_v1_model_that_cannot_come_over_is_refused_in_a_sentence(
    make_v1: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        import_segmenter(make_v1(**changes), tmp_path / "segmenter")


def test_folds_of_different_plans_are_refused(make_v1: Callable[..., Path], tmp_path: Path) -> None:
    home = make_v1(seeds=(0, 1))
    file = home / "fold_1" / f"{CHECKPOINT}.pkl"
    info = pickle.loads(file.read_bytes())  # noqa: S301
    info["plans"]["plans_per_stage"][0]["patch_size"] = np.array([32, 32, 32])
    file.write_bytes(pickle.dumps(info))
    with pytest.raises(ModelError, match="plans differ from those of fold_0"):
        import_segmenter(home, tmp_path / "segmenter")


def test_plans_that_count_other_modalities_are_refused(make_v1: Callable[..., Path], tmp_path: Path) -> None:
    home = make_v1()
    (home / "plans.pkl").write_bytes(pickle.dumps({"num_modalities": 2}))
    with pytest.raises(ModelError, match="modalities is not that of the checkpoint"):
        import_segmenter(home, tmp_path / "segmenter")


class Marker:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["plans.pkl", f"fold_0/{CHECKPOINT}.pkl", f"fold_0/{CHECKPOINT}"])
def test_no_file_of_a_stranger_runs_code(make_v1: Callable[..., Path], tmp_path: Path, name: str) -> None:
    home, marker = make_v1(), tmp_path / "marker"
    if name.endswith(".pkl"):
        (home / name).write_bytes(pickle.dumps({"num_modalities": 1, "x": Marker(marker)}))
    else:
        torch.save({"state_dict": Marker(marker)}, home / name)
    with pytest.raises(ModelError, match=f"^{Path(name).name}: .*not opened"):
        import_segmenter(home, tmp_path / "segmenter")
    assert not marker.exists()


def _zip(file: Path, entries: dict[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file


def _link() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo("plans.pkl")
    link.external_attr = 0o120777 << 16
    return link


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("../outside.pkl", "lie outside"),
        ("/tmp/outside.pkl", "lie outside"),
        ("C:\\outside.pkl", "lie outside"),
        ("a\\..\\..\\outside.pkl", "lie outside"),
        (_link(), "holds a link"),
    ],
)
def test_a_zip_that_reaches_outside_is_refused(
    tmp_path: Path, entry: str | zipfile.ZipInfo, words: str
) -> None:
    home = tmp_path / "in"
    home.mkdir()
    with pytest.raises(ModelError, match=words):
        import_segmenter(_zip(home / "model.zip", {entry: b"x"}), home / "segmenter")
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "model.zip"]


def test_a_zip_bomb_is_refused_by_what_it_announces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiene.ingest.read.MOST_BYTES", 1000)
    with pytest.raises(ModelError, match="far too large"):
        import_segmenter(_zip(tmp_path / "model.zip", {"plans.pkl": bytes(2000)}), tmp_path / "segmenter")


def test_a_file_that_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"no zip")
    with pytest.raises(ModelError, match=r"^model\.zip: is not a ZIP file"):
        import_segmenter(tmp_path / "model.zip", tmp_path / "segmenter")


def test_an_empty_folder_and_a_folder_of_several_models_are_refused(
    make_v1: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no trained nnU-Net model"):
        import_segmenter(tmp_path / "empty", tmp_path / "segmenter")
    make_v1(folder="two/a")
    make_v1(folder="two/b")
    with pytest.raises(ModelError, match="several trained models"):
        import_segmenter(tmp_path / "two", tmp_path / "segmenter")


def test_a_target_with_something_in_it_is_left_alone(make_v1: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "segmenter").mkdir()
    (tmp_path / "segmenter" / "mine").touch()
    with pytest.raises(ModelError, match="is there already"):
        import_segmenter(make_v1(), tmp_path / "segmenter")
    assert (tmp_path / "segmenter" / "mine").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "container", ["legacy_not_zip_cuda_optimizer", "zip_cuda_optimizer", "zip_module_prefix"]
)
def test_checkpoints_of_gpu_machines_and_older_versions_are_read(
    golden: Path, tmp_path: Path, container: str
) -> None:
    """The three hold the same weights; the first is compared with the others through its sum."""
    home = golden / "networks" / "nnunet" / "containers"
    fold = tmp_path / "source" / "fold_0"
    fold.mkdir(parents=True)
    shutil.copyfile(home / f"{container}.model", fold / CHECKPOINT)
    shutil.copyfile(home / "all_three.model.pkl", fold / f"{CHECKPOINT}.pkl")
    plan = nnunet.read_plan(fold / f"{CHECKPOINT}.pkl")
    (fold.parent / "plans.pkl").write_bytes(pickle.dumps({"num_modalities": plan.modalities}))
    report = import_segmenter(fold.parent, tmp_path / "segmenter")
    weights = nnunet.read_weights(fold / CHECKPOINT)
    reference = nnunet.read_weights(home / "zip_cuda_optimizer.model")
    assert weights.keys() == reference.keys()
    assert all(torch.equal(weights[name], reference[name]) for name in weights)
    assert report.max_softmax_difference is not None
    assert report.max_softmax_difference < 1e-5
