"""Segmentation metrics against values computed by hand, and what is said of empty masks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from math import sqrt

import numpy as np
import numpy.typing as npt
import pytest

from aiene.benchmark.metrics.segmentation import (
    aggregated_dice,
    case_metrics,
    label_metrics,
)
from aiene.benchmark.records import SEGMENTATION_METRICS, LabelMetrics, goodness, higher_is_better
from aiene.errors import UsageError

SPACING = (3.0, 1.0, 1.0)
OVERLAPS = ("dice", "iou", "surface_dice_1mm", "surface_dice_2mm")


def _cube(z: int = 2, y: int = 2, x: int = 2, *, label: int = 2, side: int = 4) -> npt.NDArray[np.uint8]:
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[z : z + side, y : y + side, x : x + side] = label
    return labels


def test_a_perfect_prediction_is_perfect_in_every_metric() -> None:
    found = label_metrics(_cube(), _cube(), SPACING, label=2)
    assert [getattr(found, name) for name in OVERLAPS] == [1.0] * 4
    assert (found.hd95_mm, found.assd_mm, found.volume_error_ml, found.volume_error_relative) == (0, 0, 0, 0)
    assert found.truth_ml == pytest.approx(0.192)  # 64 voxels of 3 mm3
    assert found.reason == ""


def test_a_shift_of_one_voxel_along_the_thick_axis_gives_what_is_computed_by_hand() -> None:
    """Of 56 face voxels 16 are 3 mm away and 4 are 1 mm away, in both directions."""
    found = label_metrics(_cube(), _cube(z=3), SPACING, label=2)
    assert found.dice == 2 * 48 / 128
    assert found.iou == 48 / 80
    assert found.hd95_mm == 3.0
    assert found.assd_mm == pytest.approx((16 * 3 + 4 * 1) / 56)
    cap = 9 + 12 * sqrt(0.5**2 + 1.5**2) + 4 * sqrt(0.25**2 + 2 * 0.75**2) / 2  # faces, edges, corners in mm2
    whole = 2 * cap + 3 * (12 * 3 + 4 * 3 * sqrt(0.5))  # and three rows of sides
    assert found.surface_dice_1mm == pytest.approx(1 - (cap + 1) / whole)  # the far cap, and one middle
    assert found.surface_dice_2mm == pytest.approx(1 - cap / whole)
    assert found.volume_error_ml == 0


def test_a_shift_of_one_voxel_in_plane_gives_what_is_computed_by_hand() -> None:
    found = label_metrics(_cube(), _cube(x=3), SPACING, label=2)
    assert (found.dice, found.iou, found.hd95_mm) == (0.75, 0.6, 1.0)
    assert found.assd_mm == pytest.approx(20 / 56)
    assert (found.surface_dice_1mm, found.surface_dice_2mm) == (1.0, 1.0)  # a distance of 1 mm is within 1 mm


def test_a_larger_prediction_has_a_positive_error_of_volume() -> None:
    found = label_metrics(_cube(side=2), _cube(side=4), SPACING, label=2)
    assert found.volume_error_ml == pytest.approx((64 - 8) * 3 / 1000)
    assert found.volume_error_relative == 7.0
    back = label_metrics(_cube(side=4), _cube(side=2), SPACING, label=2)
    assert back.volume_error_relative == pytest.approx(-7 / 8)


def test_where_nothing_is_predicted_overlap_is_0_and_the_distance_for_the_cohort_the_diagonal() -> None:
    found = label_metrics(_cube(), np.zeros_like(_cube()), SPACING, label=2)
    diagonal = sqrt((9 * 3) ** 2 + 11**2 + 13**2)
    assert [getattr(found, name) for name in OVERLAPS] == [0.0] * 4
    assert (found.hd95_mm, found.assd_mm) == (None, None)
    assert found.cohort_value("hd95_mm") == found.cohort_value("assd_mm") == pytest.approx(diagonal)
    assert found.volume_error_relative == -1.0
    assert "nothing predicted" in found.reason


def test_what_is_predicted_where_the_truth_is_empty_counts_as_nothing_right() -> None:
    found = label_metrics(np.zeros_like(_cube()), _cube(), SPACING, label=2)
    assert [getattr(found, name) for name in OVERLAPS] == [0.0] * 4
    assert found.hd95_mm is None
    assert found.cohort_value("hd95_mm") == found.worst_mm
    assert found.volume_error_relative is None
    assert found.volume_error_ml == pytest.approx(0.192)
    assert "nothing in the truth" in found.reason


def test_where_both_are_empty_there_is_no_number_and_a_reason() -> None:
    empty = np.zeros_like(_cube())
    found = label_metrics(empty, empty, SPACING, label=2)
    undefined = [name for name in SEGMENTATION_METRICS if name != "volume_error_ml"]
    assert [getattr(found, name) for name in undefined] == [None] * 7
    assert found.volume_error_ml == 0.0
    assert found.reason == "absent in truth and prediction"


def test_swapped_labels_have_no_overlap() -> None:
    truth = np.maximum(_cube(label=2), _cube(z=6, x=8, label=1))
    swapped = np.array([0, 2, 1], np.uint8)[truth]
    found = case_metrics(truth, swapped, SPACING)
    assert [one.label for one in found.labels] == [1, 2]
    assert [one.dice for one in found.labels] == [0.0, 0.0]
    assert all(one.hd95_mm is not None and one.hd95_mm > 6 for one in found.labels)
    assert found.nodes.pairs == ()


def test_metrics_do_not_change_when_truth_and_prediction_change_places() -> None:
    truth, found = _cube(), _cube(z=3, y=4)
    one, two = (label_metrics(a, b, SPACING, label=2) for a, b in ((truth, found), (found, truth)))
    for name in (*OVERLAPS, "hd95_mm", "assd_mm"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), abs=1e-12)


def test_masks_at_the_edge_of_the_array_have_a_surface_there() -> None:
    full = np.ones((3, 4, 5), np.uint8)
    found = label_metrics(full, full, SPACING, label=1)
    assert (found.dice, found.hd95_mm, found.surface_dice_1mm) == (1.0, 0.0, 1.0)


def test_a_single_voxel_has_metrics() -> None:
    one, two = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    one[1, 1, 1] = two[1, 1, 3] = 1
    found = label_metrics(one, two, (1, 1, 0.5), label=1)
    assert (found.dice, found.hd95_mm, found.assd_mm) == (0.0, 1.0, 1.0)
    assert found.surface_dice_1mm == 1.0


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.float32, np.float64])
def test_the_type_of_the_array_does_not_matter(dtype: npt.DTypeLike) -> None:
    found = label_metrics(_cube().astype(dtype), _cube(z=3), SPACING, label=2)
    assert found == label_metrics(_cube(), _cube(z=3), SPACING, label=2)


def test_bools_are_label_1() -> None:
    assert label_metrics(_cube() > 0, _cube(z=3) > 0, SPACING, label=1).dice == 0.75


@pytest.mark.parametrize(
    ("truth", "prediction", "spacing", "said"),
    [
        (_cube(), _cube()[:-1], SPACING, "one grid"),
        (_cube(), _cube() * 0.3, SPACING, "fractions"),
        (_cube(), np.full(_cube().shape, np.nan), SPACING, "NaN"),
        (_cube(), np.full(_cube().shape, np.inf), SPACING, "infinite"),
        (_cube(), _cube().astype(np.int16) - 1000, SPACING, "negative"),
        (_cube(), np.full(_cube().shape, "a"), SPACING, "not labels"),
        (_cube()[0], _cube()[0], SPACING, "three axes"),
        (_cube()[..., None], _cube()[..., None], SPACING, "three axes"),
        (np.zeros((0, 3, 3)), np.zeros((0, 3, 3)), SPACING, "voxels"),
        (_cube(), _cube(), (3, 1), "spacing"),
        (_cube(), _cube(), (0, 1, 1), "spacing"),
        (_cube(), _cube(), (np.nan, 1, 1), "spacing"),
        (_cube(), _cube(), (-3, 1, 1), "spacing"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(
    truth: npt.NDArray[np.uint8], prediction: npt.ArrayLike, spacing: tuple[float, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        case_metrics(truth, prediction, spacing)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_a_map_of_nodes_on_another_grid_is_refused() -> None:
    with pytest.raises(UsageError, match="one grid"):
        case_metrics(_cube(), _cube(), SPACING, predicted_nodes=_cube()[1:])
    with pytest.raises(UsageError, match="confidences"):
        case_metrics(_cube(), _cube(), SPACING, confidences={1: 0.5})


def test_aggregated_dice_is_the_sum_of_intersections_over_the_sum_of_sizes() -> None:
    cases = [
        label_metrics(_cube(), _cube(z=3), SPACING, label=2),  # 48 shared of 64 and 64
        label_metrics(_cube(), np.zeros_like(_cube()), SPACING, label=2),  # 0 of 64 and 0
        label_metrics(np.zeros_like(_cube()), np.zeros_like(_cube()), SPACING, label=2),
        label_metrics(np.zeros_like(_cube()), _cube(side=2), SPACING, label=2),  # 0 of 0 and 8
    ]
    found = aggregated_dice(cases)
    assert found.value == pytest.approx(2 * 48 / (128 + 64 + 8))
    assert found.n == 4
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 0.75 + 1e-9  # type: ignore[operator]


def test_aggregated_dice_counts_volumes_where_spacings_differ() -> None:
    good = label_metrics(_cube(), _cube(), (1, 1, 1), label=2)
    bad = label_metrics(_cube(), np.zeros_like(_cube()), (2, 1, 1), label=2)
    assert aggregated_dice([good, bad]).value == pytest.approx(2 * 64 / (128 + 128))


def test_without_the_label_in_any_case_aggregated_dice_is_a_reason() -> None:
    nothing = label_metrics(_cube(), _cube(), SPACING, label=9)
    for cases in ([nothing, nothing], []):
        assert aggregated_dice(cases).value is None
        assert aggregated_dice(cases).reason


def test_one_case_has_an_aggregated_dice_but_no_interval() -> None:
    found = aggregated_dice([label_metrics(_cube(), _cube(z=3), SPACING, label=2)])
    assert found.value == pytest.approx(0.75)
    assert (found.low, found.reason) == (None, "one patient only, so no interval")


def test_a_metric_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(UsageError, match=r"dice2 is not a segmentation metric; .* hd95_mm"):
        label_metrics(_cube(), _cube(), SPACING, label=2).cohort_value("dice2")


def test_every_record_is_json_without_nan() -> None:
    for prediction in (_cube(), np.zeros_like(_cube())):
        found = case_metrics(_cube(), prediction, SPACING)
        text = json.dumps(asdict(found), allow_nan=False)
        assert LabelMetrics(**json.loads(text)["labels"][0]) == found.labels[0]


def test_the_arrays_given_are_left_as_they_were() -> None:
    truth, prediction = _cube(), _cube(z=3)
    truth.flags.writeable = prediction.flags.writeable = False
    case_metrics(truth, prediction, SPACING)


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("dice", True),
        ("gtvn_surface_dice_2mm", True),
        ("auc", True),
        ("sensitivity", True),
        ("hd95_mm", False),
        ("GTVp_assd_mm", False),
        ("brier", False),
        ("false_per_case", False),
        ("wall_seconds", False),
        ("peak_memory_mb", False),
        ("volume_error_ml", None),
        ("calibration_slope", None),
    ],
)
def test_the_better_way_of_each_metric_is_known(name: str, direction: bool | None) -> None:
    assert higher_is_better(name) is direction


def test_what_is_best_near_a_value_is_ordered_by_its_distance() -> None:
    assert goodness("volume_error_ml", -0.1) > goodness("volume_error_ml", 0.5)
    assert goodness("calibration_slope", 1.1) > goodness("calibration_slope", 0.2)
    assert goodness("hd95_mm", 2) > goodness("hd95_mm", 3)


def test_records_cannot_be_changed() -> None:
    found = label_metrics(_cube(), _cube(), SPACING, label=2)
    with pytest.raises(AttributeError):
        found.dice = 0.5  # type: ignore[misc]
    assert replace(found, dice=0.5) != found
