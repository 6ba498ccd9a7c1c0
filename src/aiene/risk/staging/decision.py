"""Decision tables, row by row: the first row that holds wins, and what is not known is never guessed.

A condition is true, false, or undecided (None) where an input is missing. A table is decided if
every row that could hold, until the first that surely does, gives the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

Tri = bool | None
"""True, false, or not known."""


@dataclass(frozen=True)
class Decision:
    """What a decision table says of one patient.

    Parameters
    ----------
    value : the result; None where it is unknown.
    row : table and row that decided, such as `ajcc7-N:3`; empty where none did.
    reason : why it is unknown or not applicable; empty where it is known.
    possible : results that the missing inputs leave open, in the table's order.
    flags : assumptions that were made, by the user's wish.
    applicable : whether the table is meant for this patient at all.
    """

    value: str | None
    row: str = ""
    reason: str = ""
    possible: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    applicable: bool = True

    def flagged(self, *flags: str) -> Decision:
        """The same decision with further flags."""
        return replace(self, flags=tuple(dict.fromkeys((*self.flags, *flags))))


class Row(NamedTuple):
    """One row of a decision table for one patient: its number, whether it holds, and what it gives."""

    number: int
    holds: Tri
    result: str


def unknown(reason: str, possible: Sequence[str] = ()) -> Decision:
    """No result, and why."""
    return Decision(None, reason=reason, possible=tuple(possible))


def not_applicable(reason: str) -> Decision:
    """The table is not meant for this patient."""
    return Decision(None, reason=reason, applicable=False)


def decide(
    table: str,
    rows: Iterable[Row],
    *,
    missing: Sequence[str],
    otherwise: str = "no row of the table holds",
    complete: bool = False,
) -> Decision:
    """Go down a table.

    Parameters
    ----------
    table : its name, for `Decision.row`.
    rows : in order.
    missing : names of the inputs that are missing, for the reason.
    otherwise : the reason where no row can hold.
    complete : one of the rows always holds, so that open rows of one result decide even if none surely holds.
    """
    open_rows = _open(rows)
    if not open_rows:
        return unknown(otherwise)
    results = tuple(dict.fromkeys(row.result for row in open_rows))
    if _decides(open_rows, complete):
        return Decision(results[0], f"{table}:{open_rows[-1].number}")
    lacking = ", ".join(missing) or "an input"
    return unknown(f"missing: {lacking} (could be {' or '.join(results)})", results)


def settled(rows: Iterable[Row]) -> bool:
    """Whether a complete table decides."""
    return _decides(_open(rows), complete=True)


def _open(rows: Iterable[Row]) -> list[Row]:
    """The rows that could hold, up to the first that does."""
    found: list[Row] = []
    for row in rows:
        if row.holds is not False:
            found.append(row)
        if row.holds:
            break
    return found


def _decides(open_rows: Sequence[Row], complete: bool) -> bool:
    sure = bool(open_rows) and (complete or open_rows[-1].holds is True)
    return sure and len({row.result for row in open_rows}) == 1


def every(*conditions: Tri) -> Tri:
    """Whether all hold: false as soon as one is false, undecided if one is undecided."""
    if any(c is False for c in conditions):
        return False
    return None if any(c is None for c in conditions) else True


def some(*conditions: Tri) -> Tri:
    """Whether one holds."""
    return negated(every(*(negated(c) for c in conditions)))


def negated(condition: Tri) -> Tri:
    """The opposite; undecided stays undecided."""
    return None if condition is None else not condition


def among(value: str | None, *words: str) -> Tri:
    """Whether a word is one of some; undecided where it is missing."""
    return None if value is None else value in words


def told(word: str | None) -> str | None:
    """A category, or None where it says that it is not known (TX, NX, MX)."""
    return None if word is None or word.endswith("X") else word


def lacking(t: str | None, n: str | None, m: str | None) -> tuple[str, ...]:
    """Which of T, N, M are not known."""
    return tuple(name for name, word in (("T", t), ("N", n), ("M", m)) if word is None)
