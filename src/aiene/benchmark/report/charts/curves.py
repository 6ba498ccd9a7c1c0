"""Curves of all models: ROC, free-response and sensitivity by size in one chart, calibration side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from aiene.benchmark.records import SIZE_CLASSES
from aiene.benchmark.report.results_reader import TRACKS, Chart, Source
from aiene.report.document import Figure, by_column
from aiene.report.formatting import dig, in_words, shown
from aiene.report.style import FAINT, INK, RULE, label, legend_height, look, new_figure, place, rule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


_SIDE = 3.7

FROC_MOST = 10.0
"""False nodes per case at which the axis ends: beyond, no one would use a model."""

Content = TypeVar("Content")
COLUMNS = 3
_LEFT, _BOTTOM, _TOP, _RIGHT = 0.78, 0.55, 0.55, 0.25


class _Curve(NamedTuple):
    model: str
    told: str
    number: int
    across: tuple[float, ...]
    up: tuple[float, ...]
    mark: tuple[float, float] | None


def roc(source: Source, track: str) -> Figure | None:
    """ROC curves of one track: `on_truth` or `end_to_end`."""
    curves, rows = [], list[tuple[Any, ...]]()
    for model in source.run:
        figures = dig(model, "classification", track)
        across, up = dig(figures, "roc", "false_positive"), dig(figures, "roc", "true_positive")
        if not across or not up:
            continue
        thresholds = [None, *(dig(figures, "roc", "thresholds") or [])]
        thresholds = thresholds[: len(across)] + [None] * (len(across) - len(thresholds))
        rows += [(model["name"], *point) for point in zip(across, up, thresholds, strict=True)]
        clustered = dig(figures, "auc_clustered")
        area = clustered if dig(clustered, "value") is not None else dig(figures, "auc")
        told = f"AUC {in_words(area)}"
        number = source.number(model["name"])
        curves.append(_Curve(model["name"], told, number, tuple(across), tuple(up), _operating(figures)))
    if not curves:
        return None
    return Figure(
        f"roc_{track}",
        f"ROC of extranodal extension, {TRACKS[track]}",
        "The marker on each curve is the model at its own threshold; dotted: chance. Intervals of the area "
        "by bootstrap over patients.",
        lambda: _draw_curves(curves, across="1 − specificity", last=1, step=False),
        by_column(("model", "false_positive_rate", "true_positive_rate", "threshold"), rows),
    )


def _operating(figures: Any) -> tuple[float, float] | None:
    own = dig(figures, "threshold")
    for point in dig(figures, "operating") or []:
        sensitivity, specificity = (dig(point, n, "value") for n in ("sensitivity", "specificity"))
        if point.get("threshold") == own and sensitivity is not None and specificity is not None:
            return 1 - specificity, sensitivity
    return None


def froc(source: Source, _: str = "") -> Figure | None:
    """Free-response curves of node detection."""
    curves, rows = [], list[tuple[Any, ...]]()
    for model in source.run:
        found = model.get("detection")
        own = (dig(found, "false_per_case", "value"), dig(found, "sensitivity", "value"))
        mark = (float(own[0]), float(own[1])) if None not in own else None
        across, up, thresholds = (
            tuple(dig(found, "froc", name) or ()) for name in ("false_per_case", "sensitivity", "thresholds")
        )
        if not across and mark is None:
            continue
        rows += [(model["name"], *p, "curve") for p in zip(thresholds, across, up, strict=True)]
        if mark is not None:
            rows.append((model["name"], None, *mark, "all nodes of the model"))
        score = dig(found, "froc", "score")
        told = "no curve" if not across else f"mean sensitivity {shown(score)}"
        if mark is not None and mark[0] > FROC_MOST:
            told += f";\nends at {shown(mark[0], 'plain')} false nodes"
        number = source.number(model["name"])
        curves.append(_Curve(model["name"], told, number, across, up, mark))
    if not curves:
        return None
    reached = max(x for c in curves for x in (*c.across, *((c.mark[0],) if c.mark else ())))
    last = min(max(reached * 1.05, 1.0), FROC_MOST)
    return Figure(
        "froc",
        "Free-response curves of node detection",
        "Sensitivity against false nodes per case while the demanded confidence falls; the marker is the "
        "model with all its nodes. Models that give no confidence are a point. The axis ends at 10 false "
        "nodes at most. Mean sensitivity: over 1/8, 1/4, 1/2, 1, 2, 4 and 8 false nodes per case.",
        lambda: _draw_curves(curves, across="false nodes per case", last=last, step=True),
        by_column(("model", "confidence", "false_per_case", "sensitivity", "what"), rows),
    )


def _beside_legend(legend: float, size: tuple[float, float], *, below: float = 0.55) -> tuple[Drawing, Axes]:
    """A chart of that size (inches) with room at its right for a legend of that height."""
    height = max(size[1], legend)
    figure = new_figure(7.4, height + (below + 0.2))
    axes = place(figure, 0.62, below + (height - size[1]), *size)
    rule(axes)
    return figure, axes


def _draw_curves(curves: Sequence[_Curve], *, across: str, last: float, step: bool) -> Drawing:
    figure, axes = _beside_legend(legend_height(len(curves), line=0.55), (_SIDE, _SIDE))
    if not step:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, linestyle=(0, (1, 2)))
    axes.set_xlim(0, last)
    axes.set_ylim(0, 1)
    axes.set_xlabel(across)
    axes.set_ylabel("sensitivity")
    _lines(axes, curves, step=step)
    return figure


def _lines(axes: Axes, curves: Sequence[_Curve], *, step: bool) -> None:
    handles = []
    for curve in curves:
        style = look(curve.number)
        drawing: dict[str, Any] = {"color": style.colour, "linestyle": style.dashes, "linewidth": 1.6}
        marks: dict[str, Any] = {
            "marker": style.marker,
            "markersize": 6.5,
            "markeredgecolor": INK,
            "markeredgewidth": 0.6,
        }
        if curve.across:
            across, up = ((0.0, *curve.across), (0.0, *curve.up)) if step else (curve.across, curve.up)
            axes.plot(across, up, clip_on=step, drawstyle="steps-post" if step else "default", **drawing)
        if curve.mark is not None and curve.mark[0] <= axes.get_xlim()[1]:
            axes.plot(*curve.mark, color=style.colour, linestyle="", clip_on=False, zorder=4, **marks)
        name = f"{label(curve.model, 30)}\n{curve.told}"
        line = drawing if curve.across else {"color": style.colour, "linestyle": ""}
        handles += axes.plot([], [], label=name, **line, **(marks if curve.mark is not None else {}))
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.04, 1.02), borderaxespad=0, labelspacing=0.7,
        fontsize=8,
    )  # fmt: skip


# Small charts, one for each model


def panels(
    contents: Sequence[tuple[str, str, Content]],
    draw: Callable[[Axes, Content], None],
    *,
    labels: tuple[str, str],
    size: tuple[float, float] = (2.05, 1.9),
) -> Drawing:
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


# Calibration of the probability of ENE


class _Bin(NamedTuple):
    start: float
    stop: float
    predicted: float
    observed: float
    low: float
    high: float
    n: int


Bins = tuple[int, tuple[_Bin, ...]]
"""Of a model by its number."""


def calibration(source: Source, track: str) -> Figure | None:
    """Calibration of one track: `on_truth` or `end_to_end`."""
    contents, rows = [], list[tuple[Any, ...]]()
    for model in source.run:
        figures = dig(model, "classification", track, "calibration")
        bins = [_bin(one) for one in dig(figures, "table") or [] if dig(one, "n")]
        full = tuple(one for one in bins if one is not None)
        if not full:
            continue
        slope, intercept = (dig(figures, name, "value") for name in ("slope", "intercept"))
        told = f"slope {shown(slope, 'plain')}, in the large {shown(intercept, 'plain')}"
        contents.append((model["name"], told, (source.number(model["name"]), full)))
        rows += [(model["name"], *one) for one in full]
    if not contents:
        return None
    return Figure(
        f"calibration_{track}",
        f"Calibration of extranodal extension, {TRACKS[track]}",
        "Nodes in tenths of the predicted probability: mean prediction against the share with extranodal "
        "extension, with Wilson's 95 % interval; the row of numbers counts the nodes; dotted: perfect "
        "calibration.",
        lambda: panels(
            contents, _draw_calibration, labels=("predicted probability", "observed share"), size=(2.0, 2.0)
        ),
        by_column(
            ("model", "from", "to", "predicted", "observed", "observed_low", "observed_high", "nodes"), rows
        ),
    )


def _bin(one: dict[str, float]) -> _Bin | None:
    predicted, observed = one.get("predicted"), one.get("observed")
    if predicted is None or observed is None:
        return None
    start, stop = (float(one.get(side) or 0) for side in ("low", "high"))
    low, high = one.get("observed_low"), one.get("observed_high")
    ends = (observed if low is None else low, observed if high is None else high)
    return _Bin(start, stop, float(predicted), float(observed), *ends, int(one.get("n") or 0))


def _draw_calibration(axes: Axes, content: Bins) -> None:
    number, bins = content
    style = look(number)
    rule(axes)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, linestyle=(0, (1, 2)))
    across = [one.predicted for one in bins]
    up = [one.observed for one in bins]
    spread = [[o.observed - o.low for o in bins], [o.high - o.observed for o in bins]]
    spread = [[max(0.0, x) for x in side] for side in spread]
    axes.errorbar(
        across, up, yerr=spread, color=style.colour, linestyle=style.dashes, marker=style.marker,
        markersize=5, linewidth=1.2, elinewidth=0.9, capsize=2, ecolor=INK, clip_on=False,
    )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.17)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.axhline(1.0, color=RULE, linewidth=0.8)
    for one in bins:
        axes.text((one.start + one.stop) / 2, 1.1, str(one.n), fontsize=7, ha="center", va="center")


_WIDTH, _HEIGHT = 4.2, 2.9
_APART = 0.11  # between two models at one class, of the distance between two classes


class _Class(NamedTuple):
    name: str
    nodes: int
    sensitivity: float
    low: float
    high: float


Line = tuple[str, int, dict[str, _Class]]
"""A model, its number, and what it found of each class."""


def size_classes(source: Source, _: str = "") -> Figure | None:
    """Share of the truth's nodes that each model found, by their short axis."""
    found = [(model["name"], source.number(model["name"]), _classes(model)) for model in source.run]
    lines: list[Line] = [line for line in found if line[2]]
    if not lines:
        return None
    names = [name for name in SIZE_CLASSES if any(name in classes for *_, classes in lines)]
    rows: list[tuple[Any, ...]] = [(model, *one) for model, _, classes in lines for one in classes.values()]
    return Figure(
        "sensitivity_by_size",
        "Sensitivity by size of the node",
        "Share of the truth's nodes that were found, by their short axis in the axial slice of largest area, "
        "with its 95 % interval; under each class, the nodes of the truth. A class without any is left out.",
        lambda: _draw_size_classes(names, lines),
        by_column(("model", "short_axis", "nodes", "sensitivity", "low", "high"), rows),
    )


def _classes(model: dict[str, Any]) -> dict[str, _Class]:
    found: dict[str, _Class] = {}
    for one in dig(model, "detection", "by_size") or []:
        name, nodes = str(one.get("size_class")), int(one.get("n_truth") or 0)
        value, low, high = (dig(one, "sensitivity", part) for part in ("value", "low", "high"))
        if value is not None and nodes:
            ends = (value if end is None else end for end in (low, high))
            found[name] = _Class(name, nodes, value, *ends)
    return found


def _draw_size_classes(names: Sequence[str], lines: Sequence[Line]) -> Drawing:
    figure, axes = _beside_legend(legend_height(len(lines)), (_WIDTH, _HEIGHT), below=0.75)
    middle = (len(lines) - 1) / 2
    for turn, (model, number, classes) in enumerate(lines):
        style = look(number)
        shown = [(names.index(one.name) + _APART * (turn - middle), one) for one in classes.values()]
        axes.errorbar(
            [across for across, _ in shown],
            [one.sensitivity for _, one in shown],
            yerr=[
                [max(0.0, one.sensitivity - one.low) for _, one in shown],
                [max(0.0, one.high - one.sensitivity) for _, one in shown],
            ],
            color=style.colour, linestyle=style.dashes, marker=style.marker, markersize=6, linewidth=1.0,
            elinewidth=0.9, capsize=2, clip_on=False, label=label(model, 30),
        )  # fmt: skip
    nodes = {one.name: one.nodes for *_, classes in lines for one in classes.values()}
    ticks = [f"{name}\n{nodes[name]} {'node' if nodes[name] == 1 else 'nodes'}" for name in names]
    axes.set_xticks(range(len(names)), ticks)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(0, 1)
    axes.set_xlabel("short axis")
    axes.set_ylabel("sensitivity")
    axes.legend(loc="upper left", bbox_to_anchor=(1.04, 1.02), borderaxespad=0, fontsize=8)
    return figure


CHARTS = (
    Chart("detection", 1, froc),
    Chart("detection", 2, size_classes),
    Chart("classification", 1, roc),
    Chart("classification", 2, calibration),
)
