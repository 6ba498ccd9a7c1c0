"""Small charts side by side, one for each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from aiene.benchmark.report.style import label
from aiene.charts import new_figure, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Content = TypeVar("Content")

COLUMNS = 3
_LEFT, _BOTTOM, _TOP, _RIGHT = 0.78, 0.55, 0.55, 0.25


def panels(
    contents: Sequence[tuple[str, str, Content]],
    draw: Callable[[Axes, Content], None],
    *,
    labels: tuple[str, str],
    size: tuple[float, float] = (2.05, 1.9),
) -> Figure:
    """A grid of charts.

    Parameters
    ----------
    contents : title, figures told under it, and content of each.
    draw : draws a content.
    labels : of the x axis and of the y axis.
    size : inches of each chart's axes.
    """
    columns = min(COLUMNS, len(contents))
    lines = -(-len(contents) // columns)
    wide, high = _LEFT + size[0] + _RIGHT, _BOTTOM + size[1] + _TOP
    figure = new_figure(columns * wide, lines * high)
    for number, (title, told, content) in enumerate(contents):
        line, column = divmod(number, columns)
        axes = place(figure, column * wide + _LEFT, (lines - line - 1) * high + _BOTTOM, *size)
        draw(axes, content)
        axes.text(0, 1 + 0.19 / size[1], label(title, 27, lines=1), transform=axes.transAxes, fontsize=8.5,
                  fontweight="bold", va="bottom")  # fmt: skip
        axes.text(0, 1 + 0.05 / size[1], told, transform=axes.transAxes, fontsize=7.5, va="bottom")
        axes.set_xlabel(labels[0])
        if column == 0:
            axes.set_ylabel(labels[1])
            axes.yaxis.set_label_coords(-0.6 / size[0], 0.5)
    return figure
