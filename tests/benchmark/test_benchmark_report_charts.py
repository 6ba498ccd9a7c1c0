"""Each chart: what is drawn is what was measured, axes begin at zero, and no words lie over each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
import pytest

from aiene.benchmark.report.charts.cases import boxes, cost, rank_stability, volumes
from aiene.benchmark.report.charts.curves import FROC_MOST, calibration, froc, roc
from aiene.benchmark.report.results_reader import Source
from aiene.benchmark.report.worst_cases import worst_of
from aiene.report.document import Figure
from aiene.report.style import PNG_DPI, STYLE, render

COUNT = 9
LONG = [f"organisation/a-model-with-quite-a-long-name-{number}-base-224" for number in range(COUNT)]


def _model(number: int, name: str) -> dict[str, Any]:
    bins = [
        {"low": k / 10, "high": (k + 1) / 10, "n": 100 + k, "predicted": k / 10 + 0.05, "observed": k / 10,
         "observed_low": max(0, k / 10 - 0.1), "observed_high": k / 10 + 0.1}
        for k in range(10)
    ]  # fmt: skip
    area = {"value": 0.8, "low": 0.7, "high": 0.9}
    return {
        "name": name,
        "key": f"m{number}",
        "kind": "predictions" if number == 1 else "bundle",
        "status": "ok",
        "segmentation": {"GTVn": {"dice": {"mean": {"value": 0.6, "low": 0.5, "high": 0.7}}}},
        "classification": {
            "on_truth": {
                "auc_clustered": area,
                "threshold": 0.5,
                "operating": [
                    {"threshold": 0.5, "sensitivity": {"value": 0.75}, "specificity": {"value": 0.9}}
                ],
                "roc": {
                    "false_positive": [0.0, 0.1, 1.0],
                    "true_positive": [0.0, 0.75, 1.0],
                    "thresholds": [0.7, 0.2],
                },
                "calibration": {"table": bins, "slope": {"value": -1.25}, "intercept": {"value": -10.5}},
            }
        },
        "detection": {
            "sensitivity": {"value": 0.9},
            "false_per_case": {"value": 2.5 if number else 120.0},
            "froc": {
                "thresholds": [0.9, 0.1],
                "sensitivity": [0.4, 0.9],
                "false_per_case": [0.5, 2.5 if number else 120.0],
                "score": 0.65,
            },
        },
        "resources": {"seconds": {"total": {"median": {"value": 10.0 + number}, "q1": 9.0, "q3": 22.0}}},
    }


def _rows(name: str) -> list[dict[str, str]]:
    return [
        {
            "case_id": f"c{k}",
            "model": name,
            "status": "ok",
            "dice_GTVn": str(dice),
            "truth_ml_GTVn": str(true),
            "predicted_ml_GTVn": str(said),
        }
        for k, (dice, true, said) in enumerate([(0.9, 10, 12), (0.2, 20, 19), (0.5, 5000, 9000)])
    ]


@pytest.fixture(scope="module")
def source() -> Source:
    """Nine models with long names and three cases."""
    models = [_model(number, name) for number, name in enumerate(LONG)]
    summary = {"models": models, "data": {"labels": ["GTVn"]}, "machine": {}, "settings": {}}
    rows = tuple(row for name in LONG for row in _rows(name))
    return Source(Path("nowhere"), summary, rows, "now")


def _ranking(_: Source) -> Figure | None:
    models = [
        {"model": name, "rank": number + 1, "share_by_rank": [1 / COUNT] * COUNT}
        for number, name in enumerate(LONG)
    ]
    return rank_stability({"metric": "dice", "label": "GTVn", "models": models, "resamples": 10})


CHARTS: dict[str, Callable[[Source], Figure | None]] = {
    "boxes": lambda source: boxes(source, "GTVn"),
    "volumes": lambda source: volumes(source, "GTVn"),
    "roc": lambda source: roc(source, "on_truth"),
    "calibration": lambda source: calibration(source, "on_truth"),
    "froc": froc,
    "cost": lambda source: cost(source, "GTVn"),
    "ranks": _ranking,
}


def _drawn(chart: Figure | None) -> Any:
    assert chart is not None
    with mpl.rc_context():
        mpl.rcParams.update(mpl.rcParamsDefault)
        mpl.rcParams.update(mpl.rc_params_from_file(STYLE, use_default_template=False))
        figure = chart.draw()
        figure.set_dpi(PNG_DPI)
        figure.canvas.draw()
    return figure


def _beyond(axis: Any) -> list[Any]:
    """Words of ticks outside of an axis, which are not shown."""
    low, high = sorted(axis.get_view_interval())
    outside = [tick for tick in axis.get_major_ticks() if not low - 1e-9 <= tick.get_loc() <= high + 1e-9]
    return [text for tick in outside for text in (tick.label1, tick.label2)]


def _shared(one: Any, other: Any) -> tuple[float, float]:
    return min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)


@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.slow
def test_no_words_lie_over_each_other_and_none_are_cut_off(source: Source, name: str) -> None:
    from matplotlib.text import Text

    figure = _drawn(CHARTS[name](source))
    width, height = figure.canvas.get_width_height()
    axis_of = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    beyond = {id(text) for axis in axis_of for text in _beyond(axis)}
    boxes_ = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and id(text) not in beyond
    ]
    assert len(boxes_) > COUNT
    for words, box in boxes_:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, words  # noqa: PT018
    for (words, box), (others, other) in itertools.combinations(boxes_, 2):
        across, up = _shared(box, other)
        assert across <= 1 or up <= 1, (words, others)


@pytest.mark.parametrize("name", sorted(CHARTS.keys() - {"ranks"}))
@pytest.mark.slow
def test_axes_begin_at_zero(source: Source, name: str) -> None:
    for axes in _drawn(CHARTS[name](source)).axes:
        assert axes.get_xlim()[0] == 0
        if name == "volumes":
            assert axes.get_ylim()[0] == -axes.get_ylim()[1]
        elif name != "boxes":
            assert axes.get_ylim()[0] == 0


@pytest.mark.parametrize("name", CHARTS)
def test_a_single_model_is_drawn_too(source: Source, name: str) -> None:
    alone = replace(
        source, summary={**source.summary, "models": source.summary["models"][:1]}, rows=source.rows[:1]
    )
    chart = CHARTS[name](alone)
    if name != "ranks":
        assert chart is not None
        assert render(chart).png.startswith(b"\x89PNG")


@pytest.mark.parametrize("name", sorted(CHARTS.keys() - {"ranks"}))
def test_without_data_there_is_no_chart(source: Source, name: str) -> None:
    bare = [{"name": "a", "status": "ok"}, {"name": "b", "status": "failed", "reason": "gone"}]
    assert CHARTS[name](replace(source, summary={**source.summary, "models": bare}, rows=())) is None


@pytest.mark.slow
def test_the_limits_of_agreement_are_those_of_bland_and_altman(source: Source) -> None:
    chart = volumes(source, "GTVn")
    assert chart is not None
    data = chart.data
    differences = [d for d, m in zip(data["difference_ml"], data["model"], strict=True) if m == LONG[0]]
    assert differences == [2.0, -1.0, 4000.0]
    axes = _drawn(chart).axes[0]
    heights = sorted({line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 2})
    spread = 1.959964 * stdev([2.0, -1.0, 4000.0])
    middle = mean([2.0, -1.0, 4000.0])
    assert heights == pytest.approx([middle - spread, 0, middle, middle + spread])


def test_the_mark_on_a_curve_is_the_model_at_its_own_threshold(source: Source) -> None:
    axes = _drawn(roc(source, "on_truth")).axes[0]
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    assert marks == [pytest.approx((0.1, 0.75))] * COUNT


def test_a_model_with_very_many_false_nodes_does_not_flatten_the_others(source: Source) -> None:
    chart = froc(source)
    axes = _drawn(chart).axes[0]
    assert axes.get_xlim()[1] == FROC_MOST
    assert "ends at 120.0 false nodes" in axes.get_legend().get_texts()[0].get_text()
    assert chart is not None
    assert max(chart.data["false_per_case"]) == 120.0


def test_the_worst_cases_are_those_of_the_lowest_dice(source: Source) -> None:
    assert [one.case_id for one in worst_of(source, LONG[3], "GTVn", 2)] == ["c1", "c2"]


def test_markup_in_names_is_drawn_as_it_is(source: Source) -> None:
    models = [{**source.summary["models"][0], "name": "$\\frac{$ <b> 模型"}]
    rows = tuple({**row, "model": "$\\frac{$ <b> 模型"} for row in source.rows[:3])
    chart = boxes(replace(source, summary={**source.summary, "models": models}, rows=rows), "GTVn")
    assert chart is not None
    assert render(chart).svg == render(chart).svg
