"""The chart of sensitivity by size: each point is a figure of the summary, and it stands in its chapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiene.benchmark.report.charts.curves import size_classes
from aiene.benchmark.report.performance import detection
from aiene.benchmark.report.results_reader import Source
from aiene.report.style import render


def _source(*classes: list[dict[str, Any]]) -> Source:
    models = [
        {"name": name, "kind": "bundle", "status": "ok", "detection": {"by_size": found}}
        for name, found in zip("ab", classes, strict=True)
    ]
    return Source(Path("nowhere"), {"models": models, "data": {}, "machine": {}, "settings": {}}, (), "now")


def _class(name: str, nodes: int, value: float | None, low: float, high: float) -> dict[str, Any]:
    return {"size_class": name, "n_truth": nodes, "sensitivity": {"value": value, "low": low, "high": high}}


SMALL, LARGE = _class("<10 mm", 8, 0.25, 0.05, 0.6), _class(">15 mm", 3, 1.0, 0.4, 1.0)
EMPTY = _class("10-15 mm", 0, None, 0.0, 0.0)


def test_each_point_is_a_figure_of_the_summary_and_an_empty_class_is_left_out() -> None:
    chart = size_classes(_source([SMALL, EMPTY, LARGE], [_class("<10 mm", 8, 0.5, 0.2, 0.8), LARGE]))
    assert chart is not None
    assert list(zip(*chart.data.values(), strict=True)) == [
        ("a", "<10 mm", 8, 0.25, 0.05, 0.6),
        ("a", ">15 mm", 3, 1.0, 0.4, 1.0),
        ("b", "<10 mm", 8, 0.5, 0.2, 0.8),
        ("b", ">15 mm", 3, 1.0, 0.4, 1.0),
    ]
    axes = chart.draw().axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["<10 mm\n8 nodes", ">15 mm\n3 nodes"]
    lines = [container.lines for container in axes.containers]  # type: ignore[attr-defined]
    assert [list(line[0].get_ydata()) for line in lines] == [[0.25, 1.0], [0.5, 1.0]]
    ends = [segment[:, 1].tolist() for segment in lines[0][2][0].get_segments()]
    assert ends == [pytest.approx([0.05, 0.6]), pytest.approx([0.4, 1.0])]


def test_it_stands_in_the_chapter_of_detection_and_is_drawn_the_same_twice() -> None:
    source = _source([SMALL, LARGE], [SMALL, LARGE])
    chart = next(item for item in detection(source).figures if item.name == "sensitivity_by_size")
    assert render(chart).svg == render(chart).svg


def test_without_a_node_there_is_no_chart() -> None:
    assert size_classes(_source([EMPTY], [])) is None
