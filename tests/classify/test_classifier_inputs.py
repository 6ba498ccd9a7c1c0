"""What the classifier sees: golden data, and masks whose box is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from aiene.classify.classifier import Normalisation, classifier_inputs

GOLDEN = [(case, "legacy") for case in ("six", "padded", "border", "small_components", "shapes", "split")]
GOLDEN += [(case, normalisation) for case in ("six", "padded") for normalisation in ("none", "zscore")]


@pytest.mark.parametrize(("case", "normalisation"), GOLDEN)
def test_inputs_are_the_published_ones(golden: Path, case: str, normalisation: Normalisation) -> None:
    folder = golden / "nodes" / case
    crop = np.load(golden / json.loads((folder / "case.json").read_text())["image"])["crop"]
    masks = np.load(folder / "dilated.npz")
    wanted = np.load(folder / f"inputs_{normalisation}.npz")
    for name in masks.files:
        ours = classifier_inputs(crop, masks[name] != 0, normalisation)
        assert ours is not None
        number = name.removeprefix("node_")
        # bit for bit, but for z-scores: ours are summed in float64
        tolerance = 1e-6 if normalisation == "zscore" else 0
        np.testing.assert_allclose(ours.box, wanted[f"box_{number}"], rtol=0, atol=tolerance)
        np.testing.assert_allclose(ours.small, wanted[f"small_{number}"], rtol=0, atol=tolerance)
        assert ours.box.dtype == ours.small.dtype == np.float32


def crop_with(value: float = 0.5) -> np.ndarray:
    return np.full((64, 160, 160), value, dtype=np.float32)


def block(*spans: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((64, 160, 160), dtype=bool)
    mask[tuple(slice(*span) for span in spans)] = True
    return mask


def test_the_node_lies_in_the_middle_of_the_box_and_fills_the_small_input() -> None:
    inputs = classifier_inputs(crop_with(), block((20, 27), (50, 71), (80, 100)), "none")
    assert inputs is not None
    wanted = np.zeros((32, 118, 118), dtype=np.float32)
    # centres 23, 60 and 89.5, cut to 89, come to 16, 59 and 59
    wanted[13:20, 49:70, 50:70] = 0.5
    np.testing.assert_array_equal(inputs.box, wanted)
    np.testing.assert_array_equal(inputs.small, np.full((32, 32, 32), 0.5, dtype=np.float32))


def test_a_node_in_the_corner_is_not_filled_with_padding() -> None:
    inputs = classifier_inputs(crop_with(), block((0, 3), (0, 9), (151, 160)), "none")
    assert inputs is not None
    assert np.count_nonzero(inputs.box) == 3 * 9 * 9
    assert inputs.box.min() == 0


def test_a_node_larger_than_the_box_is_cut_off() -> None:
    inputs = classifier_inputs(crop_with(), block((0, 60), (10, 20), (10, 20)), "none")
    assert inputs is not None
    assert np.count_nonzero(inputs.box) == 32 * 10 * 10


def test_air_inside_the_mask_is_not_counted_by_the_small_inputs_frame() -> None:
    crop = crop_with(0.0)
    crop[24:26, 60:64, 90:94] = 0.7
    inputs = classifier_inputs(crop, block((20, 30), (50, 70), (80, 100)), "none")
    assert inputs is not None
    np.testing.assert_allclose(inputs.small, 0.7, atol=1e-6)


def test_legacy_lifts_the_background_and_caps_at_one() -> None:
    crop = crop_with(1.0)
    crop[:, :, :90] = 0.25
    inputs = classifier_inputs(crop, block((20, 27), (50, 71), (80, 100)), "legacy")
    assert inputs is not None
    np.testing.assert_allclose(np.unique(inputs.box), [0.001, 0.251, 1.0], rtol=1e-6)


def test_zscore_is_that_of_the_voxels_of_the_node() -> None:
    crop = np.random.default_rng(0).uniform(0.2, 0.9, (64, 160, 160)).astype(np.float32)
    mask = block((20, 27), (50, 71), (80, 100))
    inputs = classifier_inputs(crop, mask, "zscore")
    assert inputs is not None
    node = inputs.box[13:20, 49:70, 50:70]
    assert node.mean() == pytest.approx(0, abs=1e-5)
    assert node.std() == pytest.approx(1, abs=1e-5)
    assert inputs.box[0, 0, 0] == pytest.approx(-crop[mask].mean() / crop[mask].std(), rel=1e-4)


def test_zscore_of_equal_voxels_divides_by_one() -> None:
    inputs = classifier_inputs(crop_with(0.5), block((20, 27), (50, 71), (80, 100)), "zscore")
    assert inputs is not None
    np.testing.assert_allclose(np.unique(inputs.box), [-0.5, 0.0])


@pytest.mark.parametrize("normalisation", get_args(Normalisation))
def test_a_mask_over_air_alone_gives_nothing(normalisation: Normalisation) -> None:
    assert classifier_inputs(crop_with(0.0), block((20, 27), (50, 71), (80, 100)), normalisation) is None


def test_an_empty_mask_and_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        classifier_inputs(crop_with(), block((0, 0), (0, 0), (0, 0)), "none")
    with pytest.raises(ValueError, match="shape"):
        classifier_inputs(crop_with()[:32], block((0, 1), (0, 1), (0, 1)), "none")
