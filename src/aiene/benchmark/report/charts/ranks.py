"""How firm the ranks are: the share of resamples in which each model had each rank.

After Wiesenfarth et al., Sci. Rep. 2021, 11:2369.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aiene.benchmark.report.cells import dig
from aiene.benchmark.report.record import Chart, Value
from aiene.benchmark.report.style import label
from aiene.charts import INK, new_figure, place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL_WIDTH, _CELL_HEIGHT = 0.66, 0.44
_DARK = 0.55


def rank_stability(ranking: dict[str, Any]) -> Chart | None:
    """The chart of one entry of the summary's `ranking`; None where there is nothing to rank."""
    models = [model for model in ranking.get("models") or [] if model.get("share_by_rank")]
    if len(models) < 2:
        return None
    name, what = str(ranking.get("label", "")), str(ranking.get("metric", ""))
    columns = ("model", *(f"rank_{i + 1}" for i in range(len(models))))
    rows: list[tuple[Value, ...]] = [(m["model"], *m["share_by_rank"]) for m in models]
    return Chart(
        f"ranks_{what}_{name}".lower(),
        f"Stability of the ranks by {'Dice' if what == 'dice' else what} of {name}",
        f"Share of {dig(ranking, 'resamples')} resamples of the patients in which each model had each rank, "
        "in per cent; the frame is its rank over all patients. A row with one dark cell is a firm rank.",
        columns,
        tuple(rows),
        lambda: _draw(models),
    )


def _draw(models: Sequence[dict[str, Any]]) -> Figure:
    count = len(models)
    width, height = _CELL_WIDTH * count, _CELL_HEIGHT * count
    figure = new_figure(2.3 + max(width, 1.6), height + 0.75)
    axes = place(figure, 2.15, 0.15, width, height)
    for line, model in enumerate(models):
        shares = list(model["share_by_rank"])[:count]
        for column, share in enumerate(shares):
            _cell(axes, line, column, float(share or 0))
        rank = int(model.get("rank") or line + 1) - 1
        axes.add_patch(_frame(rank, line))
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


def _frame(column: int, line: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column + 0.04, line + 0.06), 0.92, 0.88, fill=False, edgecolor=INK, linewidth=1.8)
