"""Scaled Schoenfeld residuals over time: a trend is a hazard ratio that changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiene.charts import FAINT, new_figure, place
from aiene.risk.analyse.figures.style import look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT, COLUMNS = 2.55, 1.55, 3


def draw(content: Mapping[str, Any]) -> Figure:
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
