"""How numbers are shown, and how they are made plain for machines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from aiene.report.document import Cell, CellPart, CellTable, Column, Kind, Row, Table

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


def interval_text(value: float | None, low: float | None, high: float | None, kind: Kind = "number") -> str:
    """A value with its interval, for running text and legends; an end that was not found is a dash."""
    ends = [value_text(plain(end), kind) for end in (low, high)]
    return f"{value_text(plain(value), kind)} ({ends[0]} to {ends[1]})"


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


def compose(table: Table) -> CellTable:
    """A table as it is shown: without columns that are empty in every row, repeated heads of rows once."""
    filled = tuple(c for c in table.columns if any(row.get(c.key) not in (None, "") for row in table.rows))
    columns = filled or table.columns[:1]
    rows = [
        tuple(
            Cell((CellPart(text),), numeric=c.kind != "text") for text, c in zip(texts, columns, strict=True)
        )
        for texts in _texts(table.rows, columns)
    ]
    notes = (table.note,) if table.note else ()
    return CellTable(table.title, tuple(c.title for c in columns), tuple(rows), notes, table.name)


def _texts(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[str]]:
    shown_rows = []
    before: Row | None = None
    for row in rows:
        cells = [cell_text(row, c) for c in columns]
        if before is not None:
            for place, column in enumerate(columns):
                if column.kind != "text" or row.get(column.key) != before.get(column.key) or place > 1:
                    break
                cells[place] = ""
        shown_rows.append(cells)
        before = row
    return shown_rows


NumberKind = Literal["ratio", "mm", "ml", "count", "p", "seconds", "mib", "large", "plain"]
_DIGITS = {"ratio": 3, "mm": 2, "ml": 2, "seconds": 2, "mib": 0, "plain": 2}
_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def dig(value: Any, *path: str | int) -> Any:
    """What lies at a path in nested JSON values; None where a part of the path is not there."""
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(str(step))
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(step, int):
            value = value[step] if -len(value) <= step < len(value) else None
        else:
            return None
    return value


def shown(value: Any, kind: NumberKind = "ratio", *, beside: float = 0.0) -> str:
    """A number as people read it, a dash for None; fewer digits where it, or one `beside` it, is large."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING if value is None else str(value)
    if kind == "p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if kind == "count":
        return f"{value:.0f}"
    if kind == "large":
        return _large(value)
    size = max(abs(value), beside)
    digits = _DIGITS[kind] - (size >= 100) - (size >= 1000)
    return _signed(f"{value:.{max(digits, 0)}f}")


def _large(value: float) -> str:
    for size, letter in _LARGE:
        if abs(value) >= size:
            return f"{value / size:.1f} {letter}"
    return f"{value:.0f}"


def _signed(text: str) -> str:
    """With a minus sign, and none on a zero."""
    if not text.startswith("-"):
        return text
    return text[1:] if not text.strip("-0.") else f"−{text[1:]}"


def words(text: object) -> Cell:
    """A cell of words."""
    return Cell((CellPart(NOTHING if text in (None, "") else str(text)),), numeric=False)


def number(value: Any, kind: NumberKind = "ratio") -> Cell:
    """A cell of one number."""
    known = value if isinstance(value, int | float) else None
    return Cell((CellPart(shown(value, kind), known),))


def numbers(values: Sequence[Any], kind: NumberKind = "count", between: str = " / ") -> Cell:
    """A cell of several numbers."""
    parts: list[CellPart] = []
    for value in values:
        parts += [CellPart(between)] if parts else []
        parts += number(value, kind).parts
    return Cell(tuple(parts))


def estimate(value: Any, kind: NumberKind = "ratio") -> Cell:
    """A cell of an `Estimate`, its interval under it."""
    middle, low, high = (dig(value, name) for name in ("value", "low", "high"))
    if middle is None or low is None or high is None:
        return number(middle, kind)
    size = max(abs(middle), abs(low), abs(high))
    return Cell(
        (
            CellPart(shown(middle, kind, beside=size), middle),
            CellPart(shown(low, kind, beside=size), low, small=True),
            CellPart(" to ", small=True),
            CellPart(shown(high, kind, beside=size), high, small=True),
        )
    )


def in_words(value: Any, kind: NumberKind = "ratio") -> str:
    """An `Estimate` within a sentence."""
    middle, low, high = (dig(value, name) for name in ("value", "low", "high"))
    if low is None or high is None:
        return shown(middle, kind)
    size = max(abs(middle or 0), abs(low), abs(high))
    middle, low, high = (shown(one, kind, beside=size) for one in (middle, low, high))
    return f"{middle} ({low} to {high})"


class TableBuilder:
    """Rows one by one, and why figures are missing, each reason told once."""

    def __init__(self, caption: str, head: Sequence[str]) -> None:
        self.caption, self.head = caption, tuple(head)
        self._rows: list[tuple[Cell, ...]] = []
        self._missing: dict[tuple[str, str], list[str]] = {}

    def row(self, *cells: Cell) -> None:
        """Add a row."""
        self._rows.append(cells)

    def estimate(self, who: str, what: str, value: Any, kind: NumberKind = "ratio") -> Cell:
        """A cell of an `Estimate`; where something of it is missing, the reason is noted.

        Parameters
        ----------
        who, what : the model, and which of its figures it is.
        """
        reason = dig(value, "reason")
        if reason and (dig(value, "value") is None or dig(value, "low") is None):
            self.missing(who, what, str(reason))
        return estimate(value, kind)

    def missing(self, who: str, what: str, reason: str) -> None:
        """Note why a figure of a model is missing."""
        told = self._missing.setdefault((what, reason.rstrip(".")), [])
        if who not in told:
            told.append(who)

    def table(self) -> CellTable:
        """The table as it is now."""
        notes = tuple(
            f"{what[0].upper()}{what[1:]} of {', '.join(who)}: {reason}."
            for (what, reason), who in self._missing.items()
        )
        return CellTable(self.caption, self.head, tuple(self._rows), notes)
