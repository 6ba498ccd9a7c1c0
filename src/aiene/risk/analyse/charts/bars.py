"""Charts of counts: bars by group, migration from old to new groups, a shaded table, and the patient flow."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from aiene.report.style import FAINT, INK, look, new_figure, place, text_inches, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, MAIN, SIDE, LINE = 7.4, 3.2, 3.5, 0.165


def draw_bars(content: Mapping[str, Any]) -> Figure:
    """Bars side by side: share of each group's patients by number of AI-ENE nodes.

    Parameters
    ----------
    content : `labels` along the axis; `series` with `label`, `value` (shares), `count`; `x_label`, `y_label`.
    """
    series, labels = content["series"], content["labels"]
    figure = new_figure(7.2, 3.9 + 0.19 * len(series))
    axes = place(figure, 0.8, 0.6, 6.2, 2.8)
    width = 0.82 / len(series)
    top = max((v for s in series for v in s["value"]), default=1.0)
    small = 7.5 if len(series) < 4 else 6.2
    for which, one in enumerate(series):
        style, values = look(which), one["value"]
        face = "white" if style.hatch else style.colour
        edge: dict[str, Any] = {"edgecolor": style.colour, "hatch": style.hatch, "linewidth": 0.9}
        xs = [number + width * (which - (len(series) - 1) / 2) for number in range(len(labels))]
        axes.bar(xs, values, width=width * 0.94, facecolor=face, label=one["label"], **edge)
        for x, value, count in zip(xs, values, one["count"], strict=True):
            axes.text(x, value + 0.012 * top, str(count), ha="center", va="bottom", fontsize=small)
    axes.set_ylim(0, top * 1.1)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel(content["x_label"])
    axes.set_ylabel(content["y_label"])
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), labelspacing=0.25, borderaxespad=0.2)
    return figure


def draw_migration(content: Mapping[str, Any]) -> Figure:
    """Ribbons from the old groups on the left to the new ones on the right, as wide as their patients.

    Parameters
    ----------
    content : `old`, `new` (labels, best first), `counts` (old x new), `old_title`, `new_title`.
    """
    old, new, counts = content["old"], content["new"], content["counts"]
    total = sum(map(sum, counts)) or 1
    gap = 0.05
    left = max(1.0, *(text_inches(t, 8.5) for t in old)) + 0.35
    right = max(1.0, *(text_inches(t, 8.5) for t in new)) + 0.35
    figure = new_figure(left + 4.0 + right, 4.4)
    axes = place(figure, left, 0.15, 4.0, 3.6)
    axes.set_xlim(0, 1)
    axes.set_ylim(1 + gap * (max(len(old), len(new)) - 1), 0)
    axes.axis("off")
    sums_old = [sum(row) / total for row in counts]
    sums_new = [sum(row[j] for row in counts) / total for j in range(len(new))]
    starts_old, starts_new = _starts(sums_old, gap), _starts(sums_new, gap)
    at_old, at_new = list(starts_old), list(starts_new)
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            if count:
                _ribbon(axes, at_old[i], at_new[j], count / total, i, str(count))
                at_old[i] += count / total
                at_new[j] += count / total
    for x, labels, starts, sizes, ha in (
        (0.0, old, starts_old, sums_old, "right"),
        (1.0, new, starts_new, sums_new, "left"),
    ):
        for label, start, size in zip(labels, starts, sizes, strict=True):
            axes.plot([x, x], [start, start + size], color=INK, linewidth=5, solid_capstyle="butt")
            text = f"{label}\nn = {round(size * total)}"
            beside = x - 0.03 if x == 0 else x + 0.03
            axes.text(beside, start + size / 2, text, ha=ha, va="center", fontsize=8.5)
    for x, title in ((0.0, content["old_title"]), (1.0, content["new_title"])):
        axes.text(x, -0.03, title, ha="center", va="bottom", fontsize=9, fontweight="bold")
    return figure


def _starts(sizes: list[float], gap: float) -> list[float]:
    return list(accumulate((size + gap for size in sizes[:-1]), initial=0.0))


def _ribbon(axes: Axes, start: float, end: float, size: float, which: int, text: str) -> None:
    from matplotlib.colors import to_rgb

    style = look(which)
    x = np.linspace(0.012, 0.988, 60)
    ease = 3 * x**2 - 2 * x**3
    upper = start + (end - start) * ease
    # the colour on white at about a quarter of its strength, opaque, so that hatching over it stays strong
    light = tuple(1 - 0.28 * (1 - part) for part in to_rgb(style.colour))
    edge: dict[str, Any] = {"edgecolor": style.colour, "hatch": style.hatch, "linewidth": 0.6}
    axes.fill_between(x, upper, upper + size, facecolor=light, **edge)
    if size > 0.02:
        y = start + (end - start) * 0.104 + size / 2
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}
        axes.text(0.2, y, text, ha="center", va="center", fontsize=7.5, bbox=box)


def draw_heat(content: Mapping[str, Any]) -> Figure:
    """A table whose cells are the darker, the larger they are.

    Parameters
    ----------
    content : `rows`, `columns` (labels), `values` (rows x columns, shares of the row), `texts`, `row_title`,
        `column_title`.
    """
    rows, columns = content["rows"], content["columns"]
    cell_w, cell_h = 1.05, 0.42
    left = max(1.0, *(text_inches(t, 8.5) for t in rows)) + 0.5
    figure = new_figure(left + cell_w * len(columns) + 0.2, 1.0 + cell_h * len(rows) + 0.1)
    axes = place(figure, left, 0.1, cell_w * len(columns), cell_h * len(rows))
    axes.imshow(content["values"], cmap="Greys", vmin=0, vmax=1.25, aspect="auto")
    for i, row in enumerate(content["texts"]):
        for j, text in enumerate(row):
            dark = (content["values"][i][j] or 0) > 0.6
            axes.text(j, i, text, ha="center", va="center", fontsize=8.5, color="white" if dark else INK)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), [wrapped(c, cell_w) for c in columns])
    axes.xaxis.set_ticks_position("top")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(content["column_title"], fontweight="bold", loc="left")
    axes.set_ylabel(content["row_title"], fontweight="bold")
    return figure


# Patient flow


def draw_flow(content: Mapping[str, Any]) -> Figure:
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

    edge: dict[str, Any] = {"edgecolor": FAINT, "linestyle": "--"} if faint else {"edgecolor": INK}
    axes.add_patch(Rectangle((x, y), width, height, facecolor="white", linewidth=0.9, **edge))
    axes.text(x + 0.1, y + height / 2, text, va="center", ha="left", fontsize=8.5)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=arrow)
