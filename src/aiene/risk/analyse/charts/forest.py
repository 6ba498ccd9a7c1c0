"""Effects of a model: hazard ratios as a forest, by number of nodes, and all of them as a nomogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiene.report.style import FAINT, INK, RULE, look, new_figure, place, text_inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ROW, PLOT, TOP, BOTTOM = 0.25, 3.0, 0.55, 0.55
WIDEST = (0.02, 50.0)
"""An interval that reaches beyond ends in an arrow."""


def draw_forest(content: Mapping[str, Any]) -> Figure:
    """A forest: one row per term, the point, its interval, and both in words.

    Parameters
    ----------
    content : `rows` with `label`, `head` (bool), `value`, `low`, `high`, `text`, `look` and optional `counts`
        (patients and events); `x_label`, `heading` (over the column of words).
    """
    rows = content["rows"]
    counted = max((text_inches(r.get("counts", ""), 8.5) for r in rows), default=0.0)
    between = max(counted, 1.0) + 0.25 if counted else 0.0
    left = 0.15 + between + max([1.0, *(text_inches(r["label"], 8.5) for r in rows)])
    right = 0.2 + max([1.2, *(text_inches(r["text"], 8.5) for r in rows)])
    tall = ROW * len(rows)
    figure = new_figure(left + PLOT + right, TOP + tall + BOTTOM)
    axes = place(figure, left, BOTTOM, PLOT, tall)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    low, high = _span(rows)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _plain_log_ticks(axes.xaxis, low, high)
    for tick in axes.get_xticks():
        axes.axvline(tick, color=RULE, linewidth=0.5, zorder=0)
    axes.axvline(1, color=FAINT, linewidth=0.8)
    for y, row in enumerate(rows):
        _row(axes, y, row, low, high, between)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(content["x_label"])
    lift = 1 + 0.06 / tall
    head: dict[str, Any] = {"fontsize": 8.5, "fontweight": "bold", "va": "bottom"}
    axes.text(1.03, lift, content["heading"], transform=axes.transAxes, **head)
    if between:
        axes.text(-0.03, lift, "n / events", transform=axes.transAxes, ha="right", **head)
    return figure


def draw_dose(content: Mapping[str, Any]) -> Figure:
    """The hazard ratio by count: points per number of nodes, and the line of the continuous count.

    Parameters
    ----------
    content : `points` (`x`, `value`, `low`, `high`, `n`), `line` (`x`, `value`, `low`, `high`), `labels` of
        the counts on the axis, `x_label`, `y_label`.
    """
    figure = new_figure(6.2, 4.1)
    axes = place(figure, 0.85, 0.85, 5.1, 2.9)
    points, line = content["points"], content["line"]
    if line["x"] and None not in (*line["low"], *line["high"]):
        axes.fill_between(line["x"], line["low"], line["high"], color=look(0).colour, alpha=0.14, linewidth=0)
    if line["x"]:
        axes.plot(line["x"], line["value"], color=look(0).colour, label=content["line_label"])
    for x, value, low, high in zip(points["x"], points["value"], points["low"], points["high"], strict=True):
        if value is not None:
            ends = [WIDEST[0] if low is None else max(low, WIDEST[0]),
                    WIDEST[1] if high is None else min(high, WIDEST[1])]  # fmt: skip
            axes.plot([x, x], ends, color=look(3).colour, linewidth=1)
            axes.plot([x], [value], marker="s", color=look(3).colour, markersize=5)
    axes.plot([], [], marker="s", color=look(3).colour, linewidth=1, label=content["point_label"])
    axes.axhline(1, color=FAINT, linewidth=0.8)
    axes.set_yscale("log")
    _plain_log_ticks(axes.yaxis, *axes.get_ylim())
    axes.set_xlim(-0.3, max(points["x"]) + 0.3)
    ticks = [f"{t}\nn = {n}" for t, n in zip(content["labels"], points["n"], strict=True)]
    axes.set_xticks(points["x"], ticks)
    axes.set_xlabel(content["x_label"])
    axes.set_ylabel(content["y_label"])
    axes.legend(loc="upper left")
    return figure


def _row(axes: Axes, y: int, row: Mapping[str, Any], low: float, high: float, between: float) -> None:
    words: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8.5}
    weight = "bold" if row["head"] else "normal"
    if row.get("counts"):
        axes.text(-0.03, y, row["counts"], ha="right", **words)
    axes.text(-0.03 - between / PLOT, y, row["label"], ha="right", fontweight=weight, **words)
    axes.text(1.03, y, row["text"], ha="left", **words)
    if row["value"] is None:
        return
    style = look(row["look"])
    start, end = row["low"], row["high"]
    if start is not None or end is not None:  # an end that is not known, or infinite, is drawn as an arrow
        start, end = 0.0 if start is None else start, float("inf") if end is None else end
        inside = [max(start, low), min(end, high)]
        axes.plot(inside, [y, y], color=style.colour, linewidth=1.3, solid_capstyle="butt")
        for over, edge, marker in ((start < low, low, 8), (end > high, high, 9)):
            if over:
                axes.plot([edge], [y], marker=marker, color=style.colour, markersize=6, clip_on=False)
    if low <= row["value"] <= high:
        axes.plot([row["value"]], [y], marker=style.marker, color=style.colour, markersize=5.5)


def _span(rows: list[Mapping[str, Any]]) -> tuple[float, float]:
    ends = [e for r in rows if r["value"] is not None for e in (r["low"], r["high"], r["value"]) if e]
    low = max(min([0.5, *ends]) / 1.15, WIDEST[0])
    high = min(max([2.0, *ends]) * 1.15, WIDEST[1])
    return low, high


def _plain_log_ticks(axis: Any, low: float, high: float) -> None:
    """1, 2, 5 and their like, as few as fit."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    ratio = high / low
    steps: tuple[float, ...] = (1.0,) if ratio > 500 else (1.0, 3.0) if ratio > 60 else (1.0, 2.0, 5.0)
    if ratio < 5:
        steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    ticks = [s * 10.0**e for e in range(-3, 4) for s in steps if low <= s * 10.0**e <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FixedFormatter([f"{t:g}" for t in ticks]))


# Nomogram


_AXIS, _SCALE = 0.42, 6.0
"""Height of an axis of a nomogram and width of them all, inches."""
_CLOSEST = 0.035  # of the axis; labels nearer than this go above and below the line in turn


def draw_nomogram(content: Mapping[str, Any]) -> Figure:
    """Rows of axes on one scale of points, then the sum and the risks on a scale of their own.

    Parameters
    ----------
    content : `axes` and `scales`, each with `label` and `values` (text and points); `total`, the largest sum.
    """
    rows, scales = content["axes"], content["scales"]
    left = 0.2 + max(text_inches(r["label"], 8.5) for r in (*rows, *scales, {"label": "Sum of points"}))
    height = _AXIS * (len(rows) + len(scales) + 3)
    figure = new_figure(left + _SCALE + 0.3, height + 0.2)
    axes = place(figure, left, 0.1, _SCALE, height)
    axes.set_ylim(len(rows) + len(scales) + 2.2, -0.8)
    axes.set_xlim(0, 1)
    axes.axis("off")
    _scale(axes, 0, "Points", [(f"{p}", p / 100) for p in range(0, 101, 10)], strong=True)
    for number, row in enumerate(rows, 1):
        _scale(axes, number, row["label"], [(text, points / 100) for text, points in row["values"]])
    total = content["total"] or 1.0
    width = next(w for w in (10, 20, 25, 50, 100, 200, 1000) if total / w <= 12)
    sums = [(f"{p}", p / total) for p in range(0, int(total) + 1, width)]
    _scale(axes, len(rows) + 1, "Sum of points", sums, strong=True)
    for number, scale in enumerate(scales, len(rows) + 2):
        _scale(axes, number, scale["label"], [(text, points / total) for text, points in scale["values"]])
    return figure


def _scale(
    axes: Axes, y: int, label: str, values: Sequence[tuple[str, float]], *, strong: bool = False
) -> None:
    weight = "bold" if strong else "normal"
    axes.text(-0.02, y, label, ha="right", va="center", fontsize=8.5, fontweight=weight)
    if not values:
        axes.text(0, y, "beyond the points above", va="center", fontsize=8, color=FAINT)
        return
    ordered = sorted(values, key=lambda v: v[1])
    axes.plot([ordered[0][1], ordered[-1][1]], [y, y], color=INK, linewidth=0.9)
    before, below = -1.0, True
    for text, x in ordered:
        below = not below if x - before < _CLOSEST else True
        axes.plot([x, x], [y - 0.1, y + 0.1], color=INK, linewidth=0.8)
        height, va = (y + 0.2, "top") if below else (y - 0.2, "bottom")
        axes.text(x, height, text, ha="center", va=va, fontsize=7.5)
        before = x
