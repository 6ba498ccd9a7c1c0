"""Charts over time: survival and incidence curves with numbers at risk, and scaled Schoenfeld residuals."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
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
        time, value, band = curve["time"], curve["value"], curve.get("band", True)
        style = look(curve["look"])
        line: dict[str, Any] = {"where": "post", "color": style.colour, "linestyle": style.dashes}
        if band:  # the curve itself stands in for a missing end
            low, high = (
                [v if b is None else b for b, v in zip(curve[end], value, strict=True)]
                for end in ("low", "high")
            )
            axes.fill_between(time, low, high, step="post", color=style.colour, alpha=0.13, linewidth=0)
            axes.step(time, low, linewidth=0.5, **line)
            axes.step(time, high, linewidth=0.5, **line)
        axes.step(time, value, linewidth=1.6 if band else 1.1, **line)
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
    heights = [curve["value"][max(bisect_right(curve["time"], x) - 1, 0)] for x in places]
    point = _point(curve) | {"markeredgecolor": style.colour, "markeredgewidth": 1.0}
    axes.plot(places, heights, linestyle="none", **point)


def _point(curve: Mapping[str, Any]) -> dict[str, Any]:
    """How the markers of a curve are drawn."""
    style = look(curve["look"])
    face = "white" if curve["look"] % 2 else style.colour
    return {"marker": style.marker, "markersize": 4.6, "markerfacecolor": face}


def _heading(axes: Axes, panel: Mapping[str, Any], legend_height: float) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for curve in panel["curves"]:
        style = look(curve["look"])
        line: dict[str, Any] = {"color": style.colour, "linestyle": style.dashes, "label": curve["label"]}
        handles.append(Line2D([], [], **line, **_point(curve)))
    place_of: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2}
    axes.legend(handles=handles, **place_of, labelspacing=0.25, handletextpad=0.6, fontsize=8)
    lift = 1 + legend_height / PLOT_HEIGHT
    above: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom"}
    axes.text(0, lift, panel["notes"], fontsize=8, color=INK, **above)
    axes.text(0, lift + 0.21 / PLOT_HEIGHT, panel["title"], fontsize=9.5, fontweight="bold", **above)


def _risk_table(axes: Axes, panel: Mapping[str, Any], end: float, height: float) -> None:
    axes.set_xlim(0, end)
    axes.set_ylim(height, 0)
    axes.axis("off")
    risk = panel["risk"]
    heading = "Number at risk (censored)" if "censored" in risk else "Number at risk"
    axes.text(0, ROW / 2, heading, fontsize=8, fontweight="bold", va="center", ha="left")
    for row, (label, counts) in enumerate(zip(risk["labels"], risk["counts"], strict=True)):
        y, colour = ROW * (row + 1.5), INK if counts else FAINT
        axes.text(-0.09 * end, y, label, fontsize=8, va="center", ha="right", color=colour)
        gone = risk["censored"][row] if "censored" in risk else [None] * len(counts)
        for time, count, censored in zip(risk["times"], counts, gone, strict=True):
            text = str(count) if censored is None else f"{count} ({censored})"
            axes.text(time, y, text, fontsize=7.5, va="center", ha="center")


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
            time, colour = panel["smooth_time"], look(0).colour
            axes.fill_between(time, panel["low"], panel["high"], color=colour, alpha=0.2, linewidth=0)
            axes.plot(time, panel["smooth"], color=colour)
        axes.set_ylim(*panel["y_range"])
        axes.set_xlim(left=0)
        axes.set_title(panel["title"], fontsize=8)
        if column == 0:
            axes.set_ylabel(content["y_label"], fontsize=8)
        if number + columns >= len(panels):
            axes.set_xlabel(content["x_label"], fontsize=8)
    return figure
