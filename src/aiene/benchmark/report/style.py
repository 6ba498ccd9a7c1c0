"""The look of each model, which it keeps through the whole report, and names that fit into a chart."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

from aiene import charts
from aiene.charts import COLOURS, DASHES, MARKERS, RULE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RC = {**charts.RC, "svg.fonttype": "path"}


class Look(NamedTuple):
    """How one model is drawn."""

    colour: str
    dashes: Any
    marker: str


def look(number: int) -> Look:
    """The look of the model of this number; seventy of them differ."""
    turn = number // len(COLOURS)
    return Look(
        COLOURS[number % len(COLOURS)],
        DASHES[(number + turn) % len(DASHES)],
        MARKERS[number % len(MARKERS)],
    )


def label(text: str, width: int = 24, lines: int = 2) -> str:
    """A name for a chart, safe from mathematical text.

    In at most so many lines of so many letters; from a longer one the middle is cut out, since names of
    models often differ only at their end.
    """
    parts = textwrap.wrap(text, width) or [""]
    keep = min(len(text), width * lines)
    while len(parts) > lines and keep > 1:
        keep -= 1
        start = keep // 2
        parts = textwrap.wrap(f"{text[:start]}…{text[len(text) - keep + start :]}", width)
    return "\n".join(parts).replace("$", r"\$")


def legend_height(names: int, columns: int = 1, line: float = 0.33) -> float:
    """Inches that a legend of so many names takes."""
    return line * -(-names // columns)


def rule(axes: Axes, axis: str = "both") -> None:
    """Faint lines behind the data."""
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis=axis, color=RULE, linewidth=0.6)  # type: ignore[arg-type]
