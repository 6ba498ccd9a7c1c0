"""The leaderboard: one SQLite file, to which several runs may add at once, and the ranks of its entries.

Entries are ranked within one data set and its settings only, by one figure.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import rankdata

from aiene.benchmark.leaderboard.entry import Entry, checked, entry_from_json, entry_to_json
from aiene.benchmark.records import goodness
from aiene.errors import InputError, OutputError, UsageError
from aiene.report.document import RESEARCH_ONLY
from aiene.results.atomic import make_folder, write_json
from aiene.results.ownership import refuse_unless

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


def boards(
    entries: Sequence[Entry], *, sort: str | None = None, ascending: bool = False
) -> tuple[Board, ...]:
    """One board for each data set and its settings, that of the newest entry first.

    Parameters
    ----------
    sort : metric; None: the usual one of each data set.
    ascending : by the figure itself, smallest first, instead of the best first.

    Raises
    ------
    UsageError : no entry has the metric.
    """
    check_metric(entries, sort)
    by_key: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: e.created, reverse=True):
        by_key.setdefault(entry.key, []).append(entry)
    return tuple(_board(mine, sort, ascending) for mine in by_key.values())


def newest_only(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Of each model (name and hash) on each board, as each site has it, the newest entry."""
    newest: dict[tuple[tuple[str, str], str, str | None, str], Entry] = {}
    for entry in sorted(entries, key=lambda e: e.created):
        newest[entry.key, entry.model, entry.model_sha256, entry.site] = entry
    return tuple(newest.values())


def _board(entries: list[Entry], sort: str | None, ascending: bool) -> Board:
    counts = Counter(name for entry in entries for name, value in entry.metrics.items() if value is not None)
    usual = next((name for name in USUAL_METRICS if counts[name]), None)
    metric = sort or usual or next((name for name, _ in counts.most_common(1)), USUAL_METRICS[0])
    every = {name for entry in entries for name in entry.metrics} - {metric}
    names = sorted(every, key=lambda name: (name not in USUAL_METRICS, name))

    def worth(entry: Entry) -> float:
        value = entry.metrics.get(metric)
        if value is None:
            return float("-inf")
        return -value if ascending else goodness(metric, value)

    ordered = sorted(entries, key=worth, reverse=True)
    ranks = rankdata([-worth(entry) for entry in ordered], method="min")
    places = tuple(
        Place(None if entry.metrics.get(metric) is None else int(rank), entry)
        for rank, entry in zip(ranks, ordered, strict=True)
    )
    return Board(entries[0].data_sha256, entries[0].settings, metric, places, (metric, *names))


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


FILE_NAME = "leaderboard.sqlite"
EXPORT_FORMAT = 2
EXPORT_KIND = "aiene-leaderboard"

_APPLICATION = 0x41494C42  # "AILB"
_SCHEMA = 2
_WAIT_SECONDS = 60.0
_LARGEST_IMPORT = 64 * 1024 * 1024
_AGAIN = "export it again at the other site"


class Reading(NamedTuple):
    """What a leaderboard holds.

    Parameters
    ----------
    entries : those that may be ranked.
    rejected : those that may not, each with the beginning of its id and the reason.
    """

    entries: tuple[Entry, ...]
    rejected: tuple[tuple[str, str], ...]


def board_file(board: Path) -> Path:
    """The SQLite file of a leaderboard that is named by itself or by its folder."""
    return board / FILE_NAME if board.is_dir() or not board.suffix else board


def add_entries(board: Path, entries: Iterable[Entry]) -> tuple[int, int]:
    """Add entries, all or none of them.

    Parameters
    ----------
    board : a file, made where there is none; or a folder (a name without a suffix), in which
        `leaderboard.sqlite` is the file.

    Returns
    -------
    How many were new, and how many were there already.

    Raises
    ------
    UsageError : an entry holds something that it must not.
    InputError : the file is no leaderboard. OutputError : it cannot be written.
    """
    rows = [
        (e.identity, e.data_sha256, e.created, json.dumps(entry_to_json(e))) for e in map(checked, entries)
    ]
    path = board_file(board)
    make_folder(path.parent)
    with _opened(path, writing=True) as connection:
        before = connection.total_changes
        connection.executemany("INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?)", rows)
        added = connection.total_changes - before
    return added, len(rows) - added


def read_entries(board: Path, *, data_sha256: str | None = None) -> tuple[Entry, ...]:
    """Entries that may be ranked, in order: board by board (that of the newest entry first), the best first.

    What was changed by hand, or cannot be, is left out; `read_board` says what.

    Parameters
    ----------
    data_sha256 : only of this data set; its first characters are enough.

    Raises
    ------
    InputError : there is no leaderboard, or something else.
    UsageError : none or several data sets begin with these characters.
    """
    entries = list(read_board(board).entries)
    if data_sha256 is not None:
        entries = _of_data_set(entries, data_sha256)
    return tuple(place.entry for one in boards(entries) for place in one.places)


def read_board(board: Path) -> Reading:
    """Every row of a leaderboard: as an entry that may be ranked, or with the reason why not.

    Raises
    ------
    InputError : there is no leaderboard, or something else.
    """
    path = board_file(board)
    if not path.is_file():
        raise InputError(
            path, "there is no leaderboard", "add a run with aiene benchmark --leaderboard first"
        )
    with _opened(path, writing=False) as connection:
        rows = connection.execute(
            "SELECT id, data_sha256, created, content FROM entries ORDER BY created, id"
        ).fetchall()
    entries: list[Entry] = []
    rejected: list[tuple[str, str]] = []
    for name, *columns, content in rows:
        try:
            entry = _read(str(name), columns, content)
        except UsageError as error:
            rejected.append((str(name)[:12], str(error)))
        else:
            entries.append(entry)
    good, contradicting = _of_one_size(entries)
    return Reading(tuple(good), (*rejected, *contradicting))


def _of_one_size(entries: Sequence[Entry]) -> tuple[list[Entry], list[tuple[str, str]]]:
    """The entries whose number of cases is that of their data set, and the others with the reason why not.

    One data set has one number of cases; where entries contradict each other that of most is taken, and none
    where there is no such number.
    """
    sizes: dict[str, Counter[int]] = defaultdict(Counter)
    for entry in entries:
        sizes[entry.data_sha256][entry.n_cases] += 1
    good, rejected = [], []
    for entry in entries:
        of_data = sizes[entry.data_sha256]
        mine, others = of_data[entry.n_cases], [n for n in of_data if n != entry.n_cases]
        if all(mine > of_data[n] for n in others):
            good.append(entry)
        else:
            said = ", ".join(str(n) for n in sorted(others))
            reason = f"an entry is over {entry.n_cases} cases, others of the same data set over {said}."
            rejected.append((entry.identity[:12], reason))
    return good, rejected


def export_json(board: Path, path: Path, *, data_sha256: str | None = None) -> int:
    """Write entries for other sites; how many.

    Raises
    ------
    InputError, UsageError : as `read_entries`. OutputError : it cannot be written.
    """
    entries = read_entries(board, data_sha256=data_sha256)
    content = {
        "kind": EXPORT_KIND,
        "format": EXPORT_FORMAT,
        "notice": f"{RESEARCH_ONLY} Figures over all cases; no patients.",
        "entries": [entry_to_json(entry) for entry in entries],
    }
    refuse_unless(path, _is_export)
    make_folder(path.resolve().parent)
    write_json(path, content)
    return len(entries)


def _is_export(content: bytes) -> bool:
    try:
        return bool(json.loads(content)["kind"] == EXPORT_KIND)
    except (ValueError, KeyError, TypeError):
        return False


def import_json(board: Path, path: Path) -> tuple[int, int]:
    """Add the entries of another site's export: all of them, or none where one is malformed.

    Returns
    -------
    How many were new, and how many were there already.

    Raises
    ------
    InputError : the file is no such export. OutputError : the leaderboard cannot be written.
    """
    known = read_board(board).entries if board_file(board).is_file() else ()
    sizes = {entry.data_sha256: entry.n_cases for entry in known}
    entries = []
    for number, row in enumerate(_export_rows(path), start=1):
        try:
            entry = entry_from_json(row)
            size = sizes.setdefault(entry.data_sha256, entry.n_cases)
            if entry.n_cases != size:
                said = f"an entry is over {entry.n_cases} cases, others of the same data set over {size}."
                raise UsageError(said)
        except UsageError as error:
            raise InputError(path, f"entry {number}: {str(error).rstrip('.')}", _AGAIN) from error
        entries.append(entry)
    return add_entries(board, entries)


def _export_rows(path: Path) -> list[Any]:
    try:
        if path.stat().st_size > _LARGEST_IMPORT:
            raise InputError(path, "it is over 64 MiB, too large for an export of a leaderboard", _AGAIN)
        content = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_no_constant)
    except OSError as error:
        raise InputError(
            path, f"it cannot be read ({error.strerror})", "name the exported JSON file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, "it is not valid JSON", _AGAIN) from error
    if not isinstance(content, dict) or content.get("kind") != EXPORT_KIND:
        raise InputError(path, "it is not an export of a leaderboard", _AGAIN)
    if content.get("format") != EXPORT_FORMAT:
        raise InputError(path, "it is an export from a different version", "update aiene at both sites")
    if not isinstance(content.get("entries"), list):
        raise InputError(path, "it has no list of entries", _AGAIN)
    rows: list[Any] = content["entries"]
    return rows


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _read(name: str, columns: Sequence[object], content: object) -> Entry:
    """The entry of a row, whose other columns only repeat it."""
    try:
        values = json.loads(str(content), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError("an entry is not valid JSON.") from error
    entry = entry_from_json(values)
    if entry.identity != name or columns != [entry.data_sha256, entry.created]:
        raise UsageError("an entry does not match its own hash: it was changed after it was made.")
    return entry


def _of_data_set(entries: list[Entry], beginning: str) -> list[Entry]:
    found = sorted({e.data_sha256 for e in entries if e.data_sha256.startswith(beginning)})
    if beginning in found:
        found = [beginning]
    if len(found) != 1:
        count = "no data set begins" if not found else f"{len(found)} data sets begin"
        raise UsageError(f"{count} with {beginning}; name one by the first characters of its hash.")
    return [entry for entry in entries if entry.data_sha256 == found[0]]


@contextmanager
def _opened(path: Path, *, writing: bool) -> Iterator[sqlite3.Connection]:
    """The database within one transaction; SQLite's errors become one sentence.

    A writer takes the write lock at once and others wait for it, so that no run's entries are lost.
    """
    mode = "rwc" if writing else "ro"
    try:
        with closing(
            sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}",
                uri=True,
                timeout=_WAIT_SECONDS,
                isolation_level=None,
            )
        ) as connection:
            connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
            _check_kind(path, connection, writing=writing)
            yield connection
            connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise _unusable(path, error, writing=writing) from error
    except sqlite3.DatabaseError as error:
        raise InputError(path, "it is not a leaderboard, or it is damaged", "name another file") from error


def _unusable(path: Path, error: sqlite3.OperationalError, *, writing: bool) -> InputError | OutputError:
    said = str(error)
    if "locked" in said:
        return OutputError(path, "another program is using this leaderboard", "try again")
    if not writing:
        return InputError(path, f"it cannot be read ({said})", "name another file")
    if "readonly" in said:
        return OutputError(path, "no permission to write this leaderboard", "name another file")
    return OutputError(path, f"it cannot be written ({said})", "name another file")


def _check_kind(path: Path, connection: sqlite3.Connection, *, writing: bool) -> None:
    """An empty file becomes a leaderboard; another program's database is refused."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    schema = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == _APPLICATION and schema == _SCHEMA:
        return
    if application == _APPLICATION:
        raise InputError(path, "it is a leaderboard of a different version", "update aiene")
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not (writing and empty and application == 0):
        raise InputError(path, "it is not a leaderboard", "name another file")
    connection.execute(
        "CREATE TABLE entries (id TEXT PRIMARY KEY, data_sha256 TEXT NOT NULL, created TEXT NOT NULL, "
        "content TEXT NOT NULL)"
    )
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {_SCHEMA}")
