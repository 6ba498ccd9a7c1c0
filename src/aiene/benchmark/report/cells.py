"""From numbers of the summary to cells: rounded for reading, with the whole number behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from aiene.benchmark.report.record import Cell, Part, Table

Kind = Literal["ratio", "mm", "ml", "count", "p", "seconds", "mib", "large", "plain"]

NOTHING = "–"
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


def shown(value: Any, kind: Kind = "ratio") -> str:
    """A number as people read it; a dash for None."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING if value is None else str(value)
    if kind == "p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if kind == "count":
        return f"{value:.0f}"
    if kind == "large":
        return _large(value)
    return _signed(f"{value:.{_DIGITS[kind]}f}")


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
    return Cell((Part(NOTHING if text in (None, "") else str(text)),), numeric=False)


def number(value: Any, kind: Kind = "ratio") -> Cell:
    """A cell of one number."""
    known = value if isinstance(value, int | float) else None
    return Cell((Part(shown(value, kind), known),))


def numbers(values: Sequence[Any], kind: Kind = "count", between: str = " / ") -> Cell:
    """A cell of several numbers."""
    parts: list[Part] = []
    for value in values:
        parts += [Part(between)] if parts else []
        parts += number(value, kind).parts
    return Cell(tuple(parts))


def estimate(value: Any, kind: Kind = "ratio") -> Cell:
    """A cell of an `Estimate`, its interval under it."""
    middle, low, high = (dig(value, name) for name in ("value", "low", "high"))
    parts = number(middle, kind).parts
    if middle is not None and low is not None and high is not None:
        parts += (
            Part(shown(low, kind), low, small=True),
            Part(" to ", small=True),
            Part(shown(high, kind), high, small=True),
        )
    return Cell(parts)


def in_words(value: Any, kind: Kind = "ratio") -> str:
    """An `Estimate` within a sentence."""
    middle, low, high = (dig(value, name) for name in ("value", "low", "high"))
    if low is None or high is None:
        return shown(middle, kind)
    return f"{shown(middle, kind)} ({shown(low, kind)} to {shown(high, kind)})"


class TableBuilder:
    """Rows one by one, and why figures are missing, each reason told once."""

    def __init__(self, caption: str, head: Sequence[str]) -> None:
        self.caption, self.head = caption, tuple(head)
        self._rows: list[tuple[Cell, ...]] = []
        self._missing: dict[str, list[str]] = {}

    def row(self, *cells: Cell) -> None:
        """Add a row."""
        self._rows.append(cells)

    def estimate(self, who: str, value: Any, kind: Kind = "ratio") -> Cell:
        """A cell of an `Estimate`; what is missing of it, and why, is noted for `who`."""
        reason = dig(value, "reason")
        if reason and (dig(value, "value") is None or dig(value, "low") is None):
            self.missing(who, str(reason))
        return estimate(value, kind)

    def missing(self, who: str, reason: str) -> None:
        """Note why something is missing."""
        told = self._missing.setdefault(reason, [])
        if who not in told:
            told.append(who)

    def table(self) -> Table:
        """The table as it is now."""
        notes = tuple(f"{', '.join(who)}: {reason}." for reason, who in self._missing.items())
        return Table(self.caption, self.head, tuple(self._rows), notes)
