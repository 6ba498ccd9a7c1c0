"""The threshold by which a model's probabilities count."""

from __future__ import annotations

import pytest

from aiene.benchmark.comparators.protocol import ModelFacts
from aiene.benchmark.config import BenchmarkConfig
from aiene.benchmark.ene_evaluation import judgement
from aiene.benchmark.models import Entrant
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
