"""Which centres can judge a model, and one value from all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from aiene.risk.analyse.records import AnalysisSettings
from aiene.stats.centre_models import RandomEffects, random_effects
from aiene.stats.records import normal_quantile

FEWEST_CENTRES = 3
FEWEST_EVENTS = 20
"""Events that a centre needs to judge a model."""

Scale = Literal["plain", "log", "logit"]
_SCALES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[float], float]]] = {
    "plain": (lambda x: x, float),
    "log": (np.log, lambda x: float(np.exp(x))),
    "logit": (lambda x: np.log(x / (1 - x)), lambda x: float(1 / (1 + np.exp(-x)))),
}


def validation_centres(center: np.ndarray, event: np.ndarray) -> tuple[str, ...]:
    """The centres with events enough, in the order of their names; none where they are fewer than three.

    Parameters
    ----------
    center : (n,) names, empty where not known; such patients take part in every fit and judge none.
    event : (n,) 0 or 1.
    """
    found = [str(c) for c in np.unique(center.astype(str)) if c and event[center == c].sum() >= FEWEST_EVENTS]
    return tuple(found) if len(found) >= FEWEST_CENTRES else ()


def pooled(
    rows: Sequence[Mapping[str, Any]], keys: tuple[str, str, str], scale: Scale, settings: AnalysisSettings
) -> RandomEffects | None:
    """Random effects over the rows of centres, back on the scale that they are shown in.

    Parameters
    ----------
    keys : of the value and of the ends of its interval, whose width on `scale` gives the standard error.

    Returns
    -------
    None where fewer than two rows have a value and an interval with a width.
    """
    to, back = _SCALES[scale]
    parts = np.array([[row.get(k) for k in keys] for row in rows], dtype=float).reshape(-1, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = to(parts)
    error = (moved[:, 2] - moved[:, 1]) / (2 * normal_quantile(settings.confidence))
    good = np.isfinite(moved).all(axis=1) & (error > 0)
    if good.sum() < 2:
        return None
    found = random_effects(moved[good, 0], error[good], confidence=settings.confidence)
    names = ("value", "lower", "upper", "expected_low", "expected_high")
    shown: dict[str, Any] = {name: back(getattr(found, name)) for name in names}
    return found._replace(**shown)
