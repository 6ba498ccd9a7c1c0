"""Agreement of volumes, as Bland and Altman (Lancet 1986, 1:307) draw it."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

from aiene.benchmark.report.charts.panels import panels
from aiene.benchmark.report.record import Chart, Value
from aiene.benchmark.report.source import Source, value
from aiene.benchmark.report.style import look, rule
from aiene.charts import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NORMAL = 1.959964  # two-sided 95 % of a normal distribution


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
    contents = []
    for name_of, points in found.items():
        means, differences = zip(*points, strict=True)
        content = _Agreement(source.number(name_of), means, differences)
        contents.append((name_of, _told(content), content))
    return Chart(
        f"volumes_{name.lower()}",
        f"Volume of {name}: prediction less truth",
        "Each point is a case. Line: mean difference; dashed: limits of agreement (mean ± 1.96 standard "
        "deviations), both written above; dotted: no difference. Each panel has its own axes. Cases where "
        "both volumes are 0 are left out.",
        ("model", "case_id", "truth_ml", "predicted_ml", "mean_ml", "difference_ml"),
        tuple(rows),
        lambda: panels(contents, _draw, labels=("mean of both (ml)", "difference (ml)")),
    )


def _told(content: _Agreement) -> str:
    told = f"mean {_ml(content.bias)}"
    if content.limits is not None:
        told += f" (limits {_ml(content.limits[0])} to {_ml(content.limits[1])})"
    return f"{told} ml"


def _draw(axes: Axes, content: _Agreement) -> None:
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
