"""Resampling, windows and normalisation, against closed forms and other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from aiene.geometry.grid import Grid, Volume
from aiene.segment.plans import Normalisation, Resizing
from aiene.segment.preprocessing import coarse_axis, new_shape, normalised, resized
from aiene.segment.segmenter import gaussian, padding, tile_starts


@pytest.mark.parametrize(
    ("spacings", "forced", "axis"),
    [
        ([(3.0, 1.0, 1.0)], None, None),
        ([(3.0000001, 1.0, 1.0)], None, 0),
        ([(1.0, 1.0, 1.0), (1.0, 5.0, 1.0)], None, 1),
        ([(4.0, 1.0, 1.0), (1.0, 1.0, 4.0)], None, 0),
        ([(0.24, 1.25, 1.25)], None, None),
        ([(9.0, 1.0, 1.0)], False, None),
        ([(2.0, 1.0, 1.0)], True, 0),
    ],
)
def test_the_coarse_axis_is_taken_apart_only_over_three_times(
    spacings: list[tuple[float, float, float]], forced: bool | None, axis: int | None
) -> None:
    assert coarse_axis(spacings, Resizing(force_separate_z=forced)) == axis


def test_a_line_stays_a_line_when_it_is_resampled() -> None:
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32)[:, None, None], (12, 6, 6))
    for order in (1, 3):
        found = resized(ramp, (18, 6, 6), Resizing(order=order), None)
        inner = (np.arange(18) + 0.5) * 12 / 18 - 0.5
        np.testing.assert_allclose(found[4:-4, 2, 2], inner[4:-4], atol=0.02)


def test_slices_are_resized_one_by_one_and_then_by_nearest_neighbour() -> None:
    values = np.random.default_rng(0).normal(size=(6, 10, 12)).astype(np.float32)
    found = resized(values, (9, 15, 8), Resizing(order=3, order_z=0), 0)
    scale = (1, 15 / 10, 8 / 12)
    planes = np.stack(
        [ndimage.zoom(p, scale[1:], order=3, mode="nearest", grid_mode=True) for p in values.astype(float)]
    )
    clipped = np.stack([p.clip(v.min(), v.max()) for p, v in zip(planes, values, strict=True)])
    source = np.floor((np.arange(9) + 0.5) * 6 / 9 - 0.5 + 0.5).astype(int)
    np.testing.assert_allclose(found, clipped[source], atol=1e-5)


def test_sizes_are_rounded_to_the_even_number() -> None:
    assert new_shape((62, 92, 118), (2.6, 1.3, 1.3), (3.0, 1.0, 1.0)) == (54, 120, 153)
    assert new_shape((5, 7, 1), (1.0, 1.0, 1.0), (2.0, 2.0, 9.0)) == (2, 4, 1)


@given(st.integers(1, 300), st.integers(1, 128), st.floats(0.1, 1.0))
def test_tiles_cover_an_axis_without_leaving_it(size: int, patch: int, step: float) -> None:
    size = max(size, patch)
    starts = tile_starts(size, patch, step)
    assert starts[0] == 0
    assert starts[-1] == size - patch
    steps = np.diff(starts)
    assert (steps >= 0).all()
    assert (steps <= max(np.ceil(patch * step), 1)).all()


def test_tiles_lie_where_nnunet_puts_them() -> None:
    assert tile_starts(110, 64, 0.5) == [0, 23, 46]
    assert tile_starts(54, 48, 0.5) == [0, 6]
    assert tile_starts(153, 128, 0.5) == [0, 25]


def test_padding_puts_the_odd_voxel_behind() -> None:
    assert padding((64, 125, 170), (64, 160, 160)) == [(0, 0), (17, 18), (0, 0)]


def test_the_gaussian_is_that_of_nnunet() -> None:
    weight = gaussian((48, 128, 128)).numpy()
    corner = 3.775134371775124e-11  # golden/networks/nnunet/golden/openkbp.json
    assert weight[24, 64, 64] == 1
    assert weight.min() == pytest.approx(corner, rel=1e-6)
    line = np.exp(-((np.arange(128) - 64) ** 2) / (2 * 16**2))
    np.testing.assert_allclose(weight[24, 64], line, atol=1e-3)


def test_intensities_are_normalised_by_scheme() -> None:
    values = np.random.default_rng(1).normal(5, 2, (4, 5, 6)).astype(np.float32)
    ct = Normalisation(scheme="CTNormalization", low=4.0, high=7.0, mean=5.5, sd=0.5)
    found = normalised(values, ct, None)
    np.testing.assert_allclose(found, (values.clip(4, 7) - 5.5) / 0.5, rtol=1e-6)
    score = normalised(values, Normalisation(scheme="ZScoreNormalization"), None)
    np.testing.assert_allclose(score, (values - values.mean()) / values.std(), rtol=1e-5)
    inside = values > 5
    masked = normalised(values, Normalisation(scheme="ZScoreNormalization", inside_mask=True), inside)
    part = values[inside].astype(np.float64)
    np.testing.assert_allclose(masked[inside], (part - part.mean()) / part.std(), atol=1e-5)
    np.testing.assert_array_equal(masked[~inside], values[~inside])
    np.testing.assert_array_equal(normalised(values, Normalisation(scheme="NoNormalization"), None), values)


def test_a_volume_keeps_its_float32_spacing() -> None:
    """A spacing of 3 mm with the noise of matrix products is not over three times 1 mm."""
    from aiene.segment.preprocessing import network_input

    noisy = Grid((4, 4, 4), (3.0000000000004, 1.0, 1.0), (0.0, 0.0, 0.0))
    plan: Any = type(
        "P",
        (),
        {
            "forward": (0, 1, 2),
            "spacing": (2.0, 1.0, 1.0),
            "image_resizing": Resizing(order=1),
            "from_v1": False,
            "normalisation": Normalisation(scheme="NoNormalization"),
        },
    )
    prepared = network_input(Volume(np.ones((4, 4, 4), np.float32), noisy), plan)
    assert prepared.spacing == (3.0, 1.0, 1.0)
    assert prepared.image.shape == (6, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(9, 15, 8), (6, 20, 12), (3, 10, 30)])
def test_pytorchs_resampling_is_what_nnunet_does(
    size: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "unused")
    module = pytest.importorskip("nnunetv2.preprocessing.resampling.resample_torch")
    values = np.random.default_rng(0).normal(size=(6, 10, 12)).astype(np.float32)
    expected = module.resample_torch_fornnunet(
        values[None], size, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), num_threads=1, mode="nearest"
    )[0]
    found = resized(values, size, Resizing(by="torch", force_separate_z=None, mode="nearest"), None)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_pytorchs_resampling_takes_the_nearest_slice_along_a_coarse_axis() -> None:
    values = np.random.default_rng(0).normal(size=(10, 6, 12)).astype(np.float32)
    found = resized(values, (20, 9, 24), Resizing(by="torch", force_separate_z=None), 1)
    nearest = np.floor((np.arange(9) + 0.5) * 6 / 9).astype(int)
    scale = (2, 2)
    planes = np.stack(
        [ndimage.zoom(values[:, k], scale, order=1, mode="nearest", grid_mode=True) for k in range(6)], axis=1
    )
    np.testing.assert_allclose(found, planes[:, nearest], atol=1e-5)


def test_the_plan_says_over_how_many_times_an_axis_is_coarse() -> None:
    strict = Resizing(force_separate_z=None, separate_z_anisotropy_threshold=5)
    assert coarse_axis([(4.0, 1.0, 1.0)], strict) is None
    assert coarse_axis([(6.0, 1.0, 1.0)], strict) == 0


def test_rescaling_takes_an_image_to_0_and_1() -> None:
    image = np.array([[[-1024.0, 0.0, 1024.0]]], dtype=np.float32)
    found = normalised(image, Normalisation(scheme="RescaleTo01Normalization"), None)
    np.testing.assert_allclose(found, [[[0, 0.5, 1]]])
    np.testing.assert_array_equal(
        normalised(np.full((1, 1, 2), 7, np.float32), Normalisation(scheme="RescaleTo01Normalization"), None),
        0,
    )
