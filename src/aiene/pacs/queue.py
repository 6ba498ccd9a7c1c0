"""The state of every study, in SQLite: it survives kill and power loss, and a study has one at a time.

    received ─► waiting ─► running ─► exporting ─► sent
        ▲                     │           │
        └── new images ───────┴───────────┴─► failed (with the reason)

A study counts its `generation`: each new image raises it. Work is done for one generation; where another came
meanwhile, its result is not sent, and the study goes back to `received`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

State = Literal["received", "waiting", "running", "exporting", "sent", "failed"]
STATES: Final[tuple[State, ...]] = ("received", "waiting", "running", "exporting", "sent", "failed")

_BUSY_S: Final = 30.0


@dataclass(frozen=True)
class Study:
    """One study as it stands.

    Parameters
    ----------
    name : a keyed hash of its UID.
    images, series : how many have come.
    first_at, last_at, changed_at : seconds since 1970: first and last image, last change of state.
    seconds : from the last image to the end of the work.
    """

    name: str
    uid: str
    state: State
    reason: str
    generation: int
    broken_off: bool
    ended: int
    tries: int
    next_try: float
    dropped: int
    first_at: float
    last_at: float
    changed_at: float
    seconds: float
    images: int = 0
    series: int = 0


class Instance(NamedTuple):
    """What is noted of a received object.

    Parameters
    ----------
    study, name, series : keyed hashes.
    is_ct : whether it is an image that can be run; others start nothing anew.
    stated : how many images the series has by its own word; None where it does not say.
    """

    study: str
    name: str
    series: str
    sha256: str
    is_ct: bool
    stated: int | None


@dataclass(frozen=True)
class Outcome:
    """How the work on a study ended.

    Parameters
    ----------
    status : `done`; `failed` for good; `later` where another try may help; `stale` where new images came.
    reason : one sentence where it is not `done`, or what to know where it is.
    objects : how many objects each archive has taken now, by its name.
    """

    status: Literal["done", "failed", "later", "stale"]
    reason: str = ""
    objects: tuple[tuple[str, int], ...] = ()


class Queue:
    """The database; may be used from several threads and processes.

    Parameters
    ----------
    file : made where it is not there, for its owner's eyes alone.
    """

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.touch(mode=0o600)
        self.lock = threading.RLock()
        self._db = sqlite3.connect(file, timeout=_BUSY_S, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")  # a commit is on the disk when it returns
        self._db.executescript((resources.files("aiene.pacs") / "queue.sql").read_text("utf-8"))

    def close(self) -> None:
        """Close it; the object cannot be used any more."""
        self._db.close()

    def noted(self, instance: Instance) -> str | None:
        """The hash of the bytes that are noted for an instance."""
        row = self._row(
            "SELECT sha256 FROM instance WHERE study = ? AND name = ?", instance.study, instance.name
        )
        return None if row is None else str(row["sha256"])

    def add(self, instance: Instance, study_uid: str) -> None:
        """Note a received object; a new image starts its study anew, whatever state that has.

        Another object (a structure set, a report) is kept, but starts nothing where the study is done.
        """
        now = time.time()
        with self._transaction():
            row = self._row("SELECT state FROM study WHERE name = ?", instance.study)
            if row is None:
                self._db.execute(
                    "INSERT INTO study (name, uid, state, first_at, last_at, changed_at) "
                    "VALUES (?,?,?,?,?,?)",
                    (instance.study, study_uid, "received", now, now, now),
                )
            self._db.execute("INSERT OR REPLACE INTO instance VALUES (?,?,?,?,?,?)", instance)
            self.count("received")
            if instance.is_ct or row is None:
                # work in progress is told by the generation, and put back when it ends
                free = row is not None and row["state"] in ("waiting", "sent", "failed")
                self._db.execute(
                    "UPDATE study SET generation = generation + 1, last_at = ?, tries = 0, next_try = 0, "
                    "ended = 0, broken_off = 0 WHERE name = ?",
                    (now, instance.study),
                )
                if free:
                    self.note(instance.study, state="received", reason="", changed_at=now)

    def move(
        self,
        name: str,
        state: State,
        *,
        expected: Sequence[State],
        generation: int | None = None,
        reason: str = "",
        **columns: Any,
    ) -> bool:
        """Give a study another state, if it still has one of those expected.

        Parameters
        ----------
        generation : only where no new image came since.
        columns : others to set with it.

        Returns
        -------
        Whether it was so.
        """
        with self._transaction():
            row = self._row("SELECT * FROM study WHERE name = ?", name)
            if row is None or row["state"] not in expected:
                return False
            if generation is not None and row["generation"] != generation:
                return False
            self.note(name, state=state, reason=reason, changed_at=time.time(), **columns)
            if state in ("sent", "failed"):
                self.count(state)
            return True

    def note(self, name: str, **columns: Any) -> None:
        """Set columns of a study without another state."""
        with self._transaction():
            for column, value in columns.items():
                self._db.execute(f"UPDATE study SET {column} = ? WHERE name = ?", (value, name))

    def study(self, name: str) -> Study | None:
        """One study."""
        return next(self._studies("WHERE study.name = ?", name), None)

    def studies(self, *states: State) -> list[Study]:
        """The studies in some states (all if none is named), the one that came first first."""
        marks = ",".join("?" * len(states))
        where = f"WHERE state IN ({marks})" if states else ""
        return list(self._studies(f"{where} ORDER BY first_at, study.name", *states))

    def next(self) -> Study | None:
        """The study that has waited longest and may be worked on now."""
        where = "WHERE state IN ('waiting', 'exporting') AND next_try <= ? ORDER BY next_try, last_at LIMIT 1"
        return next(self._studies(where, time.time()), None)

    def counts_reached(self, name: str) -> bool:
        """Whether every series of a study says how many images it has, and has them."""
        rows = self._rows(
            "SELECT count(*) AS there, max(stated) AS stated, count(stated) AS saying FROM instance "
            "WHERE study = ? AND is_ct GROUP BY series",
            name,
        )
        return bool(rows) and all(r["saying"] and r["there"] >= r["stated"] for r in rows)

    def instances(self, name: str) -> set[str]:
        """The instances that are noted for a study."""
        return {row["name"] for row in self._rows("SELECT name FROM instance WHERE study = ?", name)}

    def take_up(self) -> list[str]:
        """After a start: work that was broken off goes back to where it can be done again; their names."""
        broken = [s.name for s in self.studies("running")]
        for name in broken:
            self.move(name, "waiting", expected=("running",), reason="the work was interrupted")
        return broken

    def retry_failed(self) -> int:
        """Give every failed study whose images are there another chance; how many."""
        failed = [s for s in self.studies("failed") if not s.dropped]
        for study in failed:
            self.move(study.name, "waiting", expected=("failed",), ended=0, tries=0, next_try=0)
        return len(failed)

    # what archives have

    def was_sent(self, peer: str, name: str, sha256: str) -> bool:
        """Whether an archive has said that it has an object of these bytes."""
        row = self._row("SELECT sha256 FROM sent WHERE peer = ? AND object = ?", peer, name)
        return row is not None and row["sha256"] == sha256

    def note_sent(self, peer: str, name: str, sha256: str, study: str) -> None:
        """An archive has said so."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO sent VALUES (?,?,?,?,?,NULL)",
                (peer, name, sha256, study, time.time()),
            )

    def note_asked(self, transaction_uid: str, peer: str, study: str) -> None:
        """An archive was asked to commit itself."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO asked VALUES (?,?,?,?)", (transaction_uid, peer, study, time.time())
            )

    def note_committed(self, transaction_uid: str, held: Sequence[str], lost: Sequence[str]) -> str | None:
        """An archive's answer; the study that it concerns, None where nobody asked."""
        row = self._row("SELECT * FROM asked WHERE uid = ?", transaction_uid)
        if row is None:
            return None
        with self._transaction():
            for names, committed in ((held, 1), (lost, 0)):
                for name in names:
                    self._db.execute(
                        "UPDATE sent SET committed = ? WHERE peer = ? AND object = ?",
                        (committed, row["peer"], name),
                    )
            self._db.execute("DELETE FROM asked WHERE uid = ?", (transaction_uid,))
            if lost:  # so that it is sent again when somebody asks for that
                self._db.execute("DELETE FROM sent WHERE peer = ? AND committed = 0", (row["peer"],))
        if lost:
            reason = f"{row['peer']} did not commit to storing {len(lost)} of {len(held) + len(lost)} objects"
            self.move(row["study"], "failed", expected=("sent",), reason=reason)
        return str(row["study"])

    # figures that only grow

    def count(self, name: str, value: float = 1) -> None:
        """Add to a counter."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO counter VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                (name, value),
            )

    def counters(self) -> dict[str, float]:
        """Every counter."""
        return {row["name"]: row["value"] for row in self._rows("SELECT * FROM counter")}

    def _studies(self, where: str, *values: Any) -> Iterator[Study]:
        rows = self._rows(
            "SELECT study.*, "
            "(SELECT count(*) FROM instance AS i WHERE i.study = study.name) AS images, "
            "(SELECT count(DISTINCT series) FROM instance AS i WHERE i.study = study.name) AS series "
            f"FROM study {where}",
            *values,
        )
        for row in rows:
            yield Study(**{**row, "broken_off": bool(row["broken_off"])})

    def _row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        rows = self._rows(sql, *values)
        return rows[0] if rows else None

    def _rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self.lock:
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Alone among threads and processes; what fails half-way never was."""
        with self.lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
