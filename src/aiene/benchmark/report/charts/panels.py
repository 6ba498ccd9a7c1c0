"""Small charts side by side, one for each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from aiene.benchmark.report.style import label, new_figure, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Content = TypeVar("Content")

COLUMNS = 3
_LEFT, _BOTTOM, _TOP, _RIGHT = 0.72, 0.55, 0.5, 0.12


def panels(
    contents: Sequence[tuple[str, Content]],
    draw: Callable[[Axes, Content], None],
    *,
    labels: tuple[str, str],
    size: tuple[float, float] = (2.0, 1.9),
) -> Figure:
    """A grid of charts with the same axes.

    Parameters
    ----------
    contents : title and content of each.
    draw : draws a content.
    labels : of the x axis and of the y axis.
    size : inches of each chart's axes.
    """
    columns = min(COLUMNS, len(contents))
    lines = -(-len(contents) // columns)
    wide, high = _LEFT + size[0] + _RIGHT, _BOTTOM + size[1] + _TOP
    figure = new_figure(max(columns * wide, 3.4), lines * high)
    for place_, (title, content) in enumerate(contents):
        line, column = divmod(place_, columns)
        axes = place(figure, column * wide + _LEFT, (lines - line - 1) * high + _BOTTOM, *size)
        draw(axes, content)
        axes.set_title(label(title, 27), fontsize=8.5)
        axes.set_xlabel(labels[0])
        if column == 0:
            axes.set_ylabel(labels[1])
    return figure
