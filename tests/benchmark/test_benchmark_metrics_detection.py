"""Nodes matched one to one, counted, and read along the free-response curve."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import combinations, permutations, product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from aiene.benchmark.metrics.nodes import components, detection, froc, match_nodes, one_to_one
from aiene.benchmark.records import NodeMatch, NodePair, size_class
from aiene.errors import UsageError

SPACING = (3.0, 1.0, 1.0)
Nodes = npt.NDArray[np.uint8]


def _nodes(*rows: tuple[int, int], value: int = 1) -> Nodes:
    """Nodes 4 x 4 in section, from and to the given places along x, numbered from `value`."""
    nodes = np.zeros((6, 8, 40), np.uint8)
    for number, (start, end) in enumerate(rows, start=value):
        nodes[1:5, 2:6, start:end] = number
    return nodes


def _match(truth: Nodes, predicted: Nodes, *confidences: float, iou_threshold: float = 0.3) -> NodeMatch:
    given = dict(enumerate(confidences, start=1))
    return match_nodes(truth, predicted, SPACING, iou_threshold=iou_threshold, confidences=given)


def test_the_same_nodes_under_other_numbers_are_all_found() -> None:
    found = _match(_nodes((0, 5), (10, 16)), _nodes((0, 5), (10, 16), value=7)[::1])
    assert found.pairs == (NodePair(1, 7, 1.0, 1.0), NodePair(2, 8, 1.0, 1.0))
    assert found.missed == found.false == found.splits == found.merges == ()


def test_overlap_is_counted_as_by_hand() -> None:
    found = _match(_nodes((0, 6)), _nodes((2, 8)))  # 4 of 6 and 6 columns are shared
    assert found.pairs == (NodePair(1, 1, 4 / 8, 8 / 12),)


@pytest.mark.parametrize(("threshold", "n_pairs"), [(0.5, 1), (0.500001, 0), (0.1, 1), (1.0, 0)])
def test_a_pair_at_the_threshold_itself_can_match(threshold: float, n_pairs: int) -> None:
    found = _match(_nodes((0, 6)), _nodes((2, 8)), iou_threshold=threshold)
    assert len(found.pairs) == n_pairs
    assert found.missed == found.false == (() if n_pairs else (1,))


def test_two_parts_of_one_node_are_one_hit_one_false_node_and_a_split() -> None:
    found = _match(_nodes((0, 10)), _nodes((0, 6), (6, 10)))
    assert [(p.truth, p.predicted) for p in found.pairs] == [(1, 1)]
    assert found.false == (2,)
    assert (found.splits, found.merges) == ((1,), ())


def test_one_node_over_two_is_one_hit_one_missed_and_a_merge() -> None:
    found = _match(_nodes((0, 6), (6, 10)), _nodes((0, 10)))
    assert [(p.truth, p.predicted) for p in found.pairs] == [(1, 1)]
    assert found.missed == (2,)
    assert (found.splits, found.merges) == ((), (1,))


def test_a_node_that_lies_mostly_outside_is_no_part_of_a_split() -> None:
    found = _match(_nodes((0, 10)), _nodes((0, 6), (8, 20)))
    assert found.splits == ()


def test_the_matching_takes_as_many_pairs_as_can_be_before_the_best_overlap() -> None:
    """True 1 with predicted 1 (IoU 0.9) would leave true 2 without its only candidate."""
    candidates = [NodePair(1, 1, 0.9, 0.95), NodePair(1, 2, 0.31, 0.5), NodePair(2, 1, 0.4, 0.6)]
    assert [(p.truth, p.predicted) for p in one_to_one(candidates)] == [(1, 2), (2, 1)]


def _every_matching(candidates: list[NodePair]) -> tuple[int, float]:
    """The most pairs, then the largest sum of IoU, by trying all sets of pairs."""
    best = (0, 0.0)
    for size in range(1, len(candidates) + 1):
        for chosen in combinations(candidates, size):
            if len({p.truth for p in chosen}) == len({p.predicted for p in chosen}) == size:
                best = max(best, (size, sum(p.iou for p in chosen)))
    return best


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(11, 14), st.floats(0.05, 1)),
        max_size=9,
        unique_by=lambda c: c[:2],
    )
)
def test_the_matching_is_the_best_of_all(pairs: list[tuple[int, int, float]]) -> None:
    candidates = [NodePair(truth, found, iou, iou) for truth, found, iou in pairs]
    chosen = one_to_one(candidates)
    assert len({p.truth for p in chosen}) == len({p.predicted for p in chosen}) == len(chosen)
    size, total = _every_matching(candidates)
    assert len(chosen) == size
    assert sum(p.iou for p in chosen) == pytest.approx(total)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000))
def test_overlaps_are_those_of_each_pair_of_masks(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, predicted = (
        ndimage.zoom(random.choice([0, 0, 3, 8, 200], (3, 4, 5)).astype(np.uint8), 2, order=0)
        for _ in range(2)
    )
    predicted = np.roll(predicted, 1, axis=2)
    found = match_nodes(truth, predicted, SPACING, iou_threshold=0.05)
    expected = {}
    for one, two in product(np.unique(truth[truth > 0]), np.unique(predicted[predicted > 0])):
        shared = ((truth == one) & (predicted == two)).sum()
        iou = shared / ((truth == one) | (predicted == two)).sum()
        if iou >= 0.05:
            expected[int(one), int(two)] = iou
    assert {(p.truth, p.predicted): p.iou for p in found.candidates} == pytest.approx(expected)
    assert sum(n.volume_ml for n in found.truth) == pytest.approx((truth > 0).sum() * 3 / 1000)


@pytest.mark.parametrize(
    ("short", "name"),
    [(0, "<10 mm"), (9.99, "<10 mm"), (10, "10-15 mm"), (15, "10-15 mm"), (15.01, ">15 mm")],
)
def test_classes_of_size_have_their_limits_where_documented(short: float, name: str) -> None:
    assert size_class(short) == name


def test_the_size_is_the_axial_short_axis() -> None:
    nodes = np.zeros((30, 40, 40), np.uint8)
    nodes[2:28, 5:18, 5:30] = 1  # 13 x 25 pixels in plane, 26 slices of 1 mm
    found = match_nodes(nodes, nodes, (1, 1, 1))
    (node,) = found.truth
    assert node.short_axis_mm == pytest.approx(2 * 12 * 24 / np.hypot(12, 24))  # across the diagonal
    nodes = ((np.indices((9, 40, 40))[1:] - 20) ** 2).sum(axis=0) <= 6**2
    (node,) = match_nodes(nodes, nodes, (3, 1, 1)).truth
    assert node.short_axis_mm == pytest.approx(12, abs=0.5)
    assert node.size_class == "10-15 mm"


def test_nothing_found_and_nothing_there_are_counted() -> None:
    empty = _nodes()
    assert _match(_nodes((0, 5)), empty).missed == (1,)
    assert _match(empty, _nodes((0, 5))).false == (1,)
    both = _match(empty, empty)
    assert (both.truth, both.predicted, both.pairs, both.candidates) == ((), (), (), ())


def test_touching_voxels_are_one_component_and_the_largest_is_number_1() -> None:
    mask = np.zeros((6, 6, 6), bool)
    mask[0, 0, 0] = True
    mask[2, 2, 2] = mask[3, 3, 3] = True  # touch by a corner
    mask[5, 0:2, 5] = mask[5, 2, 5] = True
    found = components(mask)
    assert found[0, 0, 0] == 3
    assert found[2, 2, 2] == found[3, 3, 3] == 2
    assert found[5, 1, 5] == 1
    assert components(np.zeros((3, 3, 3), bool)).max() == 0


def _cohort() -> list[NodeMatch]:
    """Three cases: one found and one missed; one found and one false; nothing at all."""
    return [
        _match(_nodes((0, 6), (20, 26)), _nodes((0, 6)), 0.9),
        _match(_nodes((0, 6)), _nodes((30, 36), (0, 6)), 0.8, 0.4),
        _match(_nodes(), _nodes()),
    ]


def test_detection_counts_over_the_cohort_as_by_hand() -> None:
    found = detection(_cohort())
    assert (found.n_cases, found.n_truth, found.n_predicted, found.n_matched, found.n_false) == (
        3,
        3,
        3,
        2,
        1,
    )
    assert found.sensitivity.value == pytest.approx(2 / 3)
    assert found.precision.value == pytest.approx(2 / 3)
    assert found.f1.value == pytest.approx(4 / 6)
    assert found.false_per_case.value == pytest.approx(1 / 3)
    assert (found.splits, found.merges, found.iou_threshold) == (0, 0, 0.3)
    small, middle, large = found.by_size
    assert (small.n_truth, small.n_matched, small.n_predicted, small.n_false) == (3, 2, 3, 1)
    assert small.sensitivity.value == found.sensitivity.value
    assert (middle.sensitivity.value, middle.sensitivity.reason) == (None, "no true nodes of this size")
    assert large.precision.value is None
    assert large.false_per_case.value == 0.0
    json.dumps(asdict(found), allow_nan=False)


def test_sizes_add_up_to_the_whole() -> None:
    big = np.zeros((12, 60, 60), np.uint8)
    big[1:11, 5:40, 5:40] = 1
    big[1:3, 50:54, 50:54] = 2
    found = detection([match_nodes(big, big * (big == 1), (3, 1, 1)), *_cohort()])
    assert sum(s.n_truth for s in found.by_size) == found.n_truth
    assert sum(s.n_matched for s in found.by_size) == found.n_matched
    assert sum(s.n_false for s in found.by_size) == found.n_false
    assert found.by_size[2].sensitivity.value == 1.0


def test_a_cohort_without_nodes_or_cases_gives_reasons() -> None:
    nothing = detection([_match(_nodes(), _nodes())])
    assert nothing.sensitivity.reason == "no true nodes"
    assert nothing.precision.reason == "no predicted nodes"
    assert nothing.f1.value is None
    assert nothing.false_per_case.value == 0.0
    assert detection([]).false_per_case.reason == "no cases"
    assert detection([]).sensitivity.value is None


def test_cases_matched_with_other_thresholds_are_not_mixed() -> None:
    with pytest.raises(UsageError, match="different IoU thresholds"):
        detection([_match(_nodes((0, 6)), _nodes((0, 6)), iou_threshold=t) for t in (0.3, 0.5)])


@pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
def test_a_threshold_that_is_no_share_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="IoU threshold"):
        _match(_nodes((0, 6)), _nodes((0, 6)), iou_threshold=threshold)


def test_patients_must_be_one_for_each_case() -> None:
    with pytest.raises(UsageError, match="one for each"):
        detection(_cohort(), ["A", "B"])
    assert detection(_cohort(), ["A", "A", "A"]).f1.reason == "one patient only, so no interval"


def test_the_free_response_curve_is_that_drawn_by_hand() -> None:
    found = froc(_cohort())
    assert found.thresholds == (0.9, 0.8, 0.4)
    assert found.sensitivity == pytest.approx((1 / 3, 1 / 3, 2 / 3))
    assert found.false_per_case == pytest.approx((0, 1 / 3, 1 / 3))
    assert [s for _, s in found.at] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert found.score == pytest.approx((2 * 1 + 5 * 2) / 3 / 7)
    assert found.reason == ""


def test_equal_confidences_are_one_point() -> None:
    cases = [_match(_nodes((0, 6)), _nodes((0, 6), (20, 26)), 0.5, 0.5)]
    found = froc(cases)
    assert (found.thresholds, found.sensitivity, found.false_per_case) == ((0.5,), (1.0,), (1.0,))
    assert dict(found.at)[0.5] == 0.0
    assert dict(found.at)[1.0] == 1.0  # one false node per case is allowed here


def test_two_halves_of_a_node_are_one_hit_on_the_curve_too() -> None:
    found = froc([_match(_nodes((0, 10)), _nodes((0, 5), (5, 10)), 0.6, 0.9)])
    assert (found.thresholds, found.sensitivity, found.false_per_case) == ((0.9, 0.6), (1.0, 1.0), (0.0, 1.0))


def test_each_point_of_the_curve_is_the_cohort_matched_with_the_nodes_of_that_confidence() -> None:
    random = np.random.default_rng(4)
    maps = [
        tuple(
            _nodes(
                *((s + j, s + j + 5) for s, j in zip(range(0, 34, 6), random.integers(0, 3, 6), strict=True))
            )
            for _ in "ab"
        )
        for _ in range(4)
    ]
    scores = [np.round(random.random(6), 1) for _ in maps]
    found = froc([_match(t, p, *s.tolist()) for (t, p), s in zip(maps, scores, strict=True)])
    assert found.thresholds == tuple(sorted(set(np.concatenate(scores).tolist()), reverse=True))
    for threshold, sensitivity, false in zip(
        found.thresholds, found.sensitivity, found.false_per_case, strict=True
    ):
        kept = [
            _match(t, p * np.isin(p, 1 + np.flatnonzero(s >= threshold)))
            for (t, p), s in zip(maps, scores, strict=True)
        ]
        counted = detection(kept, resamples=2)
        assert sensitivity == pytest.approx(counted.sensitivity.value)
        assert false == pytest.approx(counted.false_per_case.value)


def test_without_confidences_or_true_nodes_there_is_no_curve_but_a_reason() -> None:
    bare = froc([_match(_nodes((0, 6)), _nodes((0, 6)))])
    assert (bare.score, bare.reason) == (None, "1 predicted nodes have no confidence")
    nan = froc([_match(_nodes((0, 6)), _nodes((0, 6)), float("nan"))])
    assert nan.reason == bare.reason
    assert froc([_match(_nodes(), _nodes((0, 6)), 0.5)]).reason == "no true nodes"
    assert froc([]).reason == "no true nodes"
    for curve in (bare, nan):
        json.dumps(asdict(curve), allow_nan=False)


def test_a_model_that_finds_nothing_has_a_score_of_0() -> None:
    found = froc([_match(_nodes((0, 6)), _nodes())])
    assert (found.score, found.thresholds, found.reason) == (0.0, (), "")


def test_the_order_of_the_numbers_does_not_matter() -> None:
    truth = _nodes((0, 6), (10, 15), (20, 24))
    results = set()
    for order in permutations((1, 2, 3)):
        predicted = np.array([0, *order], np.uint8)[_nodes((1, 7), (10, 18), (30, 34))]
        found = match_nodes(truth, predicted, SPACING)
        results.add((len(found.pairs), round(sum(p.iou for p in found.pairs), 9), len(found.false)))
    assert len(results) == 1
