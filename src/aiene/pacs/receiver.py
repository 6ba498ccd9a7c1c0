"""One received object into the journal: the same for C-STORE and for STOW-RS."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

from pydicom import dcmread
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from aiene.errors import AieneError, OutputError
from aiene.ingest.dicom.header import DAMAGED, quiet
from aiene.pacs.queue import Instance, Queue
from aiene.pacs.store import Store

CT_CLASSES: Final = frozenset({CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})
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
        instance, taken = _read(content, self._store)
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
                    instance, taken = _read(content, self._store)
                except NotKeptError:
                    file.unlink()  # a disk that lies: the name reached it, the content did not
                    continue
                self._queue.add(instance, taken.study_uid)
                self._on_arrival(instance.study)
                found += 1
        return found


def _read(content: bytes, store: Store) -> tuple[Instance, Taken]:
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
