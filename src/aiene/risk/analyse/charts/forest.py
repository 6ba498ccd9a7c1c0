"""Hazard ratios on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiene.report.style import FAINT, RULE, look, new_figure, place, text_inches

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
        (patients and events); `x_label`, `heading` (over the column of words); `looks` with the labels of the
        point shapes, may be empty.
    """
    rows = content["rows"]
    counted = max((text_inches(r.get("counts", ""), 8.5) for r in rows), default=0.0)
    between = max(counted, 1.0) + 0.25 if counted else 0.0
    left = 0.15 + between + max([1.0, *(text_inches(r["label"], 8.5) for r in rows)])
    right = 0.2 + max([1.2, *(text_inches(r["text"], 8.5) for r in rows)])
    tall = ROW * len(rows)
    extra = ROW if content["looks"] else 0.0
    figure = new_figure(left + PLOT + right, TOP + extra + tall + BOTTOM)
    axes = place(figure, left, BOTTOM, PLOT, tall)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    low, high = _span(rows)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _ticks(axes, low, high)
    axes.axvline(1, color=FAINT, linewidth=0.8)
    for y, row in enumerate(rows):
        _row(axes, y, row, low, high, between)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(content["x_label"])
    lift = 1 + 0.06 / tall
    axes.text(
        1.03, lift, content["heading"], transform=axes.transAxes, fontsize=8.5, fontweight="bold", va="bottom"
    )
    if between:
        axes.text(
            -0.03,
            lift,
            "n / events",
            transform=axes.transAxes,
            fontsize=8.5,
            fontweight="bold",
            va="bottom",
            ha="right",
        )
    _legend(axes, content["looks"], tall)
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
    axes.set_xticks(
        points["x"], [f"{t}\nn = {n}" for t, n in zip(content["labels"], points["n"], strict=True)]
    )
    axes.set_xlabel(content["x_label"])
    axes.set_ylabel(content["y_label"])
    axes.legend(loc="upper left")
    return figure


def _row(axes: Axes, y: int, row: Mapping[str, Any], low: float, high: float, between: float) -> None:
    weight = "bold" if row["head"] else "normal"
    if row.get("counts"):
        place_of = axes.get_yaxis_transform()
        axes.text(-0.03, y, row["counts"], transform=place_of, ha="right", va="center", fontsize=8.5)
    axes.text(
        -0.03 - between / PLOT,
        y,
        row["label"],
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="center",
        fontsize=8.5,
        fontweight=weight,
    )
    axes.text(
        1.03, y, row["text"], transform=axes.get_yaxis_transform(), ha="left", va="center", fontsize=8.5
    )
    if row["value"] is None:
        return
    style = look(row["look"])
    start, end = row["low"], row["high"]
    if start is not None or end is not None:  # an end that is not known, or infinite, is drawn as an arrow
        start, end = 0.0 if start is None else start, float("inf") if end is None else end
        axes.plot(
            [max(start, low), min(end, high)],
            [y, y],
            color=style.colour,
            linewidth=1.3,
            solid_capstyle="butt",
        )
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


def _ticks(axes: Axes, low: float, high: float) -> None:
    _plain_log_ticks(axes.xaxis, low, high)
    for tick in axes.get_xticks():
        axes.axvline(tick, color=RULE, linewidth=0.5, zorder=0)


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


def _legend(axes: Axes, looks: list[str], tall: float) -> None:
    if not looks:
        return
    for number, label in enumerate(looks):
        style = look(number)
        axes.plot([], [], marker=style.marker, color=style.colour, linewidth=1.3, label=label)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1 + 0.26 / tall), ncols=len(looks), borderaxespad=0)
