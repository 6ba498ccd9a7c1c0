"""From a figure to the bytes of its SVG and PNG, the same on each run."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

from aiene.errors import need
from aiene.report.document import Figure
from aiene.report.style import RC, stamp_figure

PNG_DPI = 160


class Picture(NamedTuple):
    """One figure in both formats."""

    svg: bytes
    png: bytes


def render(figure: Figure, stamp: str = "") -> Picture:
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
        mpl.rcParams.update(RC)
        drawing = figure.draw()
        if stamp:
            stamp_figure(drawing, stamp)
        drawing.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        drawing.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return Picture(_with_fallback_fonts(svg.getvalue()), png.getvalue())


def _with_fallback_fonts(svg: bytes) -> bytes:
    """Fonts that measure the same stand in where DejaVu Sans is not installed."""
    return svg.replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")
