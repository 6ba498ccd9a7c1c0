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


def shown(value: Any, kind: Kind = "ratio", *, beside: float = 0.0) -> str:
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
    if middle is None or low is None or high is None:
        return number(middle, kind)
    size = max(abs(middle), abs(low), abs(high))
    return Cell(
        (
            Part(shown(middle, kind, beside=size), middle),
            Part(shown(low, kind, beside=size), low, small=True),
            Part(" to ", small=True),
            Part(shown(high, kind, beside=size), high, small=True),
        )
    )


def in_words(value: Any, kind: Kind = "ratio") -> str:
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

    def estimate(self, who: str, what: str, value: Any, kind: Kind = "ratio") -> Cell:
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

    def table(self) -> Table:
        """The table as it is now."""
        notes = tuple(
            f"{what[0].upper()}{what[1:]} of {', '.join(who)}: {reason}."
            for (what, reason), who in self._missing.items()
        )
        return Table(self.caption, self.head, tuple(self._rows), notes)
