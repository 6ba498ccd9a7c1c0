"""From the content of a figure to its SVG and PNG, the same bytes on each run."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from aiene.risk.analyse.figures.style import RC, mark_simulated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 160


class Picture(NamedTuple):
    """One figure in both formats."""

    svg: bytes
    png: bytes


def render(kind: str, content: Mapping[str, Any], *, simulated: bool) -> Picture:
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
        for name, value in RC.items():
            mpl.rcParams[name] = value  # type: ignore[index]
        figure = kinds()[kind](content)
        if simulated:
            mark_simulated(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return Picture(_for_other_machines(svg.getvalue()), png.getvalue())


def kinds() -> dict[str, Callable[[Mapping[str, Any]], Figure]]:
    """Every drawing function by name."""
    from aiene.risk.analyse.figures import bars, curves, flow, forest, models, residuals

    return {
        "curves": curves.draw,
        "forest": forest.draw,
        "dose": forest.draw_dose,
        "bars": bars.draw,
        "migration": bars.draw_migration,
        "heat": bars.draw_heat,
        "flow": flow.draw,
        "calibration": models.draw_calibration,
        "decision": models.draw_decision,
        "auc": models.draw_auc,
        "residuals": residuals.draw,
    }


def _for_other_machines(svg: bytes) -> bytes:
    """Fonts that measure the same stand in where DejaVu Sans is not installed."""
    return svg.replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")
