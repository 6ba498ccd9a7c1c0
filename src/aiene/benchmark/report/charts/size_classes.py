"""Sensitivity for small, middle and large nodes: whether a model finds what a reader would miss too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from aiene.benchmark.metrics.records import SIZE_CLASSES
from aiene.benchmark.report.chart import Chart
from aiene.benchmark.report.results_reader import Source
from aiene.report.document import Figure, by_column
from aiene.report.formatting import dig
from aiene.report.style import label, legend_height, look, new_figure, place, rule

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_WIDTH, _HEIGHT = 4.2, 2.9
_APART = 0.11  # between two models at one class, of the distance between two classes


class _Class(NamedTuple):
    name: str
    nodes: int
    sensitivity: float
    low: float
    high: float


class _Line(NamedTuple):
    model: str
    number: int
    classes: dict[str, _Class]


def size_classes(source: Source, _: str = "") -> Figure | None:
    """Share of the truth's nodes that each model found, by their short axis."""
    lines = [_line(source, model) for model in source.run]
    lines = [line for line in lines if line.classes]
    if not lines:
        return None
    names = [name for name in SIZE_CLASSES if any(name in line.classes for line in lines)]
    rows: list[tuple[Any, ...]] = [(line.model, *one) for line in lines for one in line.classes.values()]
    return Figure(
        "sensitivity_by_size",
        "Sensitivity by size of the node",
        "Share of the truth's nodes that were found, by their short axis in the axial slice of largest area, "
        "with its 95 % interval; under each class, the nodes of the truth. A class without any is left out.",
        lambda: _draw(names, lines),
        by_column(("model", "short_axis", "nodes", "sensitivity", "low", "high"), rows),
    )


def _line(source: Source, model: dict[str, Any]) -> _Line:
    found: dict[str, _Class] = {}
    for one in dig(model, "detection", "by_size") or []:
        name, nodes = str(one.get("size_class")), int(one.get("n_truth") or 0)
        value, low, high = (dig(one, "sensitivity", part) for part in ("value", "low", "high"))
        if value is not None and nodes:
            ends = (value if end is None else end for end in (low, high))
            found[name] = _Class(name, nodes, value, *ends)
    return _Line(model["name"], source.number(model["name"]), found)


def _draw(names: Sequence[str], lines: Sequence[_Line]) -> Drawing:
    height = max(_HEIGHT, legend_height(len(lines)))
    figure = new_figure(7.4, height + 0.95)
    axes = place(figure, 0.62, 0.75 + height - _HEIGHT, _WIDTH, _HEIGHT)
    rule(axes)
    middle = (len(lines) - 1) / 2
    for turn, line in enumerate(lines):
        style = look(line.number)
        shown = [(names.index(one.name) + _APART * (turn - middle), one) for one in line.classes.values()]
        axes.errorbar(
            [across for across, _ in shown],
            [one.sensitivity for _, one in shown],
            yerr=[
                [max(0.0, one.sensitivity - one.low) for _, one in shown],
                [max(0.0, one.high - one.sensitivity) for _, one in shown],
            ],
            color=style.colour, linestyle=style.dashes, marker=style.marker, markersize=6, linewidth=1.0,
            elinewidth=0.9, capsize=2, clip_on=False, label=label(line.model, 30),
        )  # fmt: skip
    nodes = {one.name: one.nodes for line in lines for one in line.classes.values()}
    ticks = [f"{name}\n{nodes[name]} {'node' if nodes[name] == 1 else 'nodes'}" for name in names]
    axes.set_xticks(range(len(names)), ticks)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(0, 1)
    axes.set_xlabel("short axis")
    axes.set_ylabel("sensitivity")
    axes.legend(loc="upper left", bbox_to_anchor=(1.04, 1.02), borderaxespad=0, fontsize=8)
    return figure


CHARTS = (Chart("detection", 2, size_classes),)
