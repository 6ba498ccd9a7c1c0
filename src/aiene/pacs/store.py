"""What the loop keeps on disk: studies and results, by names that tell nothing of a patient, and logs.

    STORE/
      key             random; the names below are keyed hashes under it, so nobody can guess them from a UID
      queue.sqlite    the state of every study
      incoming/S/I    one file an instance; S and I stand for the study's and the instance's UID
      results/S/      what `aiene run` leaves, and the exported objects
      log/            events.jsonl and audit.jsonl

No part of a path comes from what a caller sent.

The logs are JSON lines: `events.jsonl` for the engineer, `audit.jsonl` for who sent what when. No patient's
name or id and no UID stands there; a study appears under the name that the store gives it, and with its UID
only where the engineer asked for that.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

from aiene.errors import UsageError, visible
from aiene.results.atomic import make_folder, write_bytes, writing
from aiene.rooms import try_lock

_KEY_BYTES = 32


class Store:
    """The folder.

    Raises
    ------
    OutputError : it cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in (root, self.incoming, self.results, self.trash, root / "log"):
            make_folder(folder, private=True)
        self._key = self._read_key()

    @property
    def incoming(self) -> Path:
        """Received instances, one folder a study."""
        return self.root / "incoming"

    @property
    def results(self) -> Path:
        """Results of runs, one folder a study."""
        return self.root / "results"

    @property
    def trash(self) -> Path:
        """What is being deleted."""
        return self.root / "trash"

    @property
    def queue_file(self) -> Path:
        """The database of states."""
        return self.root / "queue.sqlite"

    @property
    def free_bytes(self) -> int:
        """Room on its disk."""
        return shutil.disk_usage(self.root).free

    def study_name(self, study_uid: str) -> str:
        """What a study is called here."""
        return f"study-{self._hash('study', study_uid)}"

    def name_of(self, kind: str, uid: str) -> str:
        """What a series, an instance or another object is called here."""
        return self._hash(kind, uid)

    def instance_file(self, study: str, instance: str) -> Path:
        """Where an instance lies."""
        return self.incoming / study / f"{instance}.dcm"

    def keep(self, file: Path, content: bytes) -> None:
        """Write an instance so that it is there after a power cut: file and folder are synced.

        Raises
        ------
        OutputError : it cannot be written.
        """
        with writing(file):
            if not file.parent.is_dir():
                file.parent.mkdir(mode=0o700, exist_ok=True)
                _sync_folder(file.parent.parent)
        write_bytes(file, content, private=True)
        with writing(file):
            _sync_folder(file.parent)

    def drop_images(self, study: str) -> None:
        """Delete the received images of a study; first out of sight, so that new ones may come meanwhile."""
        folder = self.incoming / study
        with suppress(FileNotFoundError):
            folder.rename(self.trash / f"{study}-{secrets.token_hex(4)}")

    def empty_trash(self) -> None:
        """Delete what was dropped."""
        for folder in self.trash.iterdir():
            shutil.rmtree(folder, ignore_errors=True)

    def clear_halves(self) -> None:
        """Remove files that a killed process left half written; their sender was never told of success."""
        for file in self.incoming.glob("*/.*.partial"):
            file.unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One listener at a time works with a store.

        Raises
        ------
        UsageError : another does already.
        """
        with writing(self.root), (self.root / "lock").open("ab") as stream:
            if try_lock(stream) is False:
                raise UsageError("another aiene dicom listen works with this store; end it first.")
            yield

    def _hash(self, kind: str, uid: str) -> str:
        return hmac.new(self._key, f"{kind}\0{uid}".encode(), hashlib.sha256).hexdigest()[:20]

    def _read_key(self) -> bytes:
        file = self.root / "key"
        if not file.exists():
            write_bytes(file, secrets.token_bytes(_KEY_BYTES), private=True)
        return file.read_bytes()


def _sync_folder(folder: Path) -> None:
    """Names in a folder reach the disk with the folder, not with the file (fsync(2))."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_LARGEST: Final = 10 * 1024 * 1024
_KEPT: Final = 5


class Trail:
    """Both files, in a folder.

    Parameters
    ----------
    folder : must be there.
    show_uids : whether StudyInstanceUIDs stand in the lines too.
    """

    def __init__(self, folder: Path, *, show_uids: bool = False) -> None:
        self._show_uids = show_uids
        self._lock = threading.Lock()
        self._events = _private(folder / "events.jsonl", _KEPT)
        self._audit = _private(folder / "audit.jsonl", 1000)  # an audit trail is not to be lost

    def event(self, what: str, **facts: Any) -> None:
        """A line for the engineer."""
        self._write(self._events, what, facts)

    def audit(self, what: str, **facts: Any) -> None:
        """A line on who did what; it stands in both files."""
        self._write(self._audit, what, facts)
        self._write(self._events, what, facts)

    def close(self) -> None:
        """Close both files."""
        self._events.close()
        self._audit.close()

    def _write(self, handler: RotatingFileHandler, what: str, facts: dict[str, Any]) -> None:
        shown = {
            key: visible(value) if isinstance(value, str) else value
            for key, value in facts.items()
            if value is not None and (key != "study_uid" or self._show_uids)
        }
        line = json.dumps(
            {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": what, **shown}
        )
        with self._lock:
            handler.handle(logging.makeLogRecord({"msg": line}))


class _Quiet(RotatingFileHandler):
    """A log on a full disk loses lines; it never stops what is logged."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the name in logging)
        return

    def _open(self) -> Any:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(handle, self.mode, encoding=self.encoding)


def _private(file: Path, kept: int) -> RotatingFileHandler:
    return _Quiet(file, maxBytes=_LARGEST, backupCount=kept, encoding="utf-8")
