"""Model folders that are not what they should be: one sentence, and nothing is run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aiene.errors import ModelError
from aiene.segment.network import answer, empty_network, read_checkpoint
from aiene.segment.plans import read_plan
from aiene.segment.segmenter import load_segmenter

Make = Callable[..., tuple[Path, list[nn.Module]]]


class Marker:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_wants_to_run_code_is_refused_unrun(
    make_model: Make, tmp_path: Path, zipped: bool
) -> None:
    folder, _ = make_model()
    marker = tmp_path / "marker"
    file = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": Marker(marker)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"checkpoint_final.pth: .*not opened"):
        load_segmenter(folder)
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists()  # it would have run


def test_training_histories_of_numpy_numbers_are_read(tmp_path: Path) -> None:
    file = tmp_path / "c.pth"
    torch.save({"ema": np.float64(0.5), "dice": [np.float32(0.25), np.arange(3)]}, file)
    content = read_checkpoint(file)
    assert content["ema"] == 0.5
    assert content["dice"][0] == 0.25
    assert content["dice"][1].tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 broken", b"\x80\x02]."])
def test_a_file_that_is_no_checkpoint_is_named(make_model: Make, content: bytes) -> None:
    folder, _ = make_model()
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"^checkpoint_final\.pth: "):
        load_segmenter(folder)


def test_a_truncated_checkpoint_is_named(make_model: Make) -> None:
    folder, _ = make_model()
    file = folder / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ModelError, match="damaged"):
        load_segmenter(folder)


def _without(weights: dict[str, torch.Tensor]) -> None:
    del weights["decoder.transpconvs.0.weight"]


def _with_more(weights: dict[str, torch.Tensor]) -> None:
    weights["decoder.attention.weight"] = torch.zeros(3)


def _misshapen(weights: dict[str, torch.Tensor]) -> None:
    weights["decoder.seg_layers.1.weight"] = torch.zeros(5, 4, 1, 1, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without, r"lacks the weights: decoder\.transpconvs\.0\.weight"),
        (_with_more, r"does not know: decoder\.attention\.weight"),
        (_misshapen, r"another shape: decoder\.seg_layers\.1\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    make_model: Make, change: Callable[[dict[str, torch.Tensor]], None], words: str
) -> None:
    folder, _ = make_model()
    file = folder / "fold_0" / "checkpoint_final.pth"
    saved = torch.load(file, weights_only=True)
    change(saved["network_weights"])
    torch.save(saved, file)
    with pytest.raises(ModelError, match=words):
        load_segmenter(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"arguments": {"conv_op": "os.system"}},
            r"^plans\.json: its conv_op os.system is not known",
        ),
        ({"arguments": {"nonlin": ["torch.nn.ReLU"]}}, "nonlin .* is not known"),
        ({"arguments": {"surprise": 1}}, "unknown argument surprise"),
        ({"arguments": {"n_stages": 10**9}}, "n_stages is not a plausible number"),
        ({"arguments": {"n_conv_per_stage": [2, 10**9, 2]}}, "n_conv_per_stage is not a plausible number"),
        ({"plans": {"transpose_forward": [1, 2, 0]}}, "do not undo each other"),
        ({"plans": {"transpose_forward": [0, 1, 7]}}, "transpose_forward"),
        ({"configuration": {"spacing": [float("nan"), 1.0, 1.0]}}, "spacing"),
        ({"arguments": {"features_per_stage": [4, 8]}}, "describes no network"),
        ({"configuration": {"patch_size": [15, 30, 30]}}, "describes no network that fits its patch"),
        ({"configuration": {"patch_size": [32, 32], "spacing": [1.0, 1.0]}}, "two-dimensional"),
        ({"configuration": {"previous_stage": "3d_lowres"}}, "cascade"),
        ({"configuration": {"resampling_fn_data": "resample_torch_simple"}}, "resample_torch_simple"),
        ({"configuration": {"resampling_fn_data_kwargs": {"order": 3, "sharpen": 1}}}, "an argument sharpen"),
        ({"configuration": {"resampling_fn_data_kwargs": {"order": "three"}}}, "order"),
        ({"plans": {"foreground_intensity_properties_per_channel": {"0": {"mean": "x"}}}}, "intensities"),
        ({"configuration": {"normalization_schemes": ["RGBTo01Normalization"]}}, "RGBTo01"),
        ({"configuration": {"spacing": "wide"}}, "spacing"),
        ({"configuration": {"inherits_from": "3d_fullres"}}, "circle"),
        ({"configuration": {"inherits_from": "absent"}}, "no configuration named absent"),
        ({"plans": {"foreground_intensity_properties_per_channel": {}}}, "intensities"),
        ({"dataset": {"channel_names": {"0": "CT", "1": "PET"}}}, "2 images at a time"),
        ({"dataset": {"labels": {"background": 0, "tumor": [1, 2], "node": 2}}}, r"regions .*\(tumor\)"),
        ({"dataset": {"labels": {"background": 0, "GTVn": 2}}}, "do not count up"),
        ({"checkpoint": {"init_args": {}}}, "which configuration"),
        ({"checkpoint": {"network_weights": {"a": "b"}}}, "not a tensor"),
        ({"checkpoint": {"network_weights": None}}, "no weights"),
    ],
)
def test_a_model_that_cannot_be_run_is_refused_in_a_sentence(
    make_model: Make, changes: dict[str, Any], words: str
) -> None:
    folder, _ = make_model(**changes)
    with pytest.raises(ModelError, match=words):
        load_segmenter(folder)


def test_an_unknown_network_class_is_never_imported(make_model: Make) -> None:
    folder, _ = make_model()
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "antigravity.Network"
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match=r"antigravity\.Network is not known"):
        load_segmenter(folder)


def test_plans_that_are_not_json_are_named(make_model: Make) -> None:
    folder, _ = make_model()
    (folder / "plans.json").write_text("{")
    with pytest.raises(ModelError, match=r"plans\.json: is not JSON"):
        load_segmenter(folder)


def test_the_level_of_trainer_and_plans_may_be_left_out_where_it_is_the_only_one(
    make_model: Make, tmp_path: Path
) -> None:
    make_model(folder="set/nnUNetTrainer__nnUNetPlans__3d_fullres")
    assert load_segmenter(tmp_path / "set").plan.patch == (16, 32, 32)
    make_model(folder="set/nnUNetTrainer__nnUNetPlans__3d_lowres")
    with pytest.raises(ModelError, match="several trained models"):
        load_segmenter(tmp_path / "set")
    with pytest.raises(ModelError, match=r"no plans\.json"):
        load_segmenter(tmp_path)


def test_a_fold_that_is_absent_is_named(make_model: Make) -> None:
    folder, _ = make_model()
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth: cannot be read"):
        load_segmenter(folder, folds=(0, 3))


def test_plans_of_older_versions_are_understood(make_model: Make) -> None:
    older = {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 320,
        "n_conv_per_stage_encoder": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    }
    folder, _ = make_model(configuration=older)
    new = load_segmenter(folder)
    plans = json.loads((folder / "plans.json").read_text())
    del plans["configurations"]["3d_fullres"]["architecture"]
    (folder / "plans.json").write_text(json.dumps(plans))
    assert load_segmenter(folder).networks[0].state_dict().keys() == new.networks[0].state_dict().keys()


PLAIN, RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"


@pytest.mark.parametrize(
    ("kind", "arguments", "patch"),
    [
        (PLAIN, {}, [16, 32, 32]),
        (PLAIN, {}, [18, 36, 20]),
        (PLAIN, {}, [15, 32, 32]),
        (PLAIN, {}, [2, 4, 4]),  # leaves one voxel, which cannot be normalised
        (PLAIN, {"strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}, [8, 8, 8]),
        (PLAIN, {"strides": [[1, 1, 1], [3, 2, 2], [2, 1, 2]]}, [12, 8, 8]),
        (PLAIN, {"strides": [[2, 2, 2], [1, 2, 2], [2, 2, 2]]}, [16, 32, 32]),
        (PLAIN, {"kernel_sizes": [[1, 2, 2], [3, 3, 3], [3, 3, 3]]}, [16, 32, 32]),
        (PLAIN, {"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 9, 9]]}, [16, 16, 16]),
        (PLAIN, {"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 8, 8]]}, [16, 16, 16]),
        (PLAIN, {"norm_op": None, "norm_op_kwargs": None}, [2, 4, 4]),
        (PLAIN, {"norm_op": "torch.nn.BatchNorm3d", "nonlin": "torch.nn.ReLU"}, [2, 4, 4]),
        (PLAIN, {"dropout_op": "torch.nn.Dropout3d", "dropout_op_kwargs": {"p": 0.1}}, [16, 32, 32]),
        (RESIDUAL, {}, [16, 32, 32]),
        (RESIDUAL, {}, [15, 32, 32]),
    ],
)
def test_a_patch_fits_where_torch_itself_can_run_it(
    make_model: Make, kind: str, arguments: dict[str, Any], patch: list[int]
) -> None:
    plan = read_plan(
        make_model(kind, arguments=arguments, configuration={"patch_size": patch})[0], "3d_fullres"
    )
    try:
        network = empty_network(plan)
    except ModelError:
        network = None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("aiene.segment.network._SizesAlone", nullcontext)  # torch's own meta device
        try:
            expected = empty_network(plan)
        except ModelError:
            assert network is None
            return
    assert network is not None
    numbers = {name: torch.zeros(tensor.shape) for name, tensor in expected.state_dict().items()}
    network.load_state_dict(numbers, assign=True)
    assert answer(network, torch.zeros((1, 1, *patch))).shape[:2] == (1, 3)


@pytest.mark.slow
def test_a_model_is_loaded_without_the_compiler_of_torch() -> None:
    """It takes a second of each process, and nothing here is compiled."""
    code = (
        "import sys; from aiene.models.bundle import default_folder as home;"
        "from aiene.segment.segmenter import load_segmenter; load_segmenter(home() / 'segmenter');"
        "print('torch._dynamo' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
