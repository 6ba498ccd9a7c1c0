"""Ranks of a leaderboard's entries: within one data set and its settings only, by one figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from aiene.benchmark.leaderboard.entry import Entry
from aiene.benchmark.metrics.records import goodness
from aiene.errors import UsageError

USUAL_METRICS = ("dice_GTVn", "auc_on_truth", "auc_end_to_end", "node_sensitivity", "dice_GTVp")
"""What is sorted by where nothing is said: the first that an entry has."""


@dataclass(frozen=True)
class Place:
    """An entry and its place: 1 is best, None where it lacks the metric; equal figures share one."""

    rank: int | None
    entry: Entry


@dataclass(frozen=True)
class Board:
    """The entries of one data set and its settings.

    Parameters
    ----------
    sort : metric that they are ranked by.
    metrics : every metric that an entry has, that one first, then the usual ones.
    """

    data_sha256: str
    settings: dict[str, Any]
    sort: str
    places: tuple[Place, ...]
    metrics: tuple[str, ...]


def in_order(
    entries: Sequence[Entry], *, sort: str | None = None, descending: bool | None = None
) -> tuple[Entry, ...]:
    """Entries board by board, that of the newest first, the best of each first.

    Raises
    ------
    UsageError : no entry has the metric.
    """
    return tuple(p.entry for board in boards(entries, sort=sort, descending=descending) for p in board.places)


def boards(
    entries: Sequence[Entry], *, sort: str | None = None, descending: bool | None = None
) -> tuple[Board, ...]:
    """One board for each data set and its settings, that of the newest entry first.

    Parameters
    ----------
    sort : metric; None: the usual one of each data set.
    descending : by the figure itself, largest first (False: smallest first), instead of the best first.

    Raises
    ------
    UsageError : no entry has the metric.
    """
    check_metric(entries, sort)
    by_key: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: e.created, reverse=True):
        by_key.setdefault(entry.key, []).append(entry)
    return tuple(_board(mine, sort, descending) for mine in by_key.values())


def newest_only(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Of each model (name and hash) on each board, as each site has it, the newest entry."""
    newest: dict[tuple[tuple[str, str], str, str | None, str], Entry] = {}
    for entry in sorted(entries, key=lambda e: e.created):
        newest[entry.key, entry.model, entry.model_sha256, entry.site] = entry
    return tuple(newest.values())


def _board(entries: list[Entry], sort: str | None, descending: bool | None) -> Board:
    counts = Counter(name for entry in entries for name, value in entry.metrics.items() if value is not None)
    usual = next((name for name in USUAL_METRICS if counts[name]), None)
    metric = sort or usual or next((name for name, _ in counts.most_common(1)), USUAL_METRICS[0])
    every = {name for entry in entries for name in entry.metrics} - {metric}
    names = sorted(every, key=lambda name: (name not in USUAL_METRICS, name))

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
    return Board(entries[0].data_sha256, entries[0].settings, metric, tuple(places), (metric, *names))


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
