"""Predicted against observed share of nodes with extranodal extension."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aiene.benchmark.report.cells import dig, shown
from aiene.benchmark.report.charts.curves import TRACKS
from aiene.benchmark.report.charts.panels import panels
from aiene.benchmark.report.record import Chart, Value
from aiene.benchmark.report.source import Source
from aiene.benchmark.report.style import look, rule
from aiene.charts import FAINT, INK, RULE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class _Bin(NamedTuple):
    start: float
    stop: float
    predicted: float
    observed: float
    low: float
    high: float
    n: int


class _Content(NamedTuple):
    number: int
    bins: tuple[_Bin, ...]


def calibration(source: Source, track: str) -> Chart | None:
    """Calibration of one track: `on_truth` or `end_to_end`."""
    contents, rows = [], list[tuple[Value, ...]]()
    for model in source.run:
        figures = dig(model, "classification", track, "calibration")
        bins = [_bin(one) for one in dig(figures, "table") or [] if dig(one, "n")]
        full = tuple(one for one in bins if one is not None)
        if not full:
            continue
        slope, intercept = (dig(figures, name, "value") for name in ("slope", "intercept"))
        told = f"slope {shown(slope, 'plain')}, in the large {shown(intercept, 'plain')}"
        contents.append((model["name"], told, _Content(source.number(model["name"]), full)))
        rows += [(model["name"], *one) for one in full]
    if not contents:
        return None
    return Chart(
        f"calibration_{track}",
        f"Calibration of extranodal extension, {TRACKS[track]}",
        "Nodes in tenths of the predicted probability: mean prediction against the share with extranodal "
        "extension, with Wilson's 95 % interval; the row of numbers counts the nodes; dotted: perfect "
        "calibration.",
        ("model", "from", "to", "predicted", "observed", "observed_low", "observed_high", "nodes"),
        tuple(rows),
        lambda: panels(contents, _draw, labels=("predicted probability", "observed share"), size=(2.0, 2.0)),
    )


def _bin(one: dict[str, float]) -> _Bin | None:
    values = [one.get(name) for name in ("predicted", "observed", "observed_low", "observed_high", "n")]
    if any(value is None for value in values[:2]):
        return None
    predicted, observed, low, high, n = values
    middle = float(observed or 0)
    return _Bin(
        float(one.get("low") or 0),
        float(one.get("high") or 0),
        float(predicted or 0),
        middle,
        middle if low is None else low,
        middle if high is None else high,
        int(n or 0),
    )


def _draw(axes: Axes, content: _Content) -> None:
    style = look(content.number)
    rule(axes)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, linestyle=(0, (1, 2)))
    across = [one.predicted for one in content.bins]
    up = [one.observed for one in content.bins]
    spread = [[o.observed - o.low for o in content.bins], [o.high - o.observed for o in content.bins]]
    spread = [[max(0.0, x) for x in side] for side in spread]
    axes.errorbar(
        across, up, yerr=spread, color=style.colour, linestyle=style.dashes, marker=style.marker,
        markersize=5, linewidth=1.2, elinewidth=0.9, capsize=2, ecolor=INK, clip_on=False,
    )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.17)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.axhline(1.0, color=RULE, linewidth=0.8)
    for one in content.bins:
        axes.text((one.start + one.stop) / 2, 1.1, str(one.n), fontsize=7, ha="center", va="center")
