"""A node that the registration alone could move over the threshold is named."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from aiene.nodes.node import CountingRule
from aiene.preprocess.profile import OPEN, PUBLISHED
from aiene.results.records import NodeResult, threshold_warnings


def nodes(**ene: float | None) -> list[NodeResult]:
    """Nodes of these probabilities, by name."""
    blank: dict[str, Any] = {field.name: None for field in fields(NodeResult)}
    return [NodeResult(**{**blank, "name": name, "ene": value}) for name, value in ene.items()]


def test_nodes_near_the_threshold_are_named() -> None:
    rule = CountingRule(0.3)
    (warning,) = threshold_warnings(nodes(GTVn_01=0.36, GTVn_02=0.9, GTVn_03=0.2), rule, 0.1)
    assert warning.startswith("GTVn_01, GTVn_03: the ENE probability lies within 0.1 of the threshold 0.3")
    (warning,) = threshold_warnings(nodes(GTVn_01=0.36, GTVn_02=None), rule, 0.1)
    assert warning.startswith("GTVn_01:")


def test_nodes_far_from_the_threshold_and_profiles_without_a_spread_are_not() -> None:
    far = nodes(GTVn_01=0.41, GTVn_02=0.41)
    assert threshold_warnings(far, CountingRule(0.3), 0.1) == []
    assert threshold_warnings(far, CountingRule(0.41), None) == []


def test_a_node_with_extension_that_does_not_count_is_named_and_no_other() -> None:
    found = [
        replace(node, pos=pos)
        for node, pos in zip(nodes(GTVn_01=0.9, GTVn_02=0.1, GTVn_03=0.9), (0.2, 0.2, 0.8), strict=True)
    ]
    (warning,) = threshold_warnings(found, CountingRule(0.3, 0.5), None)
    assert warning.startswith("GTVn_01: the ENE probability is over 0.3, but `pos` is under 0.5")
    assert threshold_warnings(found, CountingRule(0.3), None) == []


def test_only_the_published_registration_hangs_on_storage() -> None:
    assert OPEN.ene_spread is None
    assert PUBLISHED.ene_spread
