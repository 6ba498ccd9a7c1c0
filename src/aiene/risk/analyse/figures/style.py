"""One look for all figures: readable in black and white, safe for colour-blind readers.

Colours are those of Okabe and Ito (2008); every line also has its own dashes and marker, every bar its own
hatching.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#222222"
FAINT = "#767676"
RULE = "#d0d0d0"
SIMULATED = "#9a3b00"

RC: dict[str, Any] = {
    "svg.hashsalt": "aiene",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.5,
    "hatch.linewidth": 0.6,
    "path.simplify": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


class Look(NamedTuple):
    """How the line, the point or the bar of one group looks."""

    colour: str
    dashes: Any
    marker: str
    hatch: str


LOOKS = (
    Look("#0072B2", "-", "o", ""),
    Look("#E69F00", (0, (6, 2)), "s", "////"),
    Look("#D55E00", (0, (5, 1.5, 1, 1.5)), "^", "xxxx"),
    Look("#000000", (0, (1, 1.4)), "D", "...."),
    Look("#009E73", (0, (9, 2, 2, 2)), "v", "\\\\\\\\"),
    Look("#CC79A7", (0, (3, 1, 1, 1, 1, 1)), "P", "++++"),
    Look("#56B4E9", (0, (2, 2)), "X", "oo"),
)


def look(number: int) -> Look:
    """The look of the group of this number; they come round again after the last."""
    return LOOKS[number % len(LOOKS)]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, outside of any global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches, so that nothing moves with the length of a label."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


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
