"""A node that the registration alone could move over the threshold is named."""

from __future__ import annotations

import numpy as np
import pytest

from aiene.geometry.grid import Grid, Volume
from aiene.nodes.node import CountingRule, Node, Score, names_by_volume
from aiene.nodes.split import split_nodes
from aiene.preprocess.profile import OPEN, PUBLISHED
from aiene.results.records import threshold_warnings


@pytest.fixture(scope="module")
def nodes() -> list[Node]:
    """Three cubes, the largest first in the array."""
    labels = np.zeros((64, 64, 64), np.uint8)
    for at, edge in ((4, 12), (24, 10), (44, 8)):
        labels[at : at + edge, at : at + edge, at : at + edge] = 2
    grid = Grid(labels.shape, (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    return split_nodes(Volume(labels, grid), fg_labels=(2,), axes=False)


def test_nodes_near_the_threshold_are_named(nodes: list[Node]) -> None:
    by_name = {"GTVn_01": 0.36, "GTVn_02": 0.9, "GTVn_03": 0.2}
    scores = [Score(pos=0.9, ene=by_name[name]) for name in names_by_volume(nodes)]
    (warning,) = threshold_warnings(nodes, scores, CountingRule(0.3), 0.1)
    assert warning.startswith("GTVn_01, GTVn_03: the ENE probability lies within 0.1 of the threshold 0.3")
    (warning,) = threshold_warnings(nodes, [scores[0], None, None], CountingRule(0.3), 0.1)
    assert warning.startswith(names_by_volume(nodes)[0] + ":")


def test_nodes_far_from_the_threshold_and_profiles_without_a_spread_are_not(nodes: list[Node]) -> None:
    far = [Score(pos=0.9, ene=0.41)] * len(nodes)
    assert threshold_warnings(nodes, far, CountingRule(0.3), 0.1) == []
    assert threshold_warnings(nodes, far, CountingRule(0.41), None) == []


def test_a_node_with_extension_that_does_not_count_is_named_and_no_other(nodes: list[Node]) -> None:
    by_name = {"GTVn_01": (0.2, 0.9), "GTVn_02": (0.2, 0.1), "GTVn_03": (0.8, 0.9)}
    scores = [Score(*by_name[name]) for name in names_by_volume(nodes)]
    (warning,) = threshold_warnings(nodes, scores, CountingRule(0.3, 0.5), None)
    assert warning.startswith("GTVn_01: the ENE probability is over 0.3, but `pos` is under 0.5")
    assert threshold_warnings(nodes, scores, CountingRule(0.3), None) == []


def test_only_the_published_registration_hangs_on_storage() -> None:
    assert OPEN.ene_spread is None
    assert PUBLISHED.ene_spread
