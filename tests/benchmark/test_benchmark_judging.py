"""The threshold by which a model's probabilities count."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aiene.benchmark.comparators.protocol import Entrant, ModelFacts
from aiene.benchmark.config import BenchmarkConfig
from aiene.benchmark.counting import judgement
from aiene.benchmark.records import CaseRecord, FoundNode, TruthNode


def records() -> list[CaseRecord]:
    """Four patients with a node each, found with probabilities of 0.1, 0.2, 0.6 and 0.7."""
    made = []
    for number, (ene, score) in enumerate([(0, 0.1), (1, 0.2), (0, 0.6), (1, 0.7)]):
        truth = TruthNode(1, "GTVn_01", 1.0, (0.0, 0.0, 0.0), ene, 1, 0.9, None, score)
        found = FoundNode(1, 1.0, (0.0, 0.0, 0.0), None, score, 1)
        name = f"p{number}"
        made.append(
            CaseRecord("m", "m", "bundle", name, name, "ok", truth_nodes=(truth,), found_nodes=(found,))
        )
    return made


@pytest.mark.parametrize(
    ("told", "used", "called"), [(0.0, 0.0, 4), (None, 0.5, 2), (0.15, 0.15, 3), (1.0, 1.0, 0)]
)
def test_a_threshold_of_0_is_one_and_only_none_is_none(told: float | None, used: float, called: int) -> None:
    facts = ModelFacts("bundle", "0" * 64, segments=True, classifies=True, ene_threshold=told)
    entrant = Entrant("m", "m", "m", "bundle", 0, None, facts=facts)
    track = judgement(BenchmarkConfig(resamples=100), entrant, records())["end_to_end"]
    assert track["threshold"] == used
    point = next(one for one in track["operating"] if one["threshold"] == used)
    assert point["tp"] + point["fp"] == called


def test_a_found_node_that_does_not_count_is_as_one_that_was_missed() -> None:
    """By its bundle's least `pos`; also where it is false, and in the numbers of each patient."""
    doubtful = [
        replace(record, found_nodes=(replace(record.found_nodes[0], confidence=pos),))
        for record, pos in zip(records(), (0.9, 0.9, 0.9, 0.3), strict=True)
    ]
    false = FoundNode(2, 1.0, (0.0, 0.0, 0.0), 0.3, 0.9, None)
    doubtful[0] = replace(doubtful[0], found_nodes=(*doubtful[0].found_nodes, false))
    tracks = []
    for pos_from in (0.0, 0.5):
        facts = ModelFacts("bundle", "0" * 64, True, True, ene_threshold=0.15, pos_from=pos_from)
        entrant = Entrant("m", "m", "m", "bundle", 0, None, facts=facts)
        tracks.append(judgement(BenchmarkConfig(resamples=100), entrant, doubtful)["end_to_end"])
    point = [next(one for one in track["operating"] if one["threshold"] == 0.15) for track in tracks]
    assert [(p["tp"], p["fn"]) for p in point] == [(2, 0), (1, 1)]
    assert [track["false_nodes_called_ene"] for track in tracks] == [1, 0]
    assert [score["score"] for score in tracks[1]["scores"]] == [0.1, 0.2, 0.6, 0.0]
