"""The look of each group in lines, points and hatched bars; words that fit; the mark of a simulated count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from aiene import charts
from aiene.charts import COLOURS, DASHES, MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIMULATED = "#9a3b00"

RC = {
    **charts.RC,
    "svg.hashsalt": "aiene",
    "svg.fonttype": "none",
    "axes.unicode_minus": True,
    "legend.handlelength": 3.2,
    "hatch.linewidth": 0.6,
}
HATCHES = ("", "////", "xxxx", "....", "\\\\\\\\", "++++", "oo")


class Look(NamedTuple):
    """How the line, the point or the bar of one group looks."""

    colour: str
    dashes: Any
    marker: str
    hatch: str


def look(number: int) -> Look:
    """The look of the group of this number; they come round again after the last."""
    turn = number % len(HATCHES)
    return Look(COLOURS[turn], DASHES[turn], MARKERS[turn], HATCHES[turn])


def text_inches(text: str, size: float = 8.5) -> float:
    """Width of a text in DejaVu Sans, rather too wide than too narrow."""
    return len(text) * size * 0.62 / 72


def wrapped(text: str, inches: float, size: float = 8.5) -> str:
    """The text in lines of at most so many inches."""
    import textwrap

    return "\n".join(textwrap.wrap(text, max(8, int(inches / text_inches("x", size)))))


def mark_simulated(figure: Figure) -> None:
    """SIMULATED in the upper right corner of the figure."""
    width, height = figure.get_size_inches()
    figure.text(
        1 - 0.06 / width,
        1 - 0.05 / height,
        "SIMULATED AI-ENE COUNT",
        ha="right",
        va="top",
        fontsize=7.5,
        fontweight="bold",
        color=SIMULATED,
    )
