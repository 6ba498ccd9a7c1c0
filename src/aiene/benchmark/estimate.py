"""`Estimate`: a number with its interval, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number of a benchmark.

    Parameters
    ----------
    value : None where it cannot be given; never NaN.
    low, high : the 95 % interval, unless the maker says otherwise; None where there is none.
    reason : why the value, or only its interval, is missing; empty where both are there.
    n : how many observations (nodes, cases or patients) it rests on.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    n: int = 0


def missing(reason: str, n: int = 0) -> Estimate:
    """No number, and why."""
    return Estimate(None, reason=reason, n=n)
