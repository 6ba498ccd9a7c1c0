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
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final, Literal

from pydicom import dcmread

from aiene.errors import AieneError, OutputError, UsageError, visible
from aiene.ingest.dicom.header import CT_CLASSES, DAMAGED, quiet
from aiene.pacs.queue import Instance, Queue
from aiene.results.atomic import make_folder, try_lock, write_bytes, writing

_KEY_BYTES = 32


class Store:
    """The folder.

    Attributes
    ----------
    incoming, results : received instances, and results of runs; one folder a study.
    trash : what is being deleted.
    queue_file : the database of states.

    Raises
    ------
    OutputError : it cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming, self.results, self.trash = root / "incoming", root / "results", root / "trash"
        self.queue_file = root / "queue.sqlite"
        for folder in (root, self.incoming, self.results, self.trash, root / "log"):
            make_folder(folder, private=True)
        key = root / "key"
        if not key.exists():
            write_bytes(key, secrets.token_bytes(_KEY_BYTES), private=True)
        self._key = key.read_bytes()

    @property
    def free_bytes(self) -> int:
        """Room on its disk."""
        return shutil.disk_usage(self.root).free

    def study_name(self, study_uid: str) -> str:
        """What a study is called here."""
        return f"study-{self.name_of('study', study_uid)}"

    def name_of(self, kind: str, uid: str) -> str:
        """What a series, an instance or another object is called here."""
        return hmac.new(self._key, f"{kind}\0{uid}".encode(), hashlib.sha256).hexdigest()[:20]

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
        # an audit trail is not to be lost
        self._events, self._audit = (
            _Quiet(folder / name, maxBytes=_LARGEST, backupCount=kept, encoding="utf-8")
            for name, kept in (("events.jsonl", _KEPT), ("audit.jsonl", 1000))
        )

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


_TAGS: Final = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "NumberOfSeriesRelatedInstances",
]
_TRIES: Final = 5
_READING: Final = threading.Lock()  # `quiet` changes the warnings of the whole process


class NotKeptError(AieneError):
    """An object that was not kept, so that its sender must be told.

    Parameters
    ----------
    problem : one sentence.
    lack : no room, which may pass; otherwise the object itself is at fault.
    sop_instance_uid : its own; empty where it has none.
    """

    def __init__(self, problem: str, *, lack: bool = False, sop_instance_uid: str = "") -> None:
        super().__init__(problem)
        self.lack, self.sop_instance_uid = lack, sop_instance_uid


@dataclass(frozen=True)
class Taken:
    """An object that is in the journal.

    Parameters
    ----------
    study : its study's name in the store.
    sop_class_uid, sop_instance_uid, study_uid : its own.
    status : `new`, or `known` where the same bytes were there.
    """

    study: str
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    status: Literal["new", "known"]


class Receiver:
    """Takes objects into the journal.

    Parameters
    ----------
    on_arrival : told the name of the study whenever something of it came.
    """

    def __init__(self, store: Store, queue: Queue, on_arrival: Callable[[str], None]) -> None:
        self._store, self._queue, self._on_arrival = store, queue, on_arrival

    def take(
        self, content: bytes, *, expected_uid: str | None = None, expected_study: str | None = None
    ) -> Taken:
        """Keep an object; when this returns, it is on the disk and noted.

        Parameters
        ----------
        content : of a DICOM file.
        expected_uid, expected_study : SOPInstanceUID and StudyInstanceUID that its sender has named.

        Raises
        ------
        NotKeptError : it is no DICOM object with the UIDs that it needs, or there is no room.
        """
        instance, taken = _read_object(content, self._store)
        uid = taken.sop_instance_uid
        if uid != (expected_uid or uid) or taken.study_uid != (expected_study or taken.study_uid):
            raise NotKeptError("its UIDs are others than those of the request", sop_instance_uid=uid)
        file = self._store.instance_file(instance.study, instance.name)
        self._on_arrival(instance.study)
        noted = self._queue.noted(instance)
        if noted is not None and file.is_file() and (noted == instance.sha256 or _same_object(file, content)):
            return replace(taken, status="known")
        try:
            for _ in range(_TRIES):
                self._store.keep(file, content)
                with self._queue.lock:
                    if file.is_file():  # else old images of the study were dropped just now
                        self._queue.add(instance, taken.study_uid)
                        break
            else:
                raise NotKeptError("its place vanished again and again", lack=True, sop_instance_uid=uid)
        except (OutputError, sqlite3.Error) as error:
            raise NotKeptError(str(error), lack=True, sop_instance_uid=uid) from error
        self._on_arrival(instance.study)
        return taken

    def note_unnoted(self) -> int:
        """After a start: instances in the journal that are not noted (a kill in between); how many."""
        found = 0
        for folder in sorted(self._store.incoming.iterdir()):
            known = self._queue.instances(folder.name)
            for file in sorted(folder.glob("*.dcm")):
                if file.stem in known:
                    continue
                content = file.read_bytes()
                try:
                    instance, taken = _read_object(content, self._store)
                except NotKeptError:
                    file.unlink()  # a disk that lies: the name reached it, the content did not
                    continue
                self._queue.add(instance, taken.study_uid)
                self._on_arrival(instance.study)
                found += 1
        return found


def _read_object(content: bytes, store: Store) -> tuple[Instance, Taken]:
    try:
        with _READING, quiet():
            head = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=_TAGS)
            uids = [str(head.get(tag) or "") for tag in _TAGS[:4]]
            stated = _count(head.get(_TAGS[4]))
    except DAMAGED as error:
        raise NotKeptError("it cannot be read as a DICOM object") from error
    missing = [tag for tag, uid in zip(_TAGS, uids, strict=False) if not uid]
    if missing:
        raise NotKeptError(f"it has no {missing[0]}", sop_instance_uid=uids[1])
    sop_class, sop, study_uid, series = uids
    study = store.study_name(study_uid)
    instance = Instance(
        study,
        store.name_of("instance", sop),
        store.name_of("series", series),
        hashlib.sha256(content).hexdigest(),
        sop_class in CT_CLASSES,
        stated,
    )
    return instance, Taken(study, sop_class, sop, study_uid, "new")


def _same_object(file: Path, content: bytes) -> bool:
    """Whether an instance came again by another road, which may write the same with other bytes."""
    try:
        with _READING, quiet():
            return bool(dcmread(file) == dcmread(BytesIO(content)))
    except DAMAGED:
        return False


def _count(value: object) -> int | None:
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if number > 0 else None
