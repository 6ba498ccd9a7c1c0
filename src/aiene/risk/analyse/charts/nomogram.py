"""A nomogram: an axis of points for each factor, their sum, and the risks that belong to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiene.report.style import FAINT, INK, new_figure, place, text_inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, PLOT = 0.42, 6.0
_CLOSEST = 0.035  # of the axis; labels nearer than this go above and below the line in turn


def draw_nomogram(content: Mapping[str, Any]) -> Figure:
    """Rows of axes on one scale of points, then the sum and the risks on a scale of their own.

    Parameters
    ----------
    content : `axes` and `scales`, each with `label` and `values` (text and points); `total`, the largest sum.
    """
    rows, scales = content["axes"], content["scales"]
    left = 0.2 + max(text_inches(r["label"], 8.5) for r in (*rows, *scales, {"label": "Sum of points"}))
    height = ROW * (len(rows) + len(scales) + 3)
    figure = new_figure(left + PLOT + 0.3, height + 0.2)
    axes = place(figure, left, 0.1, PLOT, height)
    axes.set_ylim(len(rows) + len(scales) + 2.2, -0.8)
    axes.set_xlim(0, 1)
    axes.axis("off")
    _line(axes, 0, "Points", [(f"{p}", p / 100) for p in range(0, 101, 10)], strong=True)
    for number, row in enumerate(rows, 1):
        _line(axes, number, row["label"], [(text, points / 100) for text, points in row["values"]])
    total = content["total"] or 1.0
    width = next(w for w in (10, 20, 25, 50, 100, 200, 1000) if total / w <= 12)
    sums = [(f"{p}", p / total) for p in range(0, int(total) + 1, width)]
    _line(axes, len(rows) + 1, "Sum of points", sums, strong=True)
    for number, scale in enumerate(scales, len(rows) + 2):
        _line(axes, number, scale["label"], [(text, points / total) for text, points in scale["values"]])
    return figure


def _line(
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
        axes.text(
            x, y + 0.2 if below else y - 0.2, text, ha="center", va="top" if below else "bottom", fontsize=7.5
        )
        before = x
