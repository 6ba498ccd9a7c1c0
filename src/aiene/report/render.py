"""From a chart to the bytes of its SVG, PNG and CSV, the same on each run."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from aiene.cells import rows_bytes
from aiene.extras import need
from aiene.report.document import Chart
from aiene.report.style import BENCHMARK_RC as RC
from aiene.report.style import RISK_RC, mark_simulated

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


# From the content of a figure to its SVG and PNG, the same bytes on each run.


class FigurePicture(NamedTuple):
    """One figure in both formats."""

    svg: bytes
    png: bytes


def draw_figure(kind: str, content: Mapping[str, Any], *, simulated: bool) -> FigurePicture:
    """Draw one figure.

    Parameters
    ----------
    kind : name out of `kinds()`.
    content : what its drawing function takes; plain values.
    simulated : write SIMULATED into the picture.

    Raises
    ------
    KeyError : there is no such kind.
    """
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcParams.update(mpl.rcParamsDefault)
        for name, value in RISK_RC.items():
            mpl.rcParams[name] = value  # type: ignore[index]
        figure = kinds()[kind](content)
        if simulated:
            mark_simulated(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return FigurePicture(_for_other_machines(svg.getvalue()), png.getvalue())


def kinds() -> dict[str, Callable[[Mapping[str, Any]], Figure]]:
    """Every drawing function by name."""
    from aiene.risk.analyse.charts import bars, curves, forest, models

    return {
        "curves": curves.draw,
        "forest": forest.draw,
        "dose": forest.draw_dose,
        "bars": bars.draw,
        "migration": bars.draw_migration,
        "heat": bars.draw_heat,
        "flow": bars.draw_flow,
        "calibration": models.draw_calibration,
        "decision": models.draw_decision,
        "auc": models.draw_auc,
        "residuals": curves.draw_residuals,
    }


def _for_other_machines(svg: bytes) -> bytes:
    """Fonts that measure the same stand in where DejaVu Sans is not installed."""
    return svg.replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")
