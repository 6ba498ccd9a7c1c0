"""Small records that several analyses share, and their JSON form."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A value with its confidence interval; NaN where not reached or not defined."""

    value: float
    lower: float
    upper: float


class Difference(NamedTuple):
    """A paired difference with its interval and its two-sided p value."""

    value: float
    lower: float
    upper: float
    p: float


class Estimate(NamedTuple):
    """A curve at one horizon.

    `at_risk` counts patients still followed just before `time`, `n_events` the events up to and at it.
    `beyond_followup` is True where `time` lies after the last observation and some were censored there: the
    value is then the last one known.
    """

    time: float
    value: float
    lower: float
    upper: float
    std_error: float
    at_risk: int
    n_events: int
    beyond_followup: bool


class Pair(NamedTuple):
    """A test between two groups, its p value as it is and after Holm's correction."""

    first: str
    second: str
    statistic: float
    p: float
    p_holm: float


class Coefficient(NamedTuple):
    """One column of a regression: log hazard ratio, its error and test, the ratio with its interval."""

    name: str
    coef: float
    std_error: float
    z: float
    p: float
    hr: float
    lower: float
    upper: float


def to_json(record: Any) -> Any:
    """The record as JSON values; what is not finite becomes None."""
    if is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in fields(record)}
    if isinstance(record, tuple) and hasattr(record, "_asdict"):
        return {name: to_json(value) for name, value in record._asdict().items()}
    if isinstance(record, dict):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(value) for value in record]
    if isinstance(record, np.ndarray):
        return to_json(record.tolist())
    if isinstance(record, np.generic):
        return to_json(record.item())
    if isinstance(record, float):
        return record if math.isfinite(record) else None
    if record is None or isinstance(record, str | int | bool):
        return record
    return str(record)
