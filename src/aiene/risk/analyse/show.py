"""How numbers are shown, and how they are made plain for machines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aiene.risk.analyse.record import Column, Kind, Row

NOTHING = "–"
"""Shown where there is no value."""


def plain(value: Any) -> Any:
    """Plain Python values for JSON and CSV: no NaN, no infinity, no numpy, no pandas NA."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return _plain_number(value)


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError):  # pandas NA
        return None
    return number if math.isfinite(number) else None


def plain_rows(rows: Sequence[Row]) -> tuple[dict[str, Any], ...]:
    """Rows of plain values."""
    return tuple({str(key): plain(value) for key, value in row.items()} for row in rows)


def p_text(p: float | None) -> str:
    """A p-value as journals print it: three digits below 0.1, two above, never 0."""
    if p is None:
        return NOTHING
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def p_phrase(p: float | None) -> str:
    """The same with its sign, for running text: `p = 0.02`, `p < 0.001`."""
    text = p_text(p)
    return f"p {text[0]} {text[1:]}" if text.startswith("<") else f"p = {text}"


def value_text(value: Any, kind: Kind) -> str:
    """One value as it is shown."""
    if value is None:
        return NOTHING
    if kind == "text" or isinstance(value, str):
        return str(value)
    if kind == "p":
        return p_text(float(value))
    number = float(value)
    if kind == "count":
        return f"{number:.0f}"
    if kind == "percent":
        return f"{_signless(100 * number, 1)} %"
    return _signless(number, 3 if kind == "number3" else 2)


def cell_text(row: Row, column: Column) -> str:
    """The cell of a row: the value, and its interval (of a count: its share) behind it."""
    if column.kind == "mixed":
        return _mixed(row, column)
    value = value_text(row.get(column.key), column.kind)
    low, high = row.get(column.low), row.get(column.high)
    if not column.low or value == NOTHING or (low is None and high is None):
        return value
    kind = column.kind
    ends = [value_text(end, kind).removesuffix(" %") for end in (low, high)]
    return f"{value} ({ends[0]} to {ends[1]})"


def _mixed(row: Row, column: Column) -> str:
    """A column of table 1: counts with shares, or medians with quartiles, as the row's `form` says."""
    value, low, high = (row.get(k) for k in (column.key, column.low, column.high))
    if value is None:
        return NOTHING
    if row.get("form") == "median":
        ends = [NOTHING if v is None else f"{v:.1f}" for v in (low, high)]
        return f"{value:.1f} ({ends[0]} to {ends[1]})"
    return f"{value:.0f}" if low is None else f"{value:.0f} ({100 * low:.1f} %)"


def _signless(number: float, digits: int) -> str:
    """Fixed digits without a minus before zero; very large and very small ones in powers of ten."""
    if abs(number) >= 1e5 or 0 < abs(number) < 0.5 * 10**-digits / 50:
        return f"{number:.1e}"
    text = f"{number:.{digits}f}"
    return text.removeprefix("-") if not float(text) else text
