"""The way of the patients from the table into the analysis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiene.charts import FAINT, INK, new_figure, place
from aiene.risk.analyse.figures.style import wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, MAIN, SIDE, LINE = 7.4, 3.2, 3.5, 0.165


def draw(content: Mapping[str, Any]) -> Figure:
    """Boxes down the left, what was left out on the right, the analysed strata at the foot.

    Parameters
    ----------
    content : `steps` with `text` and `out` (lines of what left before the next step; may be empty); `ends`,
        lines of the last box.
    """
    steps = content["steps"]
    texts = [wrapped(s["text"], MAIN - 0.2) for s in steps]
    outs = ["\n".join(wrapped(line, SIDE - 0.2) for line in s["out"]) for s in steps]
    heights = [0.2 + LINE * (t.count("\n") + 1) for t in texts]
    gaps = [0.28 if not out else 0.4 + LINE * (out.count("\n") + 1) for out in outs]
    ends = "\n".join(content["ends"])
    end_height = 0.2 + LINE * (ends.count("\n") + 1)
    total = sum(heights) + sum(gaps) + end_height + 0.4
    width = WIDTH if any(outs) else MAIN + 1.5
    figure = new_figure(width, total)
    axes = place(figure, 0, 0, width, total)
    axes.set_xlim(0, width)
    axes.set_ylim(total, 0)
    axes.axis("off")
    y = 0.25
    for text, height, out, gap in zip(texts, heights, outs, gaps, strict=True):
        _box(axes, 0.1, y, MAIN, height, text)
        _arrow(axes, (0.1 + MAIN / 2, y + height), (0.1 + MAIN / 2, y + height + gap))
        if out:
            middle = y + height + gap / 2
            tall = gap - 0.2
            _arrow(axes, (0.1 + MAIN / 2, middle), (MAIN + 0.45, middle))
            _box(axes, MAIN + 0.45, middle - tall / 2, SIDE, tall, out, faint=True)
        y += height + gap
    _box(axes, 0.1, y, MAIN, end_height, ends)
    return figure


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, *, faint: bool = False
) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (x, y),
            width,
            height,
            facecolor="white",
            edgecolor=FAINT if faint else INK,
            linewidth=0.9,
            linestyle="--" if faint else "-",
        )
    )
    axes.text(x + 0.1, y + height / 2, text, va="center", ha="left", fontsize=8.5)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate(
        "",
        xy=end,
        xytext=start,
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0},
    )
