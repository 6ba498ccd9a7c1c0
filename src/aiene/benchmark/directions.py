"""Which way a metric is better."""

from __future__ import annotations

_ABOUT_ZERO = (
    "volume_error_ml",
    "volume_error_relative",
    "volume_bias",
    "intercept",
    "calibration_intercept",
)
_LOWER_WORDS = (
    "hd95",
    "assd",
    "distance",
    "brier",
    "expected_error",
    "ece",
    "false",
    "missed",
    "splits",
    "merges",
    "seconds",
    "memory",
    "_bytes",
    "_mb",
    "_gb",
    "gib",
    "mib",
    "flops",
    "parameters",
    "size",
    "rank",
    "failed",
)
_ABOUT_ONE = ("calibration_slope", "slope")


def higher_is_better(metric: str) -> bool | None:
    """Whether a larger value of a metric is better.

    Parameters
    ----------
    metric : its name, also with what it is of in front or behind: `dice`, `gtvn_hd95_mm`, `wall_seconds`.

    Returns
    -------
    False for distances, errors, counts of mistakes, time and memory; None where neither way is: volume errors
    and calibration intercepts are best near 0, calibration slopes near 1. Otherwise True.
    """
    name = metric.lower()
    if any(word in name for word in (*_ABOUT_ZERO, *_ABOUT_ONE)):
        return None
    return not any(word in name for word in _LOWER_WORDS)


def goodness(metric: str, value: float) -> float:
    """A number that is larger the better the value of a metric is, to sort by."""
    direction = higher_is_better(metric)
    if direction is None:
        best = 1.0 if any(word in metric.lower() for word in _ABOUT_ONE) else 0.0
        return -abs(value - best)
    return value if direction else -value
