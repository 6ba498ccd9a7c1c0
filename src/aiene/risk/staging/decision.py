"""Decision tables, row by row, and the facts of a patient's nodes that they ask for.

The first row that holds wins, and what is not known is never guessed: a condition is true, false, or
undecided (None) where an input is missing. A table is decided if every row that could hold, until the first
that surely does, gives the same result. What is known of nodes was measured, or is read back from a category
of another edition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

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


# Nodes

Side = Literal["ipsilateral", "contralateral", "bilateral", "other"]
"""`other` is contralateral or bilateral, not known which."""

_SIDES: tuple[Side, ...] = ("ipsilateral", "contralateral", "bilateral")


@dataclass(frozen=True)
class NodeFacts:
    """Involved nodes of one patient, seen from the primary; None is not known.

    Parameters
    ----------
    assessable : false for NX.
    present : whether there is one at all.
    several : whether there are two or more.
    over4 : whether there are five or more.
    side : where they lie.
    over3, over6 : whether the largest is more than 3 cm, 6 cm (exactly 3 or 6 cm is not).
    ene : extranodal extension.
    """

    assessable: bool = True
    present: Tri = None
    several: Tri = None
    over4: Tri = None
    side: Side | None = None
    over3: Tri = None
    over6: Tri = None
    ene: Tri = None

    def lies(self, *sides: str) -> Tri:
        """Whether the nodes lie on one of some sides; a single node is never bilateral."""
        left: set[str] = set(_SIDES)
        if self.side is not None:
            left = {"contralateral", "bilateral"} if self.side == "other" else {self.side}
        if self.several is False:
            left = left - {"bilateral"}
        return True if left <= set(sides) else None if left & set(sides) else False

    @property
    def single(self) -> Tri:
        """Whether there is one only."""
        return negated(self.several)

    def with_ene(self, ene: Tri) -> NodeFacts:
        """The same nodes, with what is known of their extension."""
        return replace(self, ene=ene)


class Contradiction(Exception):  # noqa: N818  (a fact about the data, caught by the caller, never told as an error)
    """Columns about nodes that cannot all be true."""


def measured(count: int | None, side: str | None, largest_cm: float | None) -> NodeFacts:
    """Facts from columns.

    Parameters
    ----------
    count : involved nodes.
    side : `none`, `ipsilateral`, `contralateral`, `bilateral`.
    largest_cm : greatest dimension of the largest.

    Raises
    ------
    Contradiction : for example no node, but a side.
    """
    present = _present(count, side, largest_cm)
    if present is False:
        return NodeFacts(present=False)
    if count == 1 and side == "bilateral":
        raise Contradiction("one node cannot be bilateral")
    several: Tri = None if count is None else count > 1
    return NodeFacts(
        present=present,
        several=True if side == "bilateral" else several,
        over4=None if count is None else count > 4,
        side=None if side in (None, "none") else side,  # type: ignore[arg-type]
        over3=None if largest_cm is None else largest_cm > 3,
        over6=None if largest_cm is None else largest_cm > 6,
    )


def _present(count: int | None, side: str | None, largest_cm: float | None) -> Tri:
    signs: list[Tri] = [
        None if count is None else count > 0,
        None if side is None else side != "none",
        None if largest_cm is None else largest_cm > 0,
    ]
    said = {sign for sign in signs if sign is not None}
    if len(said) == 2:
        raise Contradiction("n_nodes, node_laterality and largest_node_cm contradict each other")
    return said.pop() if said else None


_LONE = NodeFacts(present=True, several=False, over4=False, side="ipsilateral", over6=False)
_ABSENT = NodeFacts(present=False)
_NOT_ASSESSABLE = NodeFacts(assessable=False)

FROM_N7: dict[str, NodeFacts] = {
    "NX": _NOT_ASSESSABLE,
    "N0": _ABSENT,
    "N1": replace(_LONE, over3=False),
    "N2a": replace(_LONE, over3=True),
    "N2b": NodeFacts(present=True, several=True, side="ipsilateral", over6=False),
    "N2c": NodeFacts(present=True, side="other", over6=False),
    "N3": NodeFacts(present=True, over3=True, over6=True),
}
"""What a category of edition 7 says; a bare N2 is one of three, see `readings`."""

FROM_N8_POSITIVE: dict[str, NodeFacts] = {
    "NX": _NOT_ASSESSABLE,
    "N0": _ABSENT,
    "N1": NodeFacts(present=True, side="ipsilateral", over6=False),
    "N2": NodeFacts(present=True, side="other", over6=False),
    "N3": NodeFacts(present=True, over3=True, over6=True),
}
"""What a clinical category of edition 8, p16-positive, says."""

FROM_N8_NEGATIVE: dict[str, NodeFacts] = {
    **{name: facts.with_ene(False) for name, facts in FROM_N7.items() if name not in ("NX", "N0", "N3")},
    "NX": _NOT_ASSESSABLE,
    "N0": _ABSENT,
    "N3a": NodeFacts(present=True, over3=True, over6=True, ene=False),
    "N3b": NodeFacts(present=True, ene=True),
}
"""What a clinical category of edition 8, p16-negative, says; N3b tells no size."""


def readings(word: str, categories: Mapping[str, NodeFacts]) -> tuple[NodeFacts, ...]:
    """What a category says: one that has lost its letter says what any of its sub-categories does.

    Nothing where there is no such category.
    """
    if word in categories:
        return (categories[word],)
    return tuple(facts for name, facts in categories.items() if name.startswith(word))


def over_readings(facts: Sequence[NodeFacts], rule: Callable[[NodeFacts], Decision]) -> Decision:
    """N by a rule: known only if all readings of a category give the same.

    Parameters
    ----------
    facts : see `readings`; at least one.
    """
    made = [rule(one) for one in facts]
    if len(made) == 1 or (made[0].value is not None and len({one.value for one in made}) == 1):
        return made[0]
    possible = dict.fromkeys(v for one in made for v in ((one.value,) if one.value else one.possible))
    told = (one.reason.removeprefix("missing: ").partition(" (could be")[0] for one in made if one.reason)
    lacking = ", ".join(dict.fromkeys(("the letter of N", *told)))
    return unknown(f"missing: {lacking} (could be {' or '.join(possible)})", tuple(possible))


def needed(nodes: NodeFacts, rows: Callable[[NodeFacts], Sequence[Row]], *, ene: str = "") -> tuple[str, ...]:
    """Names of the missing columns that keep a table from deciding.

    If knowing one of them alone would always decide, only that one is named.

    Parameters
    ----------
    rows : the table for given facts.
    ene : name of the column that would tell the extension; empty where it plays no part.
    """
    if nodes.present is None:
        return ("N and n_nodes",)
    fillings: dict[str, list[NodeFacts]] = {}
    if nodes.several is None:
        fillings["n_nodes"] = [replace(nodes, several=value) for value in (False, True)]
    if nodes.side in (None, "other"):
        sides: tuple[Side, ...] = ("contralateral", "bilateral")
        every_side = sides if nodes.side == "other" else _SIDES
        if nodes.several is False:
            every_side = tuple(side for side in every_side if side != "bilateral")
        fillings["node_laterality"] = [replace(nodes, side=side) for side in every_side]
    if nodes.over6 is None or (nodes.over6 is False and nodes.over3 is None):
        sizes = [(False, False), (True, False), *([(True, True)] if nodes.over6 is None else [])]
        fillings["largest_node_cm"] = [replace(nodes, over3=a, over6=b) for a, b in sizes]
    if ene and nodes.ene is None:
        fillings[ene] = [replace(nodes, ene=value) for value in (False, True)]
    alone = [
        name
        for name, facts in fillings.items()
        if all(_decides(_open(rows(one)), complete=True) for one in facts)
    ]
    return tuple(alone[:1] or fillings)


def decide_n(
    table: str, rows: Callable[[NodeFacts], Sequence[Row]], nodes: NodeFacts, *, ene: str = ""
) -> Decision:
    """N by a complete table; see `decide` and `needed`."""
    return decide(table, rows(nodes), missing=needed(nodes, rows, ene=ene), complete=True)
