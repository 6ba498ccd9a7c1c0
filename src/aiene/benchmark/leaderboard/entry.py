"""Entries of a leaderboard: one model on one data set, in figures, without patients.

Entries are made from a benchmark's summary, one for each model, and ranked within one data set only.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from aiene.benchmark.metrics.segmentation import goodness
from aiene.errors import UsageError

_NAME_OF_METRIC = re.compile(r"[A-Za-z0-9_.@%<>=+ -]{1,80}")
_LONGEST_TEXT = 500
_MOST_METRICS = 500
_TEXTS = ("data_sha256", "model", "version", "created")
_OPTIONAL_TEXTS = ("model_sha256", "machine", "site", "note")

USUAL_METRICS = ("dice", "dice_GTVn", "auc_on_truth", "auc_end_to_end", "auc", "node_sensitivity")
"""What is sorted by where nothing is said: the first that an entry has."""


@dataclass(frozen=True)
class Entry:
    """What a run adds to a leaderboard for one model.

    Nothing in it is of a patient: figures over all cases, and hashes. `note` is shared as it is.

    Parameters
    ----------
    data_sha256 : hash of the data set; only entries with the same one are compared.
    model, model_sha256 : its name and hash; None where there is no file to hash.
    version : of this package.
    machine : in words, without a person's or computer's name.
    created : ISO 8601 date and time, UTC.
    n_cases : cases that the figures are over.
    metrics : figures by name; None where one could not be given.
    site : who measured, in words that may be shared; empty where it stays unsaid.
    """

    data_sha256: str
    model: str
    model_sha256: str | None
    version: str
    machine: str
    created: str
    n_cases: int
    metrics: dict[str, float | None] = field(default_factory=dict)
    site: str = ""
    note: str = ""

    @property
    def identity(self) -> str:
        """Hash of the whole entry; the same entry is kept once, whichever way it comes."""
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """JSON values; `entry_from_json` takes them back."""
    return asdict(checked(entry))


def entry_from_json(content: object) -> Entry:
    """The entry of JSON values that may come from anywhere.

    Raises
    ------
    UsageError : it is not of this form, or holds more than an entry does (names of patients, say).
    """
    if not isinstance(content, dict):
        raise UsageError("an entry is no JSON object.")
    known = {*Entry.__dataclass_fields__}
    unknown = sorted(str(key) for key in content if key not in known)
    if unknown:
        raise UsageError(f"an entry holds unknown fields ({_shown(', '.join(unknown))}).")
    lacking = sorted(name for name in (*_TEXTS, "n_cases", "metrics") if name not in content)
    if lacking:
        raise UsageError(f"an entry lacks {', '.join(lacking)}.")
    filled = {"model_sha256": None, "machine": "", **content}
    return checked(Entry(**filled))


def checked(entry: Entry) -> Entry:
    """The entry, where every field is what it should be; figures as floats, the date in UTC.

    Raises
    ------
    UsageError : a field is of another kind, too long, or no finite number.
    """
    for name in (*_TEXTS, *_OPTIONAL_TEXTS):
        _check_text(name, getattr(entry, name), optional=name in _OPTIONAL_TEXTS)
    if isinstance(entry.n_cases, bool) or not isinstance(entry.n_cases, int) or entry.n_cases < 0:
        raise UsageError("n_cases of an entry is no whole number from 0.")
    if not isinstance(entry.metrics, dict) or len(entry.metrics) > _MOST_METRICS:
        raise UsageError(f"metrics of an entry is no JSON object of at most {_MOST_METRICS} figures.")
    metrics = {_metric_name(name): _figure(name, value) for name, value in entry.metrics.items()}
    return Entry(**{**asdict(entry), "metrics": metrics, "created": _in_utc(entry.created)})


def _check_text(name: str, value: object, *, optional: bool) -> None:
    if value is None and name == "model_sha256":
        return
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not (value.strip() or optional):
        raise UsageError(f"{name} of an entry is no text of 1 to {_LONGEST_TEXT} characters.")
    if any(not letter.isprintable() for letter in value):
        raise UsageError(f"{name} of an entry holds characters that cannot be printed.")


def _in_utc(created: str) -> str:
    """The moment in one spelling, so that dates can be sorted; without a zone it is taken as UTC."""
    try:
        moment = datetime.fromisoformat(created)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError) as error:
        raise UsageError(f"created of an entry is no date ({_shown(created)}).") from error


def _metric_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME_OF_METRIC.fullmatch(name):
        raise UsageError(f"a metric of an entry has a name that is none ({_shown(str(name))}).")
    return name


def _figure(name: object, value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        number = math.inf
    if isinstance(value, bool) or not math.isfinite(number):
        raise UsageError(f"the metric {_shown(str(name))} of an entry is no finite number.")
    return number


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _shown(text: str) -> str:
    """A foreign text as it may stand in a sentence: short, printable."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= 60 else printable[:57] + "..."


# Entries from a summary


def entries_of(summary: dict[str, Any]) -> list[Entry]:
    """One entry for each model that took part.

    Parameters
    ----------
    summary : content of a `benchmark_summary_<time>.json`.
    """
    machine = summary["machine"]
    where = f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores"
    return [
        Entry(
            data_sha256=summary["data"]["sha256"],
            model=model["name"],
            model_sha256=model["sha256"],
            version=summary["aiene"],
            machine=where,
            created=summary["created"],
            n_cases=model["cases"]["ok"],
            metrics=metrics_of(model),
            note="; ".join(model["said"]),
        )
        for model in summary["models"]
        if model["status"] == "ok"
    ]


def metrics_of(model: dict[str, Any]) -> dict[str, float | None]:
    """The figures of a model by name; the mean where there are several cases."""
    metrics: dict[str, float | None] = {}
    for label, figures in (model["segmentation"] or {}).items():
        for name, summary in figures.items():
            metrics[f"{name}_{label}"] = summary["mean"]["value"]
    for label, estimate in (model["aggregated_dice"] or {}).items():
        metrics[f"aggregated_dice_{label}"] = estimate["value"]
    found = model["detection"] or {}
    for name in ("sensitivity", "precision", "f1", "false_per_case"):
        if name in found:
            metrics[f"node_{name}"] = found[name]["value"]
    for track, figures in (model["classification"] or {}).items():
        for name in ("auc", "average_precision", "brier"):
            if figures and name in figures:
                metrics[f"{name}_{track}"] = figures[name]["value"]
    resources = model["resources"]
    metrics["total_seconds"] = resources["seconds"]["total"]["median"]["value"]
    metrics["peak_rss_mib"] = resources["peak_rss_mib"]["max"]
    if "GTVn" in (model["segmentation"] or {}):
        metrics["dice"] = metrics["dice_GTVn"]
    return metrics


# Ranking


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
