"""Dice of each case, model by model: boxes with every point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from aiene.benchmark.report.record import Chart
from aiene.benchmark.report.source import Source, value
from aiene.benchmark.report.style import label, look, rule
from aiene.charts import FAINT, INK, new_figure, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 0.52  # inches for each model


class _Points(NamedTuple):
    model: str
    number: int
    values: tuple[float, ...]


def boxes(source: Source, name: str) -> Chart | None:
    """Dice of one label.

    Parameters
    ----------
    name : of the label.
    """
    rows, groups = [], []
    for model in source.segmenters:
        having = _values(source.rows_of(model["name"]), f"dice_{name}")
        rows += [(model["name"], case, dice) for case, dice in having]
        points = tuple(dice for _, dice in having)
        groups.append(_Points(model["name"], source.number(model["name"]), points))
    if not rows:
        return None
    return Chart(
        f"dice_{name.lower()}",
        f"Dice of {name}, case by case",
        "Box: quartiles, with the median as a line; whiskers: to the farthest case within 1.5 times the box; "
        "every case is a point; diamond: mean. Cases that failed, and cases where the label is in neither "
        "truth nor prediction, have no point.",
        ("model", "case_id", f"dice_{name}"),
        tuple(rows),
        lambda: _draw(groups, f"Dice of {name}"),
    )


def _values(rows: Sequence[Mapping[str, str]], column: str) -> list[tuple[str, float]]:
    found = [(row.get("case_id", ""), value(row, column)) for row in rows]
    return [(case, dice) for case, dice in found if dice is not None]


def _draw(groups: Sequence[_Points], what: str) -> Figure:
    height = _ROW * len(groups)
    figure = new_figure(7.6, height + 0.75)
    axes = place(figure, 2.15, 0.55, 4.6, height)
    for line, group in enumerate(groups):
        _box(axes, line, group)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(0, 1.02)
    axes.set_yticks(range(len(groups)), [label(group.model) for group in groups])
    axes.tick_params(axis="y", length=0, pad=9)
    axes.set_xlabel(what)
    rule(axes, "x")
    return figure


def _box(axes: Axes, line: int, group: _Points) -> None:
    style = look(group.number)
    count = len(group.values)
    text = f"n = {count}" if count else "no case"
    axes.text(1.05, line, text, va="center", ha="left", fontsize=8, color=FAINT, clip_on=False)
    if not count:
        return
    if count > 1:
        axes.boxplot(
            [group.values],
            positions=[line],
            orientation="horizontal",
            widths=0.56,
            showfliers=False,
            manage_ticks=False,
            boxprops={"color": INK, "linewidth": 1.0},
            whiskerprops={"color": INK, "linewidth": 1.0},
            capprops={"color": INK, "linewidth": 1.0},
            medianprops={"color": INK, "linewidth": 2.0},
        )
    heights = [line + 0.4 * (_scatter(i) - 0.5) for i in range(count)]
    axes.plot(
        group.values, heights, style.marker, color=style.colour, markersize=4.5, alpha=0.8,
        markeredgewidth=0, clip_on=False, zorder=3,
    )  # fmt: skip
    mean = sum(group.values) / count
    axes.plot(
        [mean], [line], "D", markersize=6, markerfacecolor="white", markeredgecolor=INK, zorder=4,
        clip_on=False,
    )  # fmt: skip


def _scatter(index: int) -> float:
    """Van der Corput's sequence: points spread evenly, without chance."""
    result, weight, rest = 0.0, 0.5, index + 1
    while rest:
        result += weight * (rest % 2)
        rest, weight = rest // 2, weight / 2
    return result
