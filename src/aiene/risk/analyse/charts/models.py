"""How well models predict: calibration, decision curve, AUC over time, and measures centre by centre."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aiene.report.style import FAINT, RULE, look, new_figure, place, text_inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_calibration(content: Mapping[str, Any]) -> Figure:
    """Observed against predicted risk, one panel per horizon.

    Parameters
    ----------
    content : `panels` with `title` and `models` (`label`, `predicted`, `observed`, `low`, `high`), `top` of
        both axes.
    """
    panels = content["panels"]
    size, left = 3.0, 0.8
    figure = new_figure((left + size) * len(panels) + 0.3, size + 1.65)
    for number, panel in enumerate(panels):
        axes = place(figure, left * (number + 1) + size * number, 0.6, size, size)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, label="perfect")
        for which, model in enumerate(panel["models"]):
            _whiskers(axes, model, which, 0.9)
            line: dict[str, Any] = {
                "linestyle": look(which).dashes,
                "linewidth": 1.1,
                "label": model["label"],
            }
            axes.plot(model["predicted"], model["observed"], **line, markersize=5, **_point(which))
        axes.set_xlim(0, panel["top"])
        axes.set_xlabel("Predicted risk")
        axes.xaxis.set_major_formatter(_percent)
        _observed(axes, panel, 1 + 0.64 / size)
    return figure


def _observed(axes: Axes, panel: Mapping[str, Any], height: float) -> None:
    """Axis of the observed risk, heading and legend of a panel of calibration."""
    axes.set_ylim(0, panel["top"])
    axes.set_ylabel("Observed risk")
    axes.yaxis.set_major_formatter(_percent)
    axes.text(0, height, panel["title"], transform=axes.transAxes, fontweight="bold", va="bottom")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), labelspacing=0.2, borderaxespad=0.1)


def _percent(value: float, _: object) -> str:
    return f"{100 * value:.0f} %"


def _point(which: int) -> dict[str, Any]:
    """Colour and marker of a model; every second one is hollow."""
    style = look(which)
    face = "white" if which % 2 else style.colour
    return {"color": style.colour, "marker": style.marker, "markerfacecolor": face}


def _whiskers(axes: Axes, groups: Mapping[str, Any], which: int, width: float) -> None:
    """Intervals of the observed risk of groups; none where an end is missing."""
    for x, low, high in zip(groups["predicted"], groups["low"], groups["high"], strict=True):
        if low is not None and high is not None:
            axes.plot([x, x], [low, high], color=look(which).colour, linewidth=width)


def draw_decision(content: Mapping[str, Any]) -> Figure:
    """Net benefit against the threshold risk.

    Parameters
    ----------
    content : `threshold`; `lines` with `label`, `value`, `look`, optional `low`, `high`; `y_low`, `y_high`.
    """
    figure = new_figure(6.2, 4.4)
    axes = place(figure, 0.9, 0.6, 5.0, 2.9)
    for line in content["lines"]:
        style, x = look(line["look"]), content["threshold"]
        if line.get("low"):
            axes.fill_between(x, line["low"], line["high"], color=style.colour, alpha=0.13, linewidth=0)
        axes.plot(x, line["value"], color=style.colour, linestyle=style.dashes, label=line["label"])
    axes.set_xlim(0, content["threshold"][-1])
    axes.set_ylim(content["y_low"], content["y_high"])
    axes.xaxis.set_major_formatter(_percent)
    axes.set_xlabel(content["x_label"])
    axes.set_ylabel("Net benefit")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=1, labelspacing=0.2, borderaxespad=0.1)
    return figure


def draw_auc(content: Mapping[str, Any]) -> Figure:
    """Time-dependent AUC at some years, models side by side.

    Parameters
    ----------
    content : `years`; `models` with `label`, `value`, `low`, `high`.
    """
    figure = new_figure(6.2, 4.0)
    axes = place(figure, 0.8, 0.6, 5.1, 2.7)
    years, models = content["years"], content["models"]
    for which, model in enumerate(models):
        shift = 0.24 * (which - (len(models) - 1) / 2)
        for number, value in enumerate(model["value"]):
            x, low, high = number + shift, model["low"][number], model["high"][number]
            if value is not None:
                under, over = value if low is None else low, value if high is None else high
                axes.plot([x, x], [under, over], color=look(which).colour)
                axes.plot([x], [value], markersize=6, **_point(which))
                axes.text(x, over + 0.015, f"{value:.2f}", va="bottom", ha="center", fontsize=8)
        axes.plot([], [], label=model["label"], **_point(which))
    axes.axhline(0.5, color=FAINT, linewidth=0.8)
    chance: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 8, "color": FAINT}
    axes.text(len(years) - 0.5, 0.48, "0.5: no better than chance", **chance)
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.5, len(years) - 0.5)
    axes.set_xticks(range(len(years)), [f"{y:g} years" for y in years])
    axes.set_ylabel("AUC")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), labelspacing=0.2, borderaxespad=0.1)
    return figure


_ROW, _PANEL = 0.27, 1.75


def draw_smooth_calibration(content: Mapping[str, Any]) -> Figure:
    """Smoothly observed against predicted risk, groups as points, and how predictions are spread.

    Parameters
    ----------
    content : `panels` with `title`, `top` of both axes and `models`, each with `label`, `curve` (predicted,
        observed), `groups` (`predicted`, `observed`, `low`, `high`) and `spread` (edges, shares).
    """
    panels = content["panels"]
    size, left, spread = 3.0, 0.85, 0.55
    figure = new_figure((left + size) * len(panels) + 0.3, size + spread + 1.75)
    for number, panel in enumerate(panels):
        x = left * (number + 1) + size * number
        axes = place(figure, x, 0.6 + spread, size, size)
        below = place(figure, x, 0.6, size, spread - 0.08)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, label="perfect")
        for which, model in enumerate(panel["models"]):
            style, groups = look(which), model["groups"]
            line: dict[str, Any] = {"color": style.colour, "linestyle": style.dashes}
            axes.plot(*model["curve"], linewidth=1.4, label=model["label"], **line)
            _whiskers(axes, groups, which, 0.8)
            points = groups["predicted"], groups["observed"]
            axes.plot(*points, linestyle="none", markersize=5, **_point(which))
            edges, shares = model["spread"]
            below.stairs(shares, edges, linewidth=1, **line)
        for frame in (axes, below):
            frame.set_xlim(0, panel["top"])
            frame.xaxis.set_major_formatter(_percent)
        axes.tick_params(labelbottom=False)
        below.set_yticks([])
        below.spines["left"].set_visible(False)
        below.set_xlabel("Predicted risk and its spread")
        _observed(axes, panel, 1 + 0.68 / size)
    return figure


def draw_centres(content: Mapping[str, Any]) -> Figure:
    """One row per centre and pooled value, one panel per measure.

    Parameters
    ----------
    content : `rows` with `label`, `pooled` (bool) and by measure (value, low, high), None where missing;
        `measures` with `key`, `title`, `ideal`, and `log` (bool).
    """
    rows, measures = content["rows"], content["measures"]
    left = 0.2 + max([1.0, *(text_inches(r["label"], 8.5) for r in rows)])
    tall = _ROW * len(rows)
    figure = new_figure(left + (_PANEL + 0.35) * len(measures) + 0.1, tall + 1.0)
    for number, measure in enumerate(measures):
        axes = place(figure, left + (_PANEL + 0.35) * number, 0.45, _PANEL, tall)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        if measure["log"]:
            axes.set_xscale("log")
        if measure["ideal"] is not None:
            axes.axvline(measure["ideal"], color=FAINT, linewidth=0.8)
        for y, row in enumerate(rows):
            value, low, high = row[measure["key"]]
            if row["pooled"]:
                axes.axhspan(y - 0.5, y + 0.5, color=RULE, alpha=0.45, linewidth=0)
            if number == 0:
                words: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 8.5}
                words |= {"fontweight": "bold"} if row["pooled"] else {}
                axes.text(-0.05, y, row["label"], transform=axes.get_yaxis_transform(), **words)
            if value is None:
                continue
            style = look(2 if row["pooled"] else 0)
            if low is not None and high is not None:
                axes.plot([low, high], [y, y], color=style.colour, linewidth=1.1)
            axes.plot([value], [y], marker="D" if row["pooled"] else "s", color=style.colour, markersize=5)
        axes.set_xlim(*_span([row[measure["key"]] for row in rows], measure))
        if measure["log"]:
            least, most = axes.get_xlim()
            ticks = [t for t in (0.25, 0.5, 0.75, 1, 1.5, 2, 4) if least <= t <= most]
            axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
            axes.minorticks_off()
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_title(measure["title"])
    return figure


def _span(values: list[tuple[float | None, ...]], measure: Mapping[str, Any]) -> tuple[float, float]:
    """Ends of an axis that hold every interval within reason and the ideal value."""
    ends = [v for row in values for v in row if v is not None]
    known = [*ends, *([] if measure["ideal"] is None else [measure["ideal"]])] or [0.5]
    if measure["log"]:
        low, high = max(min(known), 0.1) / 1.15, min(max(known), 10.0) * 1.15
        return min(low, 0.8), max(high, 1.25)
    low, high = np.clip([min(known), max(known)], -2, 5)
    pad = 0.06 * (high - low) or 0.1
    return float(low - pad), float(high + pad)
