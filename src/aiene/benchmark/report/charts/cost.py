"""What a model costs in time against how well it segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from aiene.benchmark.report.cells import dig
from aiene.benchmark.report.record import Chart, Value
from aiene.benchmark.report.source import Source
from aiene.benchmark.report.style import label, legend_height, look, rule
from aiene.charts import INK, new_figure, place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 4.2, 3.4


class _Point(NamedTuple):
    model: str
    number: int
    reading_only: bool
    seconds: float
    fast: float
    slow: float
    dice: float
    low: float
    high: float


def cost(source: Source, name: str) -> Chart | None:
    """Median seconds per case against mean Dice of one label."""
    points = [p for m in source.segmenters if (p := _point(source, m, name)) is not None]
    if not points:
        return None
    rows: list[tuple[Value, ...]] = [
        (p.model, p.seconds, p.fast, p.slow, p.dice, p.low, p.high, "reading" if p.reading_only else "all")
        for p in points
    ]
    return Chart(
        "time_dice",
        f"Time of a case against Dice of {name}",
        "Median seconds of a case with quartiles, mean Dice with its 95 % interval. Open markers: "
        "predictions that lay ready, whose time is that of reading.",
        ("model", "seconds", "seconds_q1", "seconds_q3", f"dice_{name}", "low", "high", "time_of"),
        tuple(rows),
        lambda: _draw(points, name),
    )


def _point(source: Source, model: dict[str, object], name: str) -> _Point | None:
    total = dig(model, "resources", "seconds", "total")
    seconds = dig(total, "median", "value")
    dice = dig(model, "segmentation", name, "dice", "mean")
    middle = dig(dice, "value")
    if seconds is None or middle is None:
        return None
    fast, slow = (seconds if dig(total, q) is None else dig(total, q) for q in ("q1", "q3"))
    low, high = (middle if dig(dice, side) is None else dig(dice, side) for side in ("low", "high"))
    of_files = model.get("kind") == "predictions"
    which = str(model["name"])
    return _Point(which, source.number(which), of_files, seconds, fast, slow, middle, low, high)


def _draw(points: Sequence[_Point], name: str) -> Figure:
    height = max(_HEIGHT, legend_height(len(points)))
    figure = new_figure(7.4, height + 0.75)
    axes = place(figure, 0.62, 0.55 + height - _HEIGHT, _WIDTH, _HEIGHT)
    rule(axes)
    for point in points:
        style = look(point.number)
        axes.errorbar(
            point.seconds,
            point.dice,
            xerr=[[max(0.0, point.seconds - point.fast)], [max(0.0, point.slow - point.seconds)]],
            yerr=[[max(0.0, point.dice - point.low)], [max(0.0, point.high - point.dice)]],
            color=style.colour,
            marker=style.marker,
            markersize=7.5,
            markerfacecolor="white" if point.reading_only else style.colour,
            markeredgecolor=style.colour if point.reading_only else INK,
            markeredgewidth=1.4 if point.reading_only else 0.6,
            elinewidth=1.1,
            capsize=2.5,
            linestyle="",
            label=label(point.model, 28),
            clip_on=False,
        )
    longest = max(point.slow for point in points)
    axes.set_xlim(0, longest * 1.08 or 1.0)
    axes.set_ylim(0, 1)
    axes.set_xlabel("seconds of a case")
    axes.set_ylabel(f"mean Dice of {name}")
    axes.legend(loc="upper left", bbox_to_anchor=(1.04, 1.02), borderaxespad=0, labelspacing=0.8)
    return figure
