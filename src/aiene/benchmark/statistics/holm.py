"""Correction for several tests at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """P values after Holm's step-down correction (Scand. J. Stat. 6, 1979), in the order given.

    A missing one (None, NaN) stays None and is no part of the family.
    """
    there = [place for place, p in enumerate(p_values) if p is not None and np.isfinite(p)]
    order = sorted(there, key=lambda place: float(p_values[place] or 0.0))
    adjusted: list[float | None] = [None] * len(p_values)
    reached = 0.0
    for step, place in enumerate(order):
        reached = max(reached, min(1.0, (len(order) - step) * float(p_values[place] or 0.0)))
        adjusted[place] = reached
    return tuple(adjusted)
