"""Charts over time: survival and incidence curves with numbers at risk, and scaled Schoenfeld residuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiene.report.style import FAINT, INK, look, new_figure, place, text_inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PLOT_HEIGHT, ROW, PANEL = 3.0, 0.19, 4.3
TOP, BOTTOM, GAP = 0.62, 0.12, 0.35

WIDTH, HEIGHT, COLUMNS = 2.55, 1.55, 3


def draw_curves(content: Mapping[str, Any]) -> Figure:
    """One or more panels side by side.

    Parameters
    ----------
    content : `panels`, each with `title`, `curves` (`label`, `time`, `value`, `low`, `high`, `look`, `band`,
        and optional `censored` times), `risk` (`times`, `labels`, `counts`,
        and optional `censored`), `notes`; and `y_label`,
        `x_label`, `y_top`, `x_end`, `legend_at` (a place in words of matplotlib).
    """
    panels = content["panels"]
    longest = max((text_inches(label, 8) for p in panels for label in p["risk"]["labels"]), default=0.5)
    left = max(0.75, longest + 0.65)
    rows = max(len(p["risk"]["labels"]) for p in panels)
    legend = ROW * max(len(p["curves"]) for p in panels) + 0.1
    table = ROW * (rows + 1)
    height = TOP + legend + PLOT_HEIGHT + 0.55 + table + BOTTOM
    figure = new_figure((left + PANEL) * len(panels) + GAP, height)
    for number, panel in enumerate(panels):
        x = left * (number + 1) + PANEL * number
        axes = place(figure, x, BOTTOM + table + 0.55, PANEL, PLOT_HEIGHT)
        _curves(axes, panel, content)
        _heading(axes, panel, legend)
        below = place(figure, x, BOTTOM, PANEL, table)
        _risk_table(below, panel, content["x_end"], table)
    return figure


def _curves(axes: Axes, panel: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    end = content["x_end"]
    for curve in panel["curves"]:
        style = look(curve["look"])
        if curve.get("band", True):
            low, high = _filled(curve["low"], curve["value"]), _filled(curve["high"], curve["value"])
            axes.fill_between(
                curve["time"], low, high, step="post", color=style.colour, alpha=0.13, linewidth=0
            )
            for side in (low, high):
                axes.step(
                    curve["time"],
                    side,
                    where="post",
                    color=style.colour,
                    linewidth=0.5,
                    linestyle=style.dashes,
                )
        width = 1.6 if curve.get("band", True) else 1.1
        axes.step(
            curve["time"],
            curve["value"],
            where="post",
            color=style.colour,
            linestyle=style.dashes,
            linewidth=width,
        )
        _markers(axes, curve, end)
    axes.set_xlim(0, end)
    axes.set_ylim(0, content["y_top"])
    axes.set_xticks(panel["risk"]["times"])
    axes.set_xlabel(content["x_label"])
    axes.set_ylabel(content["y_label"])
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def _markers(axes: Axes, curve: Mapping[str, Any], end: float) -> None:
    """Markers along the line, at other places for each group: told apart without colour."""
    style = look(curve["look"])
    last = min(end, curve["time"][-1]) if curve["time"] else 0.0
    offset = 0.25 + 0.12 * (curve["look"] % 5)
    places = [year + offset for year in range(int(end) + 1) if year + offset < last]
    axes.plot(
        places,
        [_at(curve["time"], curve["value"], x) for x in places],
        linestyle="none",
        marker=style.marker,
        markersize=4.6,
        markerfacecolor="white" if curve["look"] % 2 else style.colour,
        markeredgecolor=style.colour,
        markeredgewidth=1.0,
    )


def _heading(axes: Axes, panel: Mapping[str, Any], legend_height: float) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for curve in panel["curves"]:
        style = look(curve["look"])
        handles.append(
            Line2D(
                [],
                [],
                color=style.colour,
                linestyle=style.dashes,
                marker=style.marker,
                markersize=4.6,
                markerfacecolor="white" if curve["look"] % 2 else style.colour,
                label=curve["label"],
            )
        )
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        borderaxespad=0.2,
        labelspacing=0.25,
        handletextpad=0.6,
        fontsize=8,
    )
    lift = legend_height / PLOT_HEIGHT
    axes.text(0, 1 + lift, panel["notes"], transform=axes.transAxes, fontsize=8, color=INK, va="bottom")
    axes.text(
        0,
        1 + lift + 0.21 / PLOT_HEIGHT,
        panel["title"],
        transform=axes.transAxes,
        fontsize=9.5,
        fontweight="bold",
        va="bottom",
    )


def _risk_table(axes: Axes, panel: Mapping[str, Any], end: float, height: float) -> None:
    axes.set_xlim(0, end)
    axes.set_ylim(height, 0)
    axes.axis("off")
    risk = panel["risk"]
    heading = "Number at risk (censored)" if "censored" in risk else "Number at risk"
    axes.text(0, ROW / 2, heading, fontsize=8, fontweight="bold", va="center", ha="left")
    for row, (label, counts) in enumerate(zip(risk["labels"], risk["counts"], strict=True)):
        y = ROW * (row + 1.5)
        axes.text(
            -0.09 * end, y, label, fontsize=8, va="center", ha="right", color=FAINT if not counts else INK
        )
        gone = risk["censored"][row] if "censored" in risk else [None] * len(counts)
        for time, count, censored in zip(risk["times"], counts, gone, strict=True):
            text = str(count) if censored is None else f"{count} ({censored})"
            axes.text(time, y, text, fontsize=7.5, va="center", ha="center")


def _at(times: Sequence[float], values: Sequence[float], x: float) -> float:
    """The height of a step line at x."""
    from bisect import bisect_right

    place_ = bisect_right(list(times), x) - 1
    return values[max(place_, 0)]


def _filled(bound: Sequence[float | None], value: Sequence[float]) -> list[float]:
    """A bound, where the curve itself stands in for a missing end."""
    return [v if b is None else b for b, v in zip(bound, value, strict=True)]


# Scaled Schoenfeld residuals


def draw_residuals(content: Mapping[str, Any]) -> Figure:
    """Small panels, one per term.

    Parameters
    ----------
    content : `panels` with `title`, `time`, `residual`, `smooth_time`, `smooth`, `low`, `high`,
        `coefficient`; `x_label`, `y_label`.
    """
    panels = content["panels"]
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    cell_w, cell_h = WIDTH + 0.8, HEIGHT + 0.75
    figure = new_figure(0.25 + cell_w * columns, 0.45 + cell_h * rows)
    for number, panel in enumerate(panels):
        column, row = number % columns, number // columns
        axes = place(figure, 0.75 + cell_w * column, 0.5 + cell_h * (rows - 1 - row), WIDTH, HEIGHT)
        axes.plot(panel["time"], panel["residual"], ".", color=FAINT, markersize=2.5, alpha=0.7)
        axes.axhline(panel["coefficient"], color=look(3).colour, linewidth=0.9, linestyle=(0, (4, 3)))
        if panel["smooth"]:
            axes.fill_between(
                panel["smooth_time"],
                panel["low"],
                panel["high"],
                color=look(0).colour,
                alpha=0.2,
                linewidth=0,
            )
            axes.plot(panel["smooth_time"], panel["smooth"], color=look(0).colour)
        axes.set_ylim(*panel["y_range"])
        axes.set_xlim(left=0)
        axes.set_title(panel["title"], fontsize=8)
        if column == 0:
            axes.set_ylabel(content["y_label"], fontsize=8)
        if number + columns >= len(panels):
            axes.set_xlabel(content["x_label"], fontsize=8)
    return figure
