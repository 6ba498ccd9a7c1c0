"""Agreement of volumes, as Bland and Altman (Lancet 1986, 1:307) draw it."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

from aiene.benchmark.report.charts.panels import panels
from aiene.benchmark.report.record import Chart, Value
from aiene.benchmark.report.source import Source, value
from aiene.benchmark.report.style import FAINT, INK, look, rule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NORMAL = 1.959964  # two-sided 95 % of a normal distribution


class _Agreement(NamedTuple):
    number: int
    means: tuple[float, ...]
    differences: tuple[float, ...]
    across: float
    up: float

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


def volumes(source: Source, name: str) -> Chart | None:
    """Volume of one label, prediction less truth against the mean of both."""
    rows: list[tuple[Value, ...]] = []
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
    across = max(mean for points in found.values() for mean, _ in points) * 1.06
    up = _reach(found)
    contents = [
        (model, _Agreement(source.number(model), *_columns(points), across, up))
        for model, points in found.items()
    ]
    return Chart(
        f"volumes_{name.lower()}",
        f"Volume of {name}: prediction less truth",
        "Each point is a case. Line: mean difference; dashed: limits of agreement (mean ± 1.96 standard "
        "deviations); dotted: no difference. All panels have the same axes. Cases where both volumes are 0 are "
        "left out.",
        ("model", "case_id", "truth_ml", "predicted_ml", "mean_ml", "difference_ml"),
        tuple(rows),
        lambda: panels(contents, _draw, labels=("mean of both (ml)", "difference (ml)")),
    )


def _columns(points: list[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(mean for mean, _ in points), tuple(difference for _, difference in points)


def _reach(found: dict[str, list[tuple[float, float]]]) -> float:
    """How far the axis of differences goes up and down."""
    reach = []
    for points in found.values():
        one = _Agreement(0, *_columns(points), 0.0, 0.0)
        reach += [abs(d) for d in (*one.differences, *(one.limits or ()))]
    return (max(reach) or 1.0) * 1.15


def _draw(axes: Axes, content: _Agreement) -> None:
    style = look(content.number)
    rule(axes)
    axes.axhline(0, color=FAINT, linewidth=1.0, linestyle=(0, (1, 2)))
    axes.axhline(content.bias, color=INK, linewidth=1.3)
    told = f"mean {_ml(content.bias)} ml"
    if content.limits is not None:
        for limit in content.limits:
            axes.axhline(limit, color=INK, linewidth=1.0, linestyle=(0, (5, 2)))
        told += f"\n{_ml(content.limits[0])} to {_ml(content.limits[1])} ml"
    axes.plot(
        content.means, content.differences, style.marker, color=style.colour, markersize=4.5, alpha=0.8,
        markeredgewidth=0, clip_on=False,
    )  # fmt: skip
    axes.set_xlim(0, content.across)
    axes.set_ylim(-content.up, content.up * 1.45)
    axes.text(
        0.02, 0.99, told, transform=axes.transAxes, va="top", ha="left", fontsize=7.5, linespacing=1.15,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.9},
    )  # fmt: skip


def _ml(volume: float) -> str:
    return f"{volume:+.2f}".replace("-", "−")
