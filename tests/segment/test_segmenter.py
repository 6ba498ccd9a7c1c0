"""The segmenter on small models with random weights, against plain evaluations written here."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from scipy import ndimage
from torch import nn

from aiene.errors import CaseError
from aiene.geometry.grid import Grid, Volume
from aiene.models.bundle import find_bundle
from aiene.segment.network import answer
from aiene.segment.segmenter import load_bundle_segmenter, load_segmenter, pieces_with_core

Make = Callable[..., tuple[Path, list[nn.Module]]]
PATCH = (16, 32, 32)


def crop_of(
    size: tuple[int, int, int] = PATCH, spacing: tuple[float, float, float] = (3.0, 1.0, 1.0)
) -> Volume:
    values = np.random.default_rng(5).uniform(0.01, 1, size).astype(np.float32)
    return Volume(values, Grid(size, spacing, (-7.0, 3.0, 50.0)))


def ct(values: np.ndarray) -> np.ndarray:
    return ((np.clip(values, 0.05, 0.95) - 0.6) / 0.2).astype(np.float32)


def logits_of(network: nn.Module, image: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return network(torch.from_numpy(np.ascontiguousarray(image))[None, None])[0]


def softmax_of(network: nn.Module, image: np.ndarray) -> np.ndarray:
    return torch.softmax(logits_of(network, image), 0).numpy()


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_a_crop_of_one_patch_gives_what_the_network_says_of_it(make_model: Make, kind: str) -> None:
    folder, (network,) = make_model(kind)
    crop = crop_of()
    found = load_segmenter(folder).probabilities(crop)
    expected = softmax_of(network, ct(crop.array))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected, axis=(1, 2, 3)).max() > 0.3  # else any constant would pass
    labels = load_segmenter(folder)(crop)
    np.testing.assert_array_equal(labels.array, expected.argmax(0))
    assert labels.grid == crop.grid
    assert labels.array.dtype == np.uint8


def test_auxiliary_labels_are_left_out_of_label_maps_but_not_of_the_contest(make_model: Make) -> None:
    """A voxel that is most like an organ is background, not the next best tumour; probabilities stay."""
    folder, (network,) = make_model("PlainConvUNet")
    crop = crop_of()
    plain = load_segmenter(folder)
    winner = softmax_of(network, ct(crop.array)).argmax(0)
    organ = int(np.bincount(winner.ravel())[1:].argmax()) + 1
    node = 3 - organ  # the other of the two classes that are no background
    segmenter = load_segmenter(folder, labels={"GTVn": node})
    labels = segmenter(crop).array
    assert (winner == organ).any()
    np.testing.assert_array_equal(labels, np.where(winner == node, 2, 0))
    np.testing.assert_array_equal(segmenter.probabilities(crop), plain.probabilities(crop))


def test_an_offset_of_the_nodes_is_as_if_it_stood_in_the_last_bias(make_model: Make) -> None:
    """Labels and probabilities agree, and only the class that is the node moves."""
    folder, (network,) = make_model("PlainConvUNet")
    crop = crop_of()
    logits = logits_of(network, ct(crop.array)).numpy()
    logits[1] += 1.5
    moved = load_segmenter(folder, labels={"GTVn": 1, "GTVp": 2}, node_offset=-1.5)
    expected = torch.softmax(torch.from_numpy(logits), 0).numpy()
    np.testing.assert_allclose(moved.probabilities(crop), expected, atol=1e-5)
    np.testing.assert_array_equal(moved(crop).array == 2, logits.argmax(0) == 1)
    plain = load_segmenter(folder, labels={"GTVn": 1, "GTVp": 2})(crop).array
    assert (moved(crop).array == 2).sum() > (plain == 2).sum()


@pytest.mark.parametrize("from_v1", [False, True])
def test_pieces_without_a_core_are_background_and_all_else_stays(make_model: Make, from_v1: bool) -> None:
    """Against a reconstruction by dilation, here with logits of both kinds of model; probabilities stay."""
    folder, (network,) = make_model(plans={"aiene_origin": "nnunet_v1"} if from_v1 else {})
    crop = crop_of()
    names = {"GTVn": 1, "GTVp": 2}
    logits = logits_of(network, ct(crop.array)).numpy()
    lead = logits[1] - np.maximum(logits[0], logits[2])
    border, high = (float(q) for q in np.quantile(lead, (0.98, 0.995)))  # so that several pieces are called
    core = high - border
    plain = load_segmenter(folder, labels=names, node_offset=border)
    expected = plain(crop).array.copy()
    kept = ndimage.binary_propagation(lead > high, np.ones((3, 3, 3)), expected == 2)
    expected[(expected == 2) & ~kept] = 0
    assert 0 < kept.sum() < (plain(crop).array == 2).sum()
    with_cores = load_segmenter(folder, labels=names, node_offset=border, cores={"GTVn": core})
    np.testing.assert_array_equal(with_cores(crop).array, expected)
    labels, probabilities = with_cores.look(crop)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(probabilities, plain.probabilities(crop))


def test_a_piece_is_what_touches_at_a_corner_and_stays_whole() -> None:
    lead = np.full((3, 5, 9), -1.0)
    lead[0, 0, 0:2], lead[1, 1, 2] = 0.5, 4.0  # joined by a corner
    lead[1, 3, 6:9] = 3.0
    kept = pieces_with_core(lead > 0, lead, 3.5)
    np.testing.assert_array_equal(np.argwhere(kept), [[0, 0, 0], [0, 0, 1], [1, 1, 2]])
    np.testing.assert_array_equal(pieces_with_core(lead > 0, lead, 0.0), lead > 0)
    assert not pieces_with_core(lead > 5, lead, 0.0).any()


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_the_lean_evaluation_is_that_of_the_network_to_the_bit(make_model: Make, kind: str) -> None:
    _, (network,) = make_model(kind)
    tile = torch.randn((1, 1, *PATCH), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        assert torch.equal(answer(network, tile), network(tile))


def test_a_smaller_crop_is_padded_after_normalisation_with_the_odd_voxel_behind(make_model: Make) -> None:
    folder, (network,) = make_model()
    crop = crop_of((15, 29, 32))
    padded = np.zeros(PATCH, np.float32)
    padded[0:15, 1:30] = ct(crop.array)
    expected = softmax_of(network, padded)[:, 0:15, 1:30]
    np.testing.assert_allclose(load_segmenter(folder).probabilities(crop), expected, atol=1e-5)


@pytest.mark.parametrize("from_v1", [False, True])
def test_tiles_are_blended_with_gaussian_weights(make_model: Make, from_v1: bool) -> None:
    folder, (network,) = make_model(plans={"aiene_origin": "nnunet_v1"} if from_v1 else {})
    crop = crop_of((20, 32, 56))
    image = ct(crop.array)
    centre = [n // 2 for n in PATCH]
    axes = [
        np.exp(-((np.arange(n) - c) ** 2) / (2 * (n / 8) ** 2)) for n, c in zip(PATCH, centre, strict=True)
    ]
    weight = axes[0][:, None, None] * axes[1][:, None] * axes[2]
    total, weights = np.zeros((3, 20, 32, 56)), np.zeros((20, 32, 56))
    for z, x in itertools.product((0, 4), (0, 12, 24)):
        at = (slice(z, z + 16), slice(None), slice(x, x + 32))
        said = logits_of(network, image[at])
        total[(slice(None), *at)] += (torch.softmax(said, 0) if from_v1 else said).numpy() * weight
        weights[at] += weight
    mean = total / weights
    expected = mean if from_v1 else torch.softmax(torch.from_numpy(mean), 0).numpy()
    # the reference's Gaussian is exact, nnU-Net's is cut off at 4 sigma: 5e-4 at the most
    np.testing.assert_allclose(load_segmenter(folder).probabilities(crop), expected, atol=5e-4)


def test_folds_are_averaged(make_model: Make) -> None:
    folder, networks = make_model(seeds=(1, 2))
    crop = crop_of()
    mean = (logits_of(networks[0], ct(crop.array)) + logits_of(networks[1], ct(crop.array))) / 2
    found = load_segmenter(folder, folds=(0, 1)).probabilities(crop)
    np.testing.assert_allclose(found, torch.softmax(mean, 0).numpy(), atol=1e-5)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2,), None])
@pytest.mark.slow
def test_mirroring_averages_over_flips_along_the_allowed_axes(
    make_model: Make, axes: tuple[int, ...] | None
) -> None:
    folder, (network,) = make_model(checkpoint={"inference_allowed_mirroring_axes": axes})
    crop = crop_of()
    image, answers = ct(crop.array), []
    for count in range(len(axes or ()) + 1):
        for chosen in itertools.combinations(axes or (), count):
            said = logits_of(network, np.flip(image, chosen)).numpy()
            answers.append(np.flip(said, tuple(a + 1 for a in chosen)))
    expected = torch.softmax(torch.from_numpy(np.mean(answers, axis=0)), 0).numpy()
    found = load_segmenter(folder, mirroring=True).probabilities(crop)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    unmirrored = load_segmenter(folder).probabilities(crop)
    assert (np.abs(unmirrored - expected).max() > 0.01) == bool(axes)


def test_axes_are_transposed_and_back(make_model: Make) -> None:
    folder, (network,) = make_model(
        plans={"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]},
        configuration={"spacing": [1.0, 2.0, 3.0]},
    )
    crop = crop_of((32, 32, 16), (2.0, 3.0, 1.0))
    expected = softmax_of(network, ct(crop.array).transpose(2, 0, 1)).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(load_segmenter(folder).probabilities(crop), expected, atol=1e-5)


def test_outside_the_nonzero_box_everything_is_background(make_model: Make) -> None:
    folder, (network,) = make_model()
    small = crop_of()
    values = np.zeros((20, 40, 40), np.float32)
    values[2:18, 3:35, 5:37] = small.array
    values[8:10, 10:20, 10:20] = 0  # a hole does not count
    crop = Volume(values, Grid((20, 40, 40), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    found = load_segmenter(folder).probabilities(crop)
    expected = np.zeros((3, 20, 40, 40), np.float32)
    expected[0] = 1
    expected[:, 2:18, 3:35, 5:37] = softmax_of(network, ct(values[2:18, 3:35, 5:37]))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_kernels_widened_with_zeros_give_the_same_numbers(make_model: Make) -> None:
    """The widened kernels of a v1 model are cut down again when it is loaded."""
    folder, (narrow,) = make_model(arguments={"kernel_sizes": [[3, 3, 3]] * 3})
    wide = PlainConvUNet(
        1, 3, [4, 8, 16], nn.Conv3d, 3, [[1, 1, 1], [1, 2, 2], [2, 2, 2]], 2, 3, 2,
        True, nn.InstanceNorm3d, {"eps": 1e-5, "affine": True}, None, None, nn.LeakyReLU,
    )  # fmt: skip
    weights = {}
    for name, weight in narrow.state_dict().items():
        spare = wide.state_dict()[name].shape[2] - weight.shape[2] if weight.ndim == 5 else 0
        weights[name] = torch.nn.functional.pad(weight, [0] * 4 + [spare // 2] * 2) if spare else weight
    file = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=True), "network_weights": weights}, file)
    segmenter, crop = load_segmenter(folder), crop_of()
    np.testing.assert_allclose(segmenter.probabilities(crop), softmax_of(narrow, ct(crop.array)), atol=1e-5)
    kernels = {m.kernel_size for m in segmenter.networks[0].modules() if isinstance(m, nn.Conv3d)}
    assert (1, 3, 3) in kernels


def test_a_model_that_was_saved_in_half_precision_runs_in_single(make_model: Make) -> None:
    folder, (network,) = make_model()
    file = folder / "fold_0" / "checkpoint_final.pth"
    saved = torch.load(file, weights_only=True)
    torch.save({**saved, "network_weights": {n: w.half() for n, w in network.state_dict().items()}}, file)
    expected = softmax_of(network.half().float(), ct(crop_of().array))
    np.testing.assert_allclose(load_segmenter(folder).probabilities(crop_of()), expected, atol=1e-5)


def test_the_same_crop_gives_the_same_bytes_and_is_left_as_it_was(make_model: Make) -> None:
    folder, _ = make_model()
    crop = crop_of((20, 40, 40))
    before = crop.array.copy()
    segmenter = load_segmenter(folder)
    assert segmenter.probabilities(crop).tobytes() == segmenter.probabilities(crop).tobytes()
    np.testing.assert_array_equal(crop.array, before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize("from_v1", [False, True])
def test_the_answer_has_the_same_bytes_at_any_number_of_threads(
    make_model: Make, kind: str, from_v1: bool
) -> None:
    folder, _ = make_model(kind, plans={"aiene_origin": "nnunet_v1"} if from_v1 else {})
    segmenter, crop = load_segmenter(folder), crop_of()
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3, 5, 8):
            torch.set_num_threads(threads)
            found.add(segmenter.probabilities(crop).tobytes())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.slow
def test_the_default_segmenter_gives_the_same_bytes_at_any_number_of_threads() -> None:
    network = load_bundle_segmenter(find_bundle("default")).networks[0]
    tile = torch.rand((1, 1, 64, 160, 160), generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            alone = answer(network, tile)
            torch.set_num_threads(3)
            assert torch.equal(answer(network, tile), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("value", "word"), [(0.0, "zero"), (np.nan, "not numbers")])
def test_a_crop_without_a_patient_is_no_case(make_model: Make, value: float, word: str) -> None:
    folder, _ = make_model()
    crop = Volume(np.full(PATCH, value, np.float32), Grid(PATCH, (3.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    with pytest.raises(CaseError, match=word):
        load_segmenter(folder).predict(crop)
