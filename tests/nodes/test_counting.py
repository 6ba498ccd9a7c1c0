"""Which nodes count, and as what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aiene.errors import ModelError
from aiene.models.bundle import CARD, default_folder, read_bundle
from aiene.nodes.node import CountingRule


@pytest.mark.parametrize(
    ("pos", "ene", "counts", "with_extension"),
    [
        (0.5, 0.31, True, True),  # at the least `pos`: counts
        (0.49, 0.99, False, False),
        (0.9, 0.3, True, False),  # at the threshold: no extension, as published
        (None, None, True, False),  # not judged
        (None, 0.9, True, True),  # a model that gives no `pos`
    ],
)
def test_a_node_needs_both(pos: float | None, ene: float | None, counts: bool, with_extension: bool) -> None:
    rule = CountingRule(0.3, 0.5)
    assert rule.counts(pos) is counts
    assert rule.is_ene(pos, ene) is with_extension


def test_as_published_every_found_node_counts() -> None:
    rule = CountingRule(0.3)
    assert rule.counts(0.0)
    assert rule.is_ene(0.0, 0.31)
    assert "pos" not in rule.sentence


def card_with(folder: Path, **changes: Any) -> Path:
    content = json.loads((default_folder() / CARD).read_text(encoding="utf-8"))
    (folder / CARD).write_text(json.dumps({**content, **changes}), encoding="utf-8")
    return folder


def test_the_rule_stands_on_the_card_and_a_bundle_of_before_has_none(tmp_path: Path) -> None:
    assert read_bundle(card_with(tmp_path, pos_from=0.4, ene_threshold=0.25)).card.rule == CountingRule(
        0.25, 0.4
    )
    content = json.loads((default_folder() / CARD).read_text(encoding="utf-8"))
    content.pop("pos_from", None)
    (tmp_path / CARD).write_text(json.dumps(content), encoding="utf-8")
    assert read_bundle(tmp_path).card.rule.pos_from == 0


def test_a_published_bundle_counts_as_published(tmp_path: Path) -> None:
    told = read_bundle(card_with(tmp_path, profile="published", pos_from=0.5))
    assert told.card.rule == CountingRule(told.card.ene_threshold)
    with pytest.raises(ModelError, match="pos_from"):
        read_bundle(card_with(tmp_path, pos_from=1.5))
