"""What must hold of every benchmark, whatever the models: nobody gains by failing, and nobody by others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiene.benchmark.comparison import compare_models
from aiene.benchmark.config import BenchmarkConfig
from aiene.benchmark.counting import counted_records, labels_that_count, node_scores
from aiene.benchmark.leaderboard.entry import figures_of
from aiene.benchmark.records import SEGMENTATION_METRICS, CaseRecord, TruthRecord, goodness
from aiene.benchmark.summary import model_figures
from builders import judged_records as build

FEW = settings(deadline=None, max_examples=5, derandomize=True)
SEEDS = st.integers(0, 10_000)
CASES = 9
TIMES = ("total_seconds", "peak_rss_mib")
Figures = dict[str, float | None]


def _cohort(seed: int, names: str = "abc") -> tuple[list[TruthRecord], dict[str, build.Answers]]:
    random = np.random.default_rng(seed)
    cohort = build.truths(random, CASES)
    return cohort, {name: build.answers(cohort, random, random.uniform(0.3, 0.95)) for name in names}


def _figures(cohort: list[TruthRecord], said: build.Answers) -> Figures:
    records = counted_records(said, cohort, 0.3, segments=True)
    model = model_figures(build.CONFIG, build.entrant("a"), records)
    return {name: one.get("value") for name, one in figures_of(model).items() if name not in TIMES}


def _compared(cohort: list[TruthRecord], said: dict[str, build.Answers], **how: Any) -> dict[str, Any]:
    config = BenchmarkConfig(**{"resamples": 100, "metrics": ("dice", "hd95_mm", "volume_error_ml"), **how})
    return compare_models(config, build.counted(cohort, said), cohort, next(iter(said)))


def _no_better(after: Figures, before: Figures, names: Callable[[str], bool] = lambda name: True) -> None:
    """No figure is better; one that cannot be given any more is not better either."""
    for name, value in after.items():
        if value is None or not names(name):
            continue
        known = before[name]
        assert known is not None, name
        assert goodness(name, value) <= goodness(name, known) + 1e-9, (name, known, value)


# --- worse is never better ---


def _lost(record: CaseRecord, truth: TruthRecord) -> None:
    return None


def _emptied(record: CaseRecord, truth: TruthRecord) -> CaseRecord:
    return build.empty(truth)


def _all_false(record: CaseRecord, truth: TruthRecord) -> CaseRecord:
    """The same nodes, all of them somewhere else: found ones become false and missed at once."""
    match = record.matching
    assert match is not None
    numbers = tuple(node.number for node in match.predicted)
    missed = tuple(node.number for node in match.truth)
    spoilt = {
        name: build.label(one.label, one.truth_voxels, max(one.predicted_voxels, 30), 0.0)
        for name, one in (record.segmentation or {}).items()
    }
    return replace(
        record,
        segmentation=spoilt,
        matching=replace(match, pairs=(), candidates=(), missed=missed, false=numbers),
        truth_nodes=tuple(replace(node, found_as=None, ene_end_to_end=None) for node in record.truth_nodes),
        found_nodes=tuple(replace(node, matched=None) for node in record.found_nodes),
    )


def _missed(extension: int) -> Callable[[CaseRecord, TruthRecord], CaseRecord]:
    """Every node that was found, with extension or without, is missed now; all else stays."""

    def spoil(record: CaseRecord, truth: TruthRecord) -> CaseRecord:
        match = record.matching
        assert match is not None
        gone = {n.value for n in record.truth_nodes if n.ene == extension}
        nodes = tuple(
            replace(n, found_as=None, ene_end_to_end=None) if n.value in gone else n
            for n in record.truth_nodes
        )
        kept = tuple(pair for pair in match.pairs if pair.truth not in gone)
        hidden = {pair.predicted for pair in match.pairs} - {pair.predicted for pair in kept}
        less = replace(
            match,
            pairs=kept,
            candidates=kept,
            predicted=tuple(node for node in match.predicted if node.number not in hidden),
            missed=tuple(sorted({*match.missed, *(p.truth for p in match.pairs if p.truth in gone)})),
        )
        found = tuple(node for node in record.found_nodes if node.value not in hidden)
        return replace(record, matching=less, truth_nodes=nodes, found_nodes=found)

    return spoil


def _misjudged(record: CaseRecord, truth: TruthRecord) -> CaseRecord:
    """Every probability half the way to the wrong one."""
    nodes = tuple(
        replace(
            node,
            ene_on_truth=None if node.ene_on_truth is None else (node.ene_on_truth + 1 - node.ene) / 2,  # type: ignore[operator]
            ene_end_to_end=None if node.ene_end_to_end is None else (node.ene_end_to_end + 1 - node.ene) / 2,  # type: ignore[operator]
        )
        for node in record.truth_nodes
    )
    return replace(record, truth_nodes=nodes)


def _unjudged(record: CaseRecord, truth: TruthRecord) -> CaseRecord:
    nodes = tuple(replace(node, ene_on_truth=None, ene_end_to_end=None) for node in record.truth_nodes)
    return replace(record, truth_nodes=nodes)


def _of_false_nodes(name: str) -> bool:
    """Figures that an empty prediction may honestly improve: it has no false mass and no false node."""
    return name.startswith(
        ("node_precision", "node_f1", "node_false", "panoptic", "froc", "aggregated", "volume")
    )


def _on_truth(name: str) -> bool:
    """An empty prediction has lost nothing of what a classifier says of the truth's own masks."""
    return name.endswith("_on_truth")


WAYS: dict[str, tuple[Any, Callable[[str], bool]]] = {
    "left out": (_lost, lambda name: True),
    "left out, then empty": (_emptied, lambda name: not _of_false_nodes(name) and not _on_truth(name)),
    "all elsewhere": (_all_false, lambda name: not name.startswith("volume")),
    "nodes with extension missed": (_missed(1), lambda name: not _of_false_nodes(name)),
    "nodes without extension missed": (_missed(0), lambda name: not _of_false_nodes(name)),
    "misjudged": (_misjudged, lambda name: True),
    "not judged": (_unjudged, lambda name: True),
}


@pytest.mark.parametrize("way", WAYS)
@FEW
@given(seed=SEEDS, place=st.integers(0, CASES - 1))
@pytest.mark.slow
def test_a_worse_case_never_makes_a_figure_better(way: str, seed: int, place: int) -> None:
    spoil, names = WAYS[way]
    cohort, said = _cohort(seed, "a")
    before = _figures(cohort, said["a"])
    truth = cohort[place]
    if way == "left out, then empty" and not truth.voxels["GTVn"]:
        return  # there the empty prediction is the right one
    worse = spoil(said["a"].pop(truth.case_id), truth)
    if worse is not None:
        said["a"][truth.case_id] = worse
    _no_better(_figures(cohort, said["a"]), before, names)


_GRADES = {"worse": 0, "no difference shown": 1, "better": 2}


@FEW
@given(seed=SEEDS, place=st.integers(0, CASES - 1))
@pytest.mark.slow
def test_a_case_left_out_never_makes_a_rank_or_verdict_better(seed: int, place: int) -> None:
    cohort, said = _cohort(seed)
    before = _compared(cohort, said)
    said["b"].pop(cohort[place].case_id)
    after = _compared(cohort, said)
    for old, new in zip(before["ranking"], after["ranking"], strict=True):
        assert old["endpoint"] == new["endpoint"]
        ranks = [next(m["rank"] for m in one["models"] if m["model"] == "b") for one in (old, new)]
        assert ranks[1] >= ranks[0], old["endpoint"]
    grades = [
        [_GRADES[row["verdict"]] for row in one["comparisons"] if row["model"] == "b" and row["primary"]]
        for one in (before, after)
    ]
    assert grades[1] <= grades[0]
    for old, new in zip(before["pairs"], after["pairs"], strict=True):
        if old["model"] == "b":
            assert _GRADES[new["verdict_of_pair"]] <= max(1, _GRADES[old["verdict_of_pair"]])


@FEW
@given(seed=SEEDS, place=st.integers(0, CASES - 1))
@pytest.mark.slow
def test_leaving_a_case_out_is_never_better_than_an_empty_prediction(seed: int, place: int) -> None:
    cohort, said = _cohort(seed, "a")
    truth = cohort[place]
    said["a"][truth.case_id] = build.empty(truth)
    empty = _figures(cohort, said["a"])
    del said["a"][truth.case_id]
    _no_better(_figures(cohort, said["a"]), empty)


def test_the_more_cases_are_left_out_the_lower_is_what_counts() -> None:
    cohort, said = _cohort(3, "a")
    before = _figures(cohort, said["a"])
    for truth in cohort:
        del said["a"][truth.case_id]
        now = _figures(cohort, said["a"])
        _no_better(now, before)
        before = now
    assert now["dice_GTVn"] == 0
    assert now["auc_on_truth"] == now["auc_end_to_end"] == 0
    assert now["hd95_mm_GTVn"] == build.DIAGONAL
    assert now["node_precision"] is None


# --- other models ---


def _pairs(found: dict[str, Any], names: set[str]) -> list[dict[str, Any]]:
    rows = [row for row in found["pairs"] if {row["model"], row["reference"]} <= names]
    return [{k: row[k] for k in ("endpoint", "model", "reference", "difference", "p")} for row in rows]


@FEW
@given(seed=SEEDS, lost=st.sets(st.integers(0, CASES - 1)))
@pytest.mark.slow
def test_a_further_model_and_its_failing_change_nothing_for_the_others(seed: int, lost: set[int]) -> None:
    cohort, said = _cohort(seed)
    two = _pairs(_compared(cohort, {name: said[name] for name in "ab"}), {"a", "b"})
    three = _compared(cohort, said)
    for place in lost:
        del said["c"][cohort[place].case_id]
    failing = _compared(cohort, said)
    assert two == _pairs(three, {"a", "b"}) == _pairs(failing, {"a", "b"})
    for one, other in zip(three["primary"]["models"], failing["primary"]["models"], strict=True):
        assert one == other or one["model"] == "c"


@FEW
@given(seed=SEEDS, lost=st.sets(st.integers(0, CASES - 1), max_size=4))
@pytest.mark.slow
def test_two_copies_tie_in_everything(seed: int, lost: set[int]) -> None:
    cohort, said = _cohort(seed, "ab")
    for place in lost:
        said["b"].pop(cohort[place].case_id)
    found = _compared(cohort, {"a": said["a"], "b": said["b"], "copy": dict(said["b"])})
    for ranks in found["ranking"]:
        of = {
            model["model"]: (model["rank"], model["rank_low"], model["rank_high"])
            for model in ranks["models"]
        }
        assert of["b"] == of["copy"], ranks["endpoint"]
    twins = [row for row in found["pairs"] if {row["model"], row["reference"]} == {"b", "copy"}]
    assert twins
    for row in twins:
        assert row["difference"]["value"] == 0
        assert row["p"] == 1
        assert row["verdict_of_pair"] == "no difference shown"


# --- both empty ---


@FEW
@given(seed=SEEDS)
@pytest.mark.slow
def test_nothing_is_better_than_nothing_where_there_is_nothing(seed: int) -> None:
    cohort, said = _cohort(seed, "a")
    truth = replace(cohort[0], voxels={"GTVp": 0, "GTVn": 0}, nodes=())
    cohort[0] = truth
    said["a"]["c0"] = build.empty(truth)
    best = _figures(cohort, said["a"])
    random = np.random.default_rng(seed)
    for _ in range(3):
        said["a"]["c0"] = build.record(truth, random, 0.9)
        _no_better(_figures(cohort, said["a"]), best)


def test_both_empty_counts_as_right_by_every_metric() -> None:
    nothing = build.label(2, 0, 0, 0.0)
    for name in SEGMENTATION_METRICS:
        right = {"hd95_mm": 0, "assd_mm": 0, "volume_error_ml": 0, "volume_error_relative": None}.get(name, 1)
        assert nothing.cohort_value(name) == right


@pytest.mark.slow
def test_false_mass_in_every_node_free_neck_does_not_win() -> None:
    """The fault that was reported: 0.50 against 0.998 was "better", since the empty cases were dropped."""
    random = np.random.default_rng(0)
    base = build.truths(random, 12)
    cohort = [
        replace(t, patient_id=t.case_id, voxels={"GTVp": 0, "GTVn": 0 if k % 2 else 500}, nodes=())
        for k, t in enumerate(base)
    ]
    careful, wild = {}, {}
    for truth in cohort:
        true = truth.voxels["GTVn"]
        record = build.empty(truth)
        careful[truth.case_id] = replace(
            record, segmentation={"GTVp": build.label(1, 0, 0, 0), "GTVn": build.label(2, true, true, 0.996)}
        )
        wild[truth.case_id] = replace(
            record,
            segmentation={
                "GTVp": build.label(1, 0, 0, 0),
                "GTVn": build.label(2, true, true or 300, bool(true)),
            },
        )
    found = _compared(cohort, {"careful": careful, "wild": wild})
    (row,) = [one for one in found["comparisons"] if one["primary"]]
    assert row["difference"]["value"] == pytest.approx((6 * 0.004 - 6) / 12)
    assert (row["verdict"], row["p"] < 0.05) == ("worse", True)
    (by_mean, _) = [one for one in found["ranking"] if one["endpoint"] == "dice_GTVn"]
    assert [model["model"] for model in by_mean["models"]] == ["careful", "wild"]


def test_where_all_necks_are_free_of_nodes_false_ones_still_count() -> None:
    cohort = [
        replace(t, voxels={"GTVp": 0, "GTVn": 0}, nodes=()) for t in build.truths(np.random.default_rng(1), 8)
    ]
    right = {t.case_id: build.empty(t) for t in cohort}
    wrong = {
        t.case_id: replace(
            right[t.case_id], segmentation={"GTVp": build.label(1, 0, 0, 0), "GTVn": build.label(2, 0, 9, 0)}
        )
        for t in cohort
    }
    assert labels_that_count(cohort) == ["GTVn"]
    found = _compared(cohort, {"right": right, "wrong": wrong})
    assert [m["value"]["value"] for m in found["primary"]["models"]] == [1, 0]
    assert found["comparisons"][0]["verdict"] == "worse"


# --- the primary endpoint and its margin ---


@pytest.mark.slow
def test_the_primary_endpoint_comes_first_and_is_corrected_by_itself() -> None:
    cohort, said = _cohort(5)
    for name in ("node_sensitivity", "froc", "auc_end_to_end", "auc_on_truth", "hd95_mm_GTVn"):
        found = _compared(cohort, said, primary=name)
        first = [row for row in found["comparisons"] if row["primary"]]
        assert {row["endpoint"] for row in first} == {name}
        assert [row["primary"] for row in found["comparisons"]][: len(first)] == [True] * len(first)
        p = sorted(row["p"] for row in first)
        assert min(row["p_holm"] for row in first) == pytest.approx(min(1, 2 * p[0]))
        assert found["primary"]["margin"] == (None if name.endswith("GTVn") else 0.05)
        assert {row["endpoint"] for row in found["ranking"]} >= {
            "dice_GTVn",
            "node_sensitivity",
            "auc_end_to_end",
        }


def test_an_endpoint_that_the_truth_does_not_allow_is_said() -> None:
    cohort, said = _cohort(5, "ab")
    bare = [replace(truth, nodes=()) for truth in cohort]
    found = _compared(bare, said, primary="froc")
    assert "models and ground truth give no froc" in found["primary"]["reason"]
    assert not any(row["primary"] for row in found["comparisons"])


def test_copies_are_equal_within_the_margin_and_a_far_model_is_not() -> None:
    cohort, said = _cohort(8, "a")
    rows = _compared(cohort, {"a": said["a"], "copy": said["a"], "gone": {}})["comparisons"]
    equal = {row["model"]: row["equivalence"] for row in rows if row["primary"]}
    assert equal["copy"]["equivalent"] is True
    assert equal["gone"]["equivalent"] is False


def test_a_node_without_a_probability_counts_as_the_wrong_one() -> None:
    cohort, _ = _cohort(2, "a")
    records = counted_records({}, cohort, 0.3, segments=True)
    for track in ("on_truth", "end_to_end"):
        scores = node_scores(records, track)
        assert scores
        assert all(one.score == 1 - one.ene and not one.judged for one in scores)
