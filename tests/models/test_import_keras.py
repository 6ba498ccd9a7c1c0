"""Import of the Keras classifier: golden files of two Keras versions, and files that the tests write."""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy import ndimage

from aiene.classify.classifier import ClassifierInputs, load_classifier, load_dualnet
from aiene.classify.dualnet import DualNet
from aiene.errors import ModelError
from aiene.models.importers import keras as import_keras
from aiene.models.importers.keras import KerasLayer, _convolution, import_classifier
from builders.keras_writer import Builder, write

# Golden data -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def published_size(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the imported network of published size; 193 MB are unpacked on the way."""
    folder = tmp_path_factory.mktemp("dualnet")
    h5 = folder / "published.h5"
    with (
        lzma.open(golden / "networks" / "dualnet" / "0208-1531-1_DualNet.h5.xz") as packed,
        h5.open("wb") as plain,
    ):
        shutil.copyfileobj(packed, plain)
    report = import_classifier(h5, folder / "classifier")
    h5.unlink()
    assert report.parameters == 48_265_890
    assert report.max_difference <= 1e-5
    return folder / "classifier"


def golden_inputs(golden: Path) -> tuple[list[ClassifierInputs], Any]:
    arrays = np.load(golden / "networks" / "dualnet" / "golden.npz")
    box, small = (
        np.minimum(arrays[name].astype(np.float32) / np.float32(255) + np.float32(0.001), 1)
        for name in ("box_u8", "small_u8")
    )
    return [ClassifierInputs(*pair) for pair in zip(box, small, strict=True)], arrays


def logit(p: np.ndarray) -> np.ndarray:
    p = p.astype(np.float64)
    return np.log(p) - np.log1p(-p)


@pytest.mark.slow
def test_the_network_of_published_size_gives_the_original_answers(golden: Path, published_size: Path) -> None:
    inputs, arrays = golden_inputs(golden)
    classifier = load_classifier(published_size, normalisation="legacy", device="cpu")
    single = np.concatenate([classifier.probabilities([i]) for i in inputs])
    np.testing.assert_allclose(single, arrays["out"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(logit(single), logit(arrays["out"]), rtol=0, atol=5e-5)
    batch = np.concatenate([classifier.probabilities(inputs[i : i + 4]) for i in (0, 4)])
    np.testing.assert_allclose(batch, arrays["out_batch"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(batch, single)


PARTS = {
    **{f"conv{n}": f"box.conv{n}.conv" for n in ("1", "2", "3a", "3b", "4a", "4b")},
    **{f"bn{n}": f"box.conv{n}.norm" for n in ("1", "2", "3a", "3b", "4a", "4b")},
    **{f"conv{n}s": f"small.conv{n}.conv" for n in ("1", "2", "3a", "3b", "4a", "4b")},
    **{f"bn{n}s": f"small.conv{n}.norm" for n in ("1", "2", "3a", "3b", "4a", "4b")},
    **{"last_64s": "small.last.conv", "bn_last_64s": "small.last.norm", "out_class_convs": "small.value"},
    **{"dense": "box.dense1.dense", "bn5": "box.dense1.norm"},
    **{"dense_1": "box.dense2.dense", "bn6": "box.dense2.norm"},
}
"""Published layer names and the parts of ours."""


@pytest.mark.slow
def test_every_layer_gives_the_original_values(golden: Path, published_size: Path) -> None:
    inputs, arrays = golden_inputs(golden)
    net = load_dualnet(published_size)
    seen: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, given: object, result: torch.Tensor) -> None:
            last = result.movedim(1, -1)[0] if result.ndim == 5 else result[0]
            seen[name] = last.detach().double().numpy().copy()

        return hook

    for name, part in PARTS.items():
        net.get_submodule(part).register_forward_hook(keep(name))
    one = inputs[int(arrays["act_input"])]
    with torch.inference_mode():
        net(*(torch.from_numpy(i)[None, None] for i in one))
    compared = 0
    for row, label in enumerate(arrays["act_layer"]):
        name = str(label).split(":")[1]
        if name not in seen:
            continue
        ours = seen[name]
        at = arrays["act_index"][row]
        wanted = arrays["act_value"][row][at >= 0]
        scale = max(float(np.abs(arrays["act_stats"][row][2:]).max()), 1.0)
        np.testing.assert_allclose(ours.ravel()[at[at >= 0]], wanted, rtol=0, atol=2e-5 * scale, err_msg=name)
        stats = (ours.mean(), ours.std(), ours.min(), ours.max())
        np.testing.assert_allclose(stats, arrays["act_stats"][row], rtol=0, atol=2e-5 * scale, err_msg=name)
        compared += 1
    assert compared == len(PARTS)


@pytest.mark.slow
def test_a_trained_file_of_keras_24_gives_the_original_answers(golden: Path, tmp_path: Path) -> None:
    inputs, arrays = golden_inputs(golden)
    import_classifier(golden / "networks" / "dualnet" / "variant_small_trained_keras24.h5", tmp_path)
    classifier = load_classifier(tmp_path, normalisation="legacy", device="cpu")
    ours = np.concatenate([classifier.probabilities([i]) for i in inputs])
    np.testing.assert_allclose(ours, arrays["out_tiny_variant"], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_keras_215_gives_the_same_network_as_keras_24(golden: Path, tmp_path: Path) -> None:
    folder = golden / "networks" / "dualnet"
    reports = [
        import_classifier(folder / f"variant_small_trained_keras{v}.h5", tmp_path / v) for v in ("24", "215")
    ]
    assert [report.keras_version for report in reports] == ["2.4.0", "2.15.0"]
    states = [load_dualnet(tmp_path / v).state_dict() for v in ("24", "215")]
    assert [(name, t.shape) for name, t in states[0].items()] == [(n, t.shape) for n, t in states[1].items()]


# Files that the tests write --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_with_other_names_and_widths_is_imported_and_checked(tmp_path: Path) -> None:
    write(tmp_path / "model.h5")
    report = import_classifier(tmp_path / "model.h5", tmp_path / "out")
    assert report.widths.box == (2, 3, 4, 5, 6, 7)
    assert report.widths.small == (2, 3, 4, 5, 6, 7, 3)
    assert (report.widths.box_dense, report.widths.box_values, report.widths.head) == ((8, 9), 3, 5)
    assert report.max_difference < 1e-6
    assert load_dualnet(tmp_path / "out").widths == report.widths


@pytest.mark.slow
@pytest.mark.parametrize("part", ["box.conv2.conv", "small.last.conv", "box.dense1.dense", "head", "out"])
def test_the_check_finds_weights_in_the_wrong_order(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "model.h5")
    build = import_keras._network

    def mixed_up(model: Any) -> DualNet:
        net = build(model)
        weight = net.get_submodule(part).weight
        assert isinstance(weight, torch.Tensor)
        with torch.no_grad():
            weight.copy_(weight.flip(-1))
        return net

    monkeypatch.setattr(import_keras, "_network", mixed_up)
    with pytest.raises(ModelError, match="differs from the file"):
        import_classifier(tmp_path / "model.h5", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_reference_convolves_as_scipy_does() -> None:
    random = np.random.default_rng(0)
    kernel = random.standard_normal((3, 3, 3, 1, 1)).astype(np.float32)
    weights = {"kernel": kernel, "bias": np.array([0.5], dtype=np.float32)}
    x = random.standard_normal((1, 5, 6, 7, 1))
    ours = _convolution(KerasLayer("Conv3D", "c", {"padding": "same"}, ("x",), weights), [x])
    wanted = ndimage.correlate(x[0, ..., 0], kernel[..., 0, 0].astype(np.float64), mode="constant") + 0.5
    np.testing.assert_allclose(ours[0, ..., 0], wanted, atol=1e-12)


def set_config(kind: str, number: int, **settings: Any) -> Callable[[Builder], None]:
    def change(builder: Builder) -> None:
        builder.layers[builder.layer(kind, number)]["config"].update(settings)

    return change


def set_weight(kind: str, number: int, name: str, array: np.ndarray | None) -> Callable[[Builder], None]:
    def change(builder: Builder) -> None:
        weights = builder.weights[builder.layer(kind, number)]
        if array is None:
            del weights[name]
        else:
            weights[name] = array

    return change


def swap_inputs(builder: Builder) -> None:
    builder.layers[builder.layer("Concatenate")]["inbound_nodes"][0].reverse()


def lambda_layer(builder: Builder) -> None:
    layer = builder.layers[builder.layer("Flatten")]
    layer["class_name"] = "Lambda"
    layer["config"]["function"] = ["4wEAAAAAAAAAAAAAAAEAAABDAAAA", None, None]


def drop_layer(builder: Builder) -> None:
    del builder.layers[builder.layer("ZeroPadding3D")]


def dropout_ring(builder: Builder) -> None:
    first, second = builder.layer("Dropout", 0), builder.layer("Dropout", 1)
    builder.layers[first]["inbound_nodes"][0].append([second, 0, 0, {}])
    builder.layers[second]["inbound_nodes"] = [[[first, 0, 0, {}]]]


def same_name(builder: Builder) -> None:
    builder.layers["again"] = builder.layers[builder.layer("Dense")]


def end_too_early(builder: Builder) -> None:
    builder.output = builder.layer("Dense", 3)


def share_layer(builder: Builder) -> None:
    builder.add("Flatten", builder.layer("Conv3D"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_config("BatchNormalization", 0, epsilon=1e-5), "has epsilon 1e-05 instead of 0.001"),
        (set_config("LeakyReLU", 0, alpha=0.01), "has alpha 0.01 instead of 0.03"),
        (set_config("MaxPooling3D", 1, pool_size=[1, 2, 2]), "has pool_size"),
        (set_config("MaxPooling3D", 1, padding="same"), "has padding same"),
        (set_config("Conv3D", 2, dilation_rate=[2, 2, 2]), "has dilation_rate"),
        (set_config("Conv3D", 2, data_format="channels_first"), "has data_format"),
        (set_config("Dense", 0, activation="relu"), "has activation relu instead of linear"),
        (set_config("ZeroPadding3D", 0, padding=[[1, 1], [1, 1], [1, 1]]), "has padding"),
        (set_config("InputLayer", 0, batch_input_shape=[None, 32, 96, 96, 1]), "no input of 32 x 118 x 118"),
        (set_weight("Conv3D", 3, "kernel", None), "lacks its kernel"),
        (set_weight("BatchNormalization", 3, "moving_variance", None), "lacks its moving_variance"),
        (set_weight("Conv3D", 3, "kernel", np.zeros((3, 3, 4, 5), np.float32)), "is misshapen"),
        (set_weight("Conv3D", 3, "kernel", np.zeros((3, 3, 3, 9, 5), np.float32)), "is misshapen"),
        (set_weight("Conv3D", 3, "bias", np.zeros(7, np.float32)), r"is misshapen: \(7,\) instead of \(5,\)"),
        (set_weight("Dense", 0, "kernel", np.zeros((64, 8), np.float32)), "is misshapen"),
        (set_weight("Dense", 4, "kernel", np.zeros((5, 0), np.float32)), "is misshapen"),
        (set_weight("Dense", 4, "kernel", np.full((5, 2), np.nan, np.float32)), "are not finite"),
        (set_weight("Dense", 4, "kernel", np.zeros((5, 2), np.int32)), "not a plain array of numbers"),
        (swap_inputs, "does not join the small branch and the box branch"),
        (lambda_layer, "is a Lambda"),
        (drop_layer, "feeds 0 layers instead of one"),
        (dropout_ring, "is a Dropout of 2 inputs"),
        (same_name, "two layers of the model have one name"),
        (end_too_early, "is not the model's one output"),
        (share_layer, "feeds 2 layers instead of one"),
    ],
)
def test_another_architecture_is_refused_by_file_and_layer(
    tmp_path: Path, change: Callable[[Builder], None], words: str
) -> None:
    write(tmp_path / "model.h5", change)
    with pytest.raises(ModelError, match=words) as caught:
        import_classifier(tmp_path / "model.h5", tmp_path / "out")
    assert str(caught.value).startswith("model.h5: ")
    assert not (tmp_path / "out").exists()


def external_link(h5: h5py.File, kernel: str) -> None:
    h5[kernel] = h5py.ExternalLink("other.h5", "/kernel")


def soft_link(h5: h5py.File, kernel: str) -> None:
    h5[kernel] = h5py.SoftLink("/elsewhere")


def external_storage(h5: h5py.File, kernel: str) -> None:
    h5.create_dataset(kernel, (3, 3, 3, 1, 2), "f4", external=[("/etc/hostname", 0, 216)])


def virtual(h5: h5py.File, kernel: str) -> None:
    layout = h5py.VirtualLayout((3, 3, 3, 1, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "/kernel", (3, 3, 3, 1, 2))
    h5.create_virtual_dataset(kernel, layout)


def endless(h5: h5py.File, kernel: str) -> None:
    h5.create_dataset(kernel, (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")


@pytest.mark.parametrize(
    ("replace", "words"),
    [
        (external_link, "missing, or only a link"),
        (soft_link, "missing, or only a link"),
        (external_storage, "not a plain array"),
        (virtual, "not a plain array"),
        (endless, "far larger than a DualNet's"),
        (lambda h5, kernel: h5.create_group(kernel), "is not a dataset"),
    ],
)
def test_nothing_outside_the_file_is_read_and_sizes_are_bounded(
    tmp_path: Path, replace: Callable[[h5py.File, str], None], words: str
) -> None:
    builder = write(tmp_path / "model.h5")
    name = builder.layer("Conv3D")
    kernel = f"model_weights/{name}/{name}/kernel:0"
    with h5py.File(tmp_path / "model.h5", "a") as h5:
        del h5[kernel]
        replace(h5, kernel)
    with pytest.raises(ModelError, match=words):
        import_classifier(tmp_path / "model.h5", tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "no Keras model configuration"),
        ("{", "not that of a Keras 2 functional model"),
        ("[" * 50_000, "not that of a Keras 2 functional model"),
        ('{"class_name": "Sequential", "config": {}}', "not that of a Keras 2 functional model"),
    ],
)
def test_a_file_without_a_whole_model_is_refused(tmp_path: Path, config: str | None, words: str) -> None:
    write(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as h5:
        del h5.attrs["model_config"]
        if config is not None:
            h5.attrs["model_config"] = config
    with pytest.raises(ModelError, match=words):
        import_classifier(tmp_path / "model.h5", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"not HDF5", None])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "model.h5"
    if content is None:
        write(file)
        content = file.read_bytes()[: file.stat().st_size // 2]
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.h5: cannot be read as HDF5"):
        import_classifier(file, tmp_path / "out")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.h5: cannot be read"):
        import_classifier(tmp_path / "absent.h5", tmp_path / "out")
