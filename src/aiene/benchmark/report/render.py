"""From a chart to the bytes of its SVG, PNG and CSV, the same on each run."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

from aiene.benchmark.report.record import Chart
from aiene.benchmark.report.style import RC
from aiene.cells import rows_bytes
from aiene.extras import need

PNG_DPI = 160


class Picture(NamedTuple):
    """One chart in its three forms."""

    svg: bytes
    png: bytes
    csv: bytes


def render(chart: Chart) -> Picture:
    """Draw a chart.

    Raises
    ------
    MissingExtraError : matplotlib is not installed.
    """
    mpl = need("matplotlib", extra="benchmark", purpose="The report of a benchmark")
    svg, png = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        mpl.rcParams.update(mpl.rcParamsDefault)
        mpl.rcParams.update({**RC, "svg.hashsalt": f"aiene-{chart.name}"})
        figure = chart.draw()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return Picture(svg.getvalue(), png.getvalue(), table(chart))


def table(chart: Chart) -> bytes:
    """The numbers of a chart as CSV."""
    return rows_bytes([chart.columns, *(["" if v is None else v for v in row] for row in chart.rows)])
