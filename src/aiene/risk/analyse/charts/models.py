"""How well models predict: calibration, decision curve, AUC over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiene.report.style import FAINT, look, new_figure, place

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
            _calibration(axes, model, which)
        axes.set_xlim(0, panel["top"])
        axes.set_ylim(0, panel["top"])
        axes.set_xlabel("Predicted risk")
        axes.set_ylabel("Observed risk")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.text(
            0, 1 + 0.64 / size, panel["title"], transform=axes.transAxes, fontweight="bold", va="bottom"
        )
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), labelspacing=0.2, borderaxespad=0.1)
    return figure


def _calibration(axes: Axes, model: Mapping[str, Any], which: int) -> None:
    style = look(which)
    xs = model["predicted"]
    for x, low, high in zip(xs, model["low"], model["high"], strict=True):
        if low is not None and high is not None:
            axes.plot([x, x], [low, high], color=style.colour, linewidth=0.9)
    axes.plot(
        xs,
        model["observed"],
        color=style.colour,
        linestyle=style.dashes,
        marker=style.marker,
        markersize=5,
        markerfacecolor="white" if which % 2 else style.colour,
        linewidth=1.1,
        label=model["label"],
    )


def draw_decision(content: Mapping[str, Any]) -> Figure:
    """Net benefit against the threshold risk.

    Parameters
    ----------
    content : `threshold`; `lines` with `label`, `value`, `look`, optional `low`, `high`; `y_low`, `y_high`.
    """
    figure = new_figure(6.2, 4.4)
    axes = place(figure, 0.9, 0.6, 5.0, 2.9)
    for line in content["lines"]:
        style = look(line["look"])
        if line.get("low"):
            axes.fill_between(
                content["threshold"], line["low"], line["high"], color=style.colour, alpha=0.13, linewidth=0
            )
        axes.plot(
            content["threshold"],
            line["value"],
            color=style.colour,
            linestyle=style.dashes,
            label=line["label"],
        )
    axes.set_xlim(0, content["threshold"][-1])
    axes.set_ylim(content["y_low"], content["y_high"])
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
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
        style = look(which)
        shift = 0.24 * (which - (len(models) - 1) / 2)
        for number, (value, low, high) in enumerate(
            zip(model["value"], model["low"], model["high"], strict=True)
        ):
            if value is None:
                continue
            x = number + shift
            axes.plot(
                [x, x], [value if low is None else low, value if high is None else high], color=style.colour
            )
            axes.plot(
                [x],
                [value],
                marker=style.marker,
                color=style.colour,
                markerfacecolor="white" if which % 2 else style.colour,
                markersize=6,
            )
            over = value if high is None else high
            axes.text(x, over + 0.015, f"{value:.2f}", va="bottom", ha="center", fontsize=8)
        axes.plot(
            [],
            [],
            marker=style.marker,
            color=style.colour,
            markerfacecolor="white" if which % 2 else style.colour,
            label=model["label"],
        )
    axes.axhline(0.5, color=FAINT, linewidth=0.8)
    axes.text(
        len(years) - 0.5, 0.48, "0.5: no better than chance", ha="right", va="top", fontsize=8, color=FAINT
    )
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.5, len(years) - 0.5)
    axes.set_xticks(range(len(years)), [f"{y:g} years" for y in years])
    axes.set_ylabel("AUC")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), labelspacing=0.2, borderaxespad=0.1)
    return figure
