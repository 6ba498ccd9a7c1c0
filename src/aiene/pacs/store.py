"""The folder in which received studies and their results lie, by names that tell nothing of a patient.

    STORE/
      key             random; the names below are keyed hashes under it, so nobody can guess them from a UID
      queue.sqlite    the state of every study
      incoming/S/I    one file an instance; S and I stand for the study's and the instance's UID
      results/S/      what `aiene run` leaves, and the exported objects
      log/            events.jsonl and audit.jsonl

No part of a path comes from what a caller sent.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aiene.errors import UsageError
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
