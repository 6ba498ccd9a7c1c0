"""Entries in their order: only those on the same data are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from aiene.benchmark.directions import goodness
from aiene.benchmark.leaderboard.entry import Entry
from aiene.errors import UsageError

USUAL_METRICS = ("dice", "dice_GTVn", "auc_on_truth", "auc_end_to_end", "auc", "node_sensitivity")
"""What is sorted by where nothing is said: the first that an entry has."""


@dataclass(frozen=True)
class Place:
    """An entry and its place: 1 is best, None where it lacks the metric; equal figures share one."""

    rank: int | None
    entry: Entry


@dataclass(frozen=True)
class Board:
    """The entries of one data set.

    Parameters
    ----------
    sort : metric that they are ranked by.
    metrics : every metric that an entry has, that one first.
    same_cases : all entries are over the same number of cases.
    """

    data_sha256: str
    sort: str
    places: tuple[Place, ...]
    metrics: tuple[str, ...]
    same_cases: bool


def in_order(
    entries: Sequence[Entry], *, sort: str | None = None, descending: bool | None = None
) -> tuple[Entry, ...]:
    """Entries data set by data set, that of the newest first, the best of each first.

    Raises
    ------
    UsageError : no entry has the metric.
    """
    return tuple(p.entry for board in boards(entries, sort=sort, descending=descending) for p in board.places)


def boards(
    entries: Sequence[Entry], *, sort: str | None = None, descending: bool | None = None
) -> tuple[Board, ...]:
    """One board for each data set, that of the newest entry first.

    Parameters
    ----------
    sort : metric; None: the usual one of each data set.
    descending : by the figure itself, largest first (False: smallest first), instead of the best first.

    Raises
    ------
    UsageError : no entry has the metric.
    """
    check_metric(entries, sort)
    by_data: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: e.created, reverse=True):
        by_data.setdefault(entry.data_sha256, []).append(entry)
    return tuple(_board(data, mine, sort, descending) for data, mine in by_data.items())


def newest_only(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Of each model (name and hash) on each data set, as each site has it, the newest entry."""
    newest: dict[tuple[str, str, str | None, str], Entry] = {}
    for entry in sorted(entries, key=lambda e: e.created):
        newest[entry.data_sha256, entry.model, entry.model_sha256, entry.site] = entry
    return tuple(newest.values())


def _board(data: str, entries: list[Entry], sort: str | None, descending: bool | None) -> Board:
    counts = Counter(name for entry in entries for name, value in entry.metrics.items() if value is not None)
    usual = next((name for name in USUAL_METRICS if counts[name]), None)
    metric = sort or usual or next((name for name, _ in counts.most_common(1)), USUAL_METRICS[0])
    names = sorted({name for entry in entries for name in entry.metrics} - {metric})

    def worth(entry: Entry) -> float:
        value = entry.metrics.get(metric)
        if value is None:
            return float("-inf")
        if descending is None:
            return goodness(metric, value)
        return value if descending else -value

    ordered = sorted(entries, key=worth, reverse=True)
    places = []
    for place, entry in enumerate(ordered):
        if entry.metrics.get(metric) is None:
            places.append(Place(None, entry))
            continue
        tied = place > 0 and worth(ordered[place - 1]) == worth(entry)
        places.append(Place(places[-1].rank if tied else place + 1, entry))
    return Board(data, metric, tuple(places), (metric, *names), len({e.n_cases for e in entries}) == 1)


def check_metric(entries: Sequence[Entry], sort: str | None) -> None:
    """Do any of the entries have this metric?

    Raises
    ------
    UsageError : none does; the nearest that one has is named.
    """
    known = sorted({name for entry in entries for name in entry.metrics})
    if sort is None or sort in known or not entries:
        return
    near = get_close_matches(sort, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}."
    raise UsageError(f"no entry has the metric {sort}{hint}")
