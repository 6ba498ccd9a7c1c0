"""Writing that is either whole or not there, and work folders that outlive no process for long.

A room is a folder with a file that its process holds locked. The system lets go of the lock however the
process ends, so a room whose lock can be had is nobody's, and one that cannot is left alone. Where the file
system knows no locks, rooms are not cleared: rather a leftover than a loss.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from aiene.errors import OutputError, os_reason, said

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: rooms and folders work, without locks
    fcntl = None  # type: ignore[assignment]

_FULL = "free some space, then run the same command again"
_ELSEWHERE: ContextVar[str] = ContextVar("elsewhere", default="choose another folder with -o")
_REASONS: dict[int, tuple[str, str | None]] = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the disk quota is used up", _FULL),
    errno.EACCES: ("no permission to write here", None),
    errno.EPERM: ("no permission to write here", None),
    errno.EROFS: ("the file system is read-only", None),
    errno.ENOTDIR: ("part of this path is a file, not a folder", None),
    errno.ENAMETOOLONG: ("its name is too long for this file system", "give the input a shorter name"),
    errno.EILSEQ: ("this file system does not accept the name", "rename the input in UTF-8"),
    errno.EEXIST: ("a file is in the way of this folder", None),
}
"""Problem and remedy; None where another place is the remedy."""


@contextmanager
def elsewhere(remedy: str) -> Iterator[None]:
    """What to advise where a place cannot be written to, of a command that has no `-o`."""
    token = _ELSEWHERE.set(remedy)
    try:
        yield
    finally:
        _ELSEWHERE.reset(token)


_NOTHING_MORE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors on writing `path` into one sentence.

    Raises
    ------
    OutputError : nothing can be written there.
    """
    try:
        yield
    except OSError as error:
        told = said("it cannot be written ({})", os_reason(error, str(error)))
        problem, remedy = _REASONS.get(error.errno or 0, (told, None))
        raise OutputError(path, problem, remedy or _ELSEWHERE.get()) from error


def make_folder(path: Path, *, private: bool = False) -> None:
    """Make a folder and those above it.

    Parameters
    ----------
    private : for its owner's eyes alone (0700), also where it is there already.

    Raises
    ------
    OutputError : it cannot be made, or no file can be made in it.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        if private:
            path.chmod(0o700)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_bytes(path: Path, content: bytes, *, private: bool = False, half: Path | None = None) -> None:
    """Write a file whole, or leave what was there.

    Parameters
    ----------
    private : for its owner's eyes alone (0600), from the first byte on.
    half : folder on the same file system for the file while it is written, cleared by whoever made it; None
        is the file's own.

    Raises
    ------
    OutputError : it cannot be written.
    """
    folder = path.parent if half is None else half
    partial = folder / f".{secrets.token_hex(6)}.partial"  # short: a name that fits must stay one that fits
    with writing(path):
        try:
            if private:
                partial.touch(mode=0o600, exist_ok=False)
            with partial.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON for people and machines: UTF-8, indented, no NaN."""
    write_bytes(path, json_bytes(content))


def read_json(file: Path) -> dict[str, Any] | None:
    """The JSON object of a file; None where it is not there, was cut off, or holds something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """JSON for people and machines: UTF-8, indented, no NaN.

    A name that is no UTF-8 (a lone surrogate in Python) stands as JSON's own escape, which readers take back.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


def concerns_one_file(error: OutputError) -> bool:
    """Whether others may still be written: the name is what the system does not take, or it is in the way.

    False where the disk is full, read-only or broken: then nothing more can be written.
    """
    cause = error.__cause__
    return not (isinstance(cause, OSError) and cause.errno in _NOTHING_MORE)


def gzipped(content: bytes) -> bytes:
    """The same bytes for the same content: no time, no file name in the header."""
    return gzip.compress(content, compresslevel=6, mtime=0)


PREFIX: Final = "aiene-"
_ALIVE: Final = "in-use"
_UNFINISHED: Final = f".{PREFIX}"
_LONG_S: Final = 3600.0  # a room is named a moment after it is made; one that is not by then never will be
_TRIES: Final = 20


class Room:
    """A private folder (0700) of this process for things half done; gone when the context is left.

    Parameters
    ----------
    base : where the room is made; made with it where it is not there, and taken away again if left empty.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._made: list[Path] = []
        self._alive: IO[bytes] | None = None
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The folder.

        Raises
        ------
        RuntimeError : the context is not entered.
        """
        if self._path is None:
            raise RuntimeError("the room is not open")
        return self._path

    def __enter__(self) -> Self:
        """Make the room.

        Raises
        ------
        OSError : it cannot be made.
        """
        self._made = [p for p in (self._base, *self._base.parents) if not p.exists()]
        try:
            new = self._new()
            self._alive = (new / _ALIVE).open("wb")
            try_lock(self._alive)
            self._path = new.with_name(new.name[1:])
            new.rename(self._path)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new(self) -> Path:
        for _ in range(_TRIES):
            self._base.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another that ends just now took the empty base away
                return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._base))
        return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._base))

    def close(self) -> None:
        """Take the room away, and the folders above it that were made for it and hold nothing else."""
        if self._path is not None:
            _remove(self._path)
            self._path = None
        if self._alive is not None:
            self._alive.close()
            self._alive = None
        with suppress(OSError):
            for folder in self._made:
                folder.rmdir()
        self._made = []


def clear_abandoned(base: Path) -> None:
    """Take away the rooms in a folder whose process has gone; those of other users and live ones stay."""
    for folder in _rooms(base):
        with _if_abandoned(folder) as gone:
            if gone:
                _remove(folder)


def others_at_work(base: Path, room: Room | None) -> bool:
    """Whether a live process other than ours has a room there; False where the file system knows no locks."""
    for folder in _rooms(base):
        if room is not None and folder == room.path:
            continue
        with _if_abandoned(folder) as gone:
            if gone is False:
                return True
    return False


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait until no other process holds this lock; without effect where the file system knows no locks.

    Raises
    ------
    OSError : the file cannot be opened.
    """
    with file.open("ab") as stream:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _remove(folder: Path) -> None:
    """Take a room away; its lock last, so that one whose removal is broken off is still known as a room."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name == _ALIVE:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _rooms(base: Path) -> list[Path]:
    """Folders that look like rooms of this user."""
    found = []
    with suppress(OSError):
        for path in base.iterdir():
            if not path.name.startswith((PREFIX, _UNFINISHED)):
                continue
            with suppress(OSError):
                status = path.lstat()
                mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
                if mine and stat.S_ISDIR(status.st_mode) and (path / _ALIVE).is_file():
                    found.append(path)
    return found


@contextmanager
def _if_abandoned(folder: Path) -> Iterator[bool | None]:
    """Whether its process has gone, with the lock held meanwhile; None where that cannot be known."""
    try:
        stream = (folder / _ALIVE).open("rb")
    except OSError:
        yield None
        return
    with stream:
        free = try_lock(stream)
        if free and folder.name.startswith(_UNFINISHED):
            free = True if time.time() - folder.stat().st_mtime > _LONG_S else None
        yield free


def try_lock(stream: IO[bytes] | int) -> bool | None:
    """Whether the lock of an open file was had; None where the file system or the system knows no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
