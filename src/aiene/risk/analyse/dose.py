"""The hazard ratio by number of AI-ENE nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aiene.risk.analyse.outcome import Outcome
from aiene.risk.analyse.record import Figure
from aiene.risk.analyse.regression import Sample
from aiene.risk.analyse.safe import cox
from aiene.risk.analyse.settings import AnalysisSettings
from aiene.risk.analyse.show import p_phrase, plain
from aiene.risk.stats import Coefficient, NotEstimableError


def dose_figure(sample: Sample, settings: AnalysisSettings) -> Figure | None:
    """Hazard ratios by number of nodes against none, with the line of the capped count; of all patients."""
    complete, design, count = sample.complete()
    cap = settings.marker_cap
    capped = np.minimum(count, cap)
    values = [v for v in range(cap + 1) if (capped == v).any()]
    if sample.name != "all" or len(values) < 2 or values[0] != 0:
        return None
    indicators = pd.DataFrame({f"nodes {v}": (capped == v).astype(float) for v in values[1:]})
    line = pd.DataFrame({"nodes": capped})
    try:
        joined = pd.concat([indicators, design.matrix], axis=1)
        by_count = {
            r.name: r for r in cox(complete.time, complete.event, joined, confidence=settings.confidence).rows
        }
        linear = cox(
            complete.time,
            complete.event,
            pd.concat([line, design.matrix], axis=1),
            confidence=settings.confidence,
        )
    except NotEstimableError:
        return None
    return _figure(complete, capped, values, by_count, linear.rows[0], settings)


def _figure(
    complete: Outcome,
    capped: np.ndarray,
    values: list[int],
    by_count: dict[str, Coefficient],
    slope: Coefficient,
    settings: AnalysisSettings,
) -> Figure:
    cap = settings.marker_cap
    xs = np.linspace(0, values[-1], 41)
    ends = (np.log(slope.lower), np.log(slope.upper))
    points = [by_count.get(f"nodes {v}") for v in values]
    content: dict[str, Any] = {
        "points": {
            "x": values,
            "value": plain([1.0, *(p.hr for p in points[1:] if p)]),
            "low": plain([1.0, *(p.lower for p in points[1:] if p)]),
            "high": plain([1.0, *(p.upper for p in points[1:] if p)]),
            "n": [int((capped == v).sum()) for v in values],
        },
        "line": {
            "x": plain(xs),
            "value": plain(np.exp(slope.coef * xs)),
            "low": plain(np.exp(ends[0] * xs)),
            "high": plain(np.exp(ends[1] * xs)),
        },
        "labels": [str(v) if v < cap else f"≥ {cap}" for v in values],
        "x_label": "AI-ENE nodes",
        "y_label": "Adjusted hazard ratio (log axis)",
        "line_label": f"per node (capped at {cap}): HR {slope.hr:.2f} "
        f"({slope.lower:.2f} to {slope.upper:.2f})",
        "point_label": "each count against none",
    }
    legend = (
        f"{complete.label}: adjusted hazard ratio by number of AI-ENE nodes, each count against none "
        "(squares) and "
        f"the count as a line; Cox (Efron), n = {complete.n}, events = {complete.n_events}; "
        f"{settings.confidence:.0%} Wald intervals; {p_phrase(plain(slope.p))} for the line."
    )
    points_data = content["points"]
    data = {
        "n_ai_ene": content["labels"],
        "patients": points_data["n"],
        "hr": points_data["value"],
        "lower": points_data["low"],
        "upper": points_data["high"],
    }
    return Figure(
        f"dose_{complete.name}",
        f"{complete.label}: hazard by number of AI-ENE nodes",
        legend,
        "dose",
        content,
        data,
    )
