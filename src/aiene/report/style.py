"""One style for the charts of every report: readable in black and white, safe for colour-blind readers.

Colours are those of Okabe and Ito (2008) without their yellow, which is lost on white; each also has dashes,
a marker and a hatch of its own.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aiene.errors import need
from aiene.report import document

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


INK = "#222222"
FAINT = "#767676"
RULE = "#d0d0d0"
ALARM = "#9a3b00"
STYLE = Path(__file__).with_name("aiene.mplstyle")

COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#000000", "#009E73", "#CC79A7", "#56B4E9")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (6, 2)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (1, 1.4)),
    (0, (9, 2, 2, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2, 2)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
HATCHES = ("", "////", "xxxx", "....", "\\\\\\\\", "++++", "oo")


class Look(NamedTuple):
    """How the line, the points or the bars of one model or group are drawn."""

    colour: str
    dashes: Any
    marker: str
    hatch: str


def look(number: int) -> Look:
    """The look of the model or group of this number; seventy of them differ."""
    turn = number // len(COLOURS)
    return Look(
        COLOURS[number % len(COLOURS)],
        DASHES[(number + turn) % len(DASHES)],
        MARKERS[number % len(MARKERS)],
        HATCHES[number % len(HATCHES)],
    )


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


def text_inches(text: str, size: float = 8.5) -> float:
    """Width of a text in DejaVu Sans, rather too wide than too narrow."""
    return len(text) * size * 0.62 / 72


def wrapped(text: str, inches: float, size: float = 8.5) -> str:
    """The text in lines of at most so many inches."""
    return "\n".join(textwrap.wrap(text, max(8, int(inches / text_inches("x", size)))))


def stamp_figure(figure: Figure, words: str) -> None:
    """Words such as SIMULATED in the upper right corner of a figure."""
    width, height = figure.get_size_inches()
    figure.text(
        1 - 0.06 / width,
        1 - 0.05 / height,
        words,
        ha="right",
        va="top",
        fontsize=7.5,
        fontweight="bold",
        color=ALARM,
    )


PNG_DPI = 160


class Picture(NamedTuple):
    """One figure in both formats."""

    svg: bytes
    png: bytes


def render(figure: document.Figure, stamp: str = "") -> Picture:
    """Draw a figure.

    Parameters
    ----------
    stamp : words written into its corner, such as that a count is simulated; empty for none.

    Raises
    ------
    MissingExtraError : matplotlib is not installed.
    """
    mpl = need("matplotlib", extra="risk", purpose="Drawing the charts of a report")
    svg, png = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        mpl.rcParams.update(mpl.rcParamsDefault)  # not the user's own settings: the bytes would differ
        mpl.rcParams.update(mpl.rc_params_from_file(STYLE, use_default_template=False))
        drawing = figure.draw()
        if stamp:
            stamp_figure(drawing, stamp)
        drawing.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        drawing.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    # fonts that measure the same stand in where DejaVu Sans is not installed
    shown = svg.getvalue().replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")
    return Picture(shown, png.getvalue())
