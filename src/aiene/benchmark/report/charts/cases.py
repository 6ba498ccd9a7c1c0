"""Charts over the cases of a benchmark.

Box plots of Dice with every case as a point; time against Dice; agreement of volumes (Bland and Altman,
Lancet 1986, 1:307); stability of ranks, as the share of resamples in which each model had each rank
(Wiesenfarth et al., Sci. Rep. 2021, 11:2369).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from aiene.benchmark.comparators.protocol import reads_files
from aiene.benchmark.report.charts.curves import panels
from aiene.benchmark.report.results_reader import Chart, Source, endpoint_title, value
from aiene.report.document import Figure, by_column
from aiene.report.formatting import dig
from aiene.report.style import FAINT, INK, label, legend_height, look, new_figure, place, rule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


_ROW = 0.52  # inches for each model

_WIDTH, _HEIGHT = 4.2, 3.4
_NORMAL = 1.959964  # two-sided 95 % of a normal distribution
_CELL_WIDTH, _CELL_HEIGHT = 0.66, 0.44
_DARK = 0.55


class _Points(NamedTuple):
    model: str
    number: int
    values: tuple[float, ...]


def boxes(source: Source, name: str) -> Figure | None:
    """Dice of one label.

    Parameters
    ----------
    name : of the label.
    """
    rows, groups = [], []
    for model in source.segmenters:
        having = _counted(source.rows_of(model["name"], failed=True), name)
        rows += [(model["name"], case, dice) for case, dice in having]
        points = tuple(dice for _, dice in having)
        groups.append(_Points(model["name"], source.number(model["name"]), points))
    if not rows:
        return None
    return Figure(
        f"dice_{name.lower()}",
        f"Dice of {name}, case by case",
        "Box: quartiles, with the median as a line; whiskers: to the farthest case within 1.5 times the box; "
        "every case is a point; diamond: mean. A case without a prediction is 0; one where the label is in "
        "neither truth nor prediction is 1.",
        lambda: _draw(groups, f"Dice of {name}"),
        by_column(("model", "case_id", f"dice_{name}"), rows),
    )


def _counted(rows: Sequence[Mapping[str, str]], name: str) -> list[tuple[str, float]]:
    """Dice of each case as it counts: 0 without a prediction, 1 where both masks are empty."""
    result = []
    for row in rows:
        dice = value(row, f"dice_{name}")
        if dice is None:
            dice = 1.0 if row.get("status") == "ok" else 0.0
        result.append((row.get("case_id", ""), dice))
    return result


def _draw(groups: Sequence[_Points], what: str) -> Drawing:
    height = _ROW * len(groups)
    figure = new_figure(7.6, height + 0.75)
    axes = place(figure, 2.15, 0.55, 4.6, height)
    for line, group in enumerate(groups):
        _box(axes, line, group)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(0, 1.02)
    axes.set_yticks(range(len(groups)), [label(group.model) for group in groups])
    axes.tick_params(axis="y", length=0, pad=9)
    axes.set_xlabel(what)
    rule(axes, "x")
    return figure


def _box(axes: Axes, line: int, group: _Points) -> None:
    style = look(group.number)
    count = len(group.values)
    text = f"n = {count}" if count else "no case"
    axes.text(1.05, line, text, va="center", ha="left", fontsize=8, color=FAINT, clip_on=False)
    if not count:
        return
    if count > 1:
        parts: dict[str, Any] = {
            f"{part}props": {"color": INK, "linewidth": 1.0} for part in ("box", "whisker", "cap")
        }
        axes.boxplot(
            [group.values],
            positions=[line],
            orientation="horizontal",
            widths=0.56,
            showfliers=False,
            manage_ticks=False,
            medianprops={"color": INK, "linewidth": 2.0},
            **parts,
        )
    heights = [line + 0.4 * (_scatter(i) - 0.5) for i in range(count)]
    axes.plot(
        group.values, heights, style.marker, color=style.colour, markersize=4.5, alpha=0.8,
        markeredgewidth=0, clip_on=False, zorder=3,
    )  # fmt: skip
    mean = sum(group.values) / count
    axes.plot(
        [mean], [line], "D", markersize=6, markerfacecolor="white", markeredgecolor=INK, zorder=4,
        clip_on=False,
    )  # fmt: skip


def _scatter(index: int) -> float:
    """Van der Corput's sequence: points spread evenly, without chance."""
    result, weight, rest = 0.0, 0.5, index + 1
    while rest:
        result += weight * (rest % 2)
        rest, weight = rest // 2, weight / 2
    return result


# Time against Dice


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


def cost(source: Source, name: str) -> Figure | None:
    """Median seconds per case against mean Dice of one label."""
    points = [p for m in source.segmenters if (p := _point(source, m, name)) is not None]
    if not points:
        return None
    rows: list[tuple[Any, ...]] = [(p.model, *p[3:], "reading" if p.reading_only else "all") for p in points]
    return Figure(
        "time_dice",
        f"Time of a case against Dice of {name}",
        "Median seconds of a case with quartiles, mean Dice with its 95 % interval. Open markers: "
        "existing predictions, whose time is that of reading.",
        lambda: _draw_time_against_dice(points, name),
        by_column(
            ("model", "seconds", "seconds_q1", "seconds_q3", f"dice_{name}", "low", "high", "time_of"), rows
        ),
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
    of_files = reads_files(str(model.get("kind")))
    which = str(model["name"])
    return _Point(which, source.number(which), of_files, seconds, fast, slow, middle, low, high)


def _draw_time_against_dice(points: Sequence[_Point], name: str) -> Drawing:
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


# Bland-Altman plot of volumes


class _Agreement(NamedTuple):
    number: int
    means: tuple[float, ...]
    differences: tuple[float, ...]

    @property
    def bias(self) -> float:
        return fmean(self.differences)

    @property
    def limits(self) -> tuple[float, float] | None:
        """Between which 95 % of the differences are expected; None of a single case."""
        if len(self.differences) < 2:
            return None
        spread = _NORMAL * stdev(self.differences)
        return self.bias - spread, self.bias + spread


def volumes(source: Source, name: str) -> Figure | None:
    """Volume of one label, prediction less truth against the mean of both."""
    rows: list[tuple[Any, ...]] = []
    found: dict[str, list[tuple[float, float]]] = {}
    for model in source.segmenters:
        for row in source.rows_of(model["name"]):
            truth, said = value(row, f"truth_ml_{name}"), value(row, f"predicted_ml_{name}")
            if truth is None or said is None or truth + said == 0:
                continue
            mean, difference = (truth + said) / 2, said - truth
            rows.append((model["name"], row["case_id"], truth, said, mean, round(difference, 6)))
            found.setdefault(model["name"], []).append((mean, difference))
    if not rows:
        return None
    contents = []
    for name_of, points in found.items():
        means, differences = zip(*points, strict=True)
        content = _Agreement(source.number(name_of), means, differences)
        told = f"mean {_ml(content.bias)}"
        if content.limits is not None:
            told += f" (limits {_ml(content.limits[0])} to {_ml(content.limits[1])})"
        contents.append((name_of, f"{told} ml", content))
    return Figure(
        f"volumes_{name.lower()}",
        f"Volume of {name}: prediction less truth",
        "Each point is a case. Line: mean difference; dashed: limits of agreement (mean ± 1.96 standard "
        "deviations), both written above; dotted: no difference. Each panel has its own axes. Cases where "
        "both volumes are 0 are left out.",
        lambda: panels(contents, _draw_volumes, labels=("mean of both (ml)", "difference (ml)")),
        by_column(("model", "case_id", "truth_ml", "predicted_ml", "mean_ml", "difference_ml"), rows),
    )


def _draw_volumes(axes: Axes, content: _Agreement) -> None:
    style = look(content.number)
    rule(axes)
    axes.axhline(0, color=FAINT, linewidth=1.0, linestyle=(0, (1, 2)))
    axes.axhline(content.bias, color=INK, linewidth=1.3)
    for limit in content.limits or ():
        axes.axhline(limit, color=INK, linewidth=1.0, linestyle=(0, (5, 2)))
    axes.plot(
        content.means, content.differences, style.marker, color=style.colour, markersize=4.5, alpha=0.8,
        markeredgewidth=0, clip_on=False,
    )  # fmt: skip
    reach = max(abs(d) for d in (*content.differences, *(content.limits or ()))) * 1.15
    axes.set_xlim(0, max(content.means) * 1.06)
    axes.set_ylim(-(reach or 1.0), reach or 1.0)


def _ml(volume: float) -> str:
    digits = 2 if abs(volume) < 100 else 0
    return f"{volume:+.{digits}f}".replace("-", "−")


# Stability of ranks


def _of_primary(source: Source, by: str) -> Figure | None:
    primary = dig(source.summary, "primary", "endpoint")
    for one in source.summary.get("ranking") or []:
        if one.get("endpoint") == primary and str(one.get("by")) == by:
            return rank_stability(one)
    return None


def rank_stability(ranking: dict[str, Any]) -> Figure | None:
    """The chart of one entry of the summary's `ranking`; None where there is nothing to rank."""
    models = [model for model in ranking.get("models") or [] if model.get("share_by_rank")]
    if len(models) < 2:
        return None
    name, what = str(ranking.get("label", "")), str(ranking.get("metric", ""))
    by = "_by_patient" if ranking.get("by") == "rank_then_mean" else ""
    said = " (mean of each patient's ranks)" if by else ""
    columns = ("model", *(f"rank_{i + 1}" for i in range(len(models))))
    rows: list[tuple[Any, ...]] = [(m["model"], *m["share_by_rank"]) for m in models]
    return Figure(
        f"ranks_{what}_{name}{by}".lower().replace(" ", "_"),
        f"Stability of the ranks by {endpoint_title(what, name)}{said}",
        f"Share of {dig(ranking, 'resamples')} resamples of the patients in which each model had each rank, "
        "in per cent; the frame is its rank over all patients. A row with one dark cell is a firm rank.",
        lambda: _draw_rank_stability(models),
        by_column(columns, rows),
    )


def _draw_rank_stability(models: Sequence[dict[str, Any]]) -> Drawing:
    from matplotlib.patches import Rectangle

    count = len(models)
    width, height = _CELL_WIDTH * count, _CELL_HEIGHT * count
    figure = new_figure(2.3 + max(width, 1.6), height + 0.75)
    axes = place(figure, 2.15, 0.15, width, height)
    for line, model in enumerate(models):
        shares = list(model["share_by_rank"])[:count]
        for column, share in enumerate(shares):
            _cell(axes, line, column, float(share or 0))
        rank = int(model.get("rank") or line + 1) - 1
        frame: dict[str, Any] = {"fill": False, "edgecolor": INK, "linewidth": 1.8}
        axes.add_patch(Rectangle((rank + 0.04, line + 0.06), 0.92, 0.88, **frame))
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    axes.set_xticks([i + 0.5 for i in range(count)], [str(i + 1) for i in range(count)])
    axes.set_yticks([i + 0.5 for i in range(count)], [label(str(m["model"])) for m in models])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("rank")
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def _cell(axes: Any, line: int, column: int, share: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    colours = LinearSegmentedColormap.from_list("share", ["#ffffff", "#0072B2"])
    axes.add_patch(
        Rectangle((column, line), 1, 1, facecolor=colours(share), edgecolor="#d8d8d8", linewidth=0.6)
    )
    if share > 0:
        text = "< 1" if share < 0.01 else f"{100 * share:.0f}"
        if share < 1 and text == "100":
            text = "> 99"
        axes.text(
            column + 0.5, line + 0.5, text, ha="center", va="center", fontsize=8.5,
            color="white" if share > _DARK else INK,
        )  # fmt: skip


CHARTS = (
    Chart("segmentation", 1, boxes),
    Chart("segmentation", 2, volumes),
    Chart("ranks", 1, _of_primary),
    Chart("resources", 1, cost),
)
