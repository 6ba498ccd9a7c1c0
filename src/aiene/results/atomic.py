"""Writing that is either whole or not there."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from aiene.errors import OutputError

_FULL = "make room, then run the same command again"
_ELSEWHERE: ContextVar[str] = ContextVar("elsewhere", default="choose another folder with -o")
_REASONS: dict[int, tuple[str, str | None]] = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the disk quota is used up", _FULL),
    errno.EACCES: ("no permission to write here", None),
    errno.EPERM: ("no permission to write here", None),
    errno.EROFS: ("the file system is read-only", None),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", None),
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
        fallback = (f"it cannot be written ({error.strerror or error})", None)
        problem, remedy = fallback if error.errno is None else _REASONS.get(error.errno, fallback)
        raise OutputError(path, problem, remedy or _ELSEWHERE.get()) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises
    ------
    OutputError : it cannot be made, or no file can be made in it.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole, or leave what was there.

    Raises
    ------
    OutputError : it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        try:
            with partial.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON for people and machines: UTF-8, indented, no NaN."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def gzipped(content: bytes) -> bytes:
    """The same bytes for the same content: no time, no file name in the header."""
    return gzip.compress(content, compresslevel=6, mtime=0)


def replace_folder(partial: Path, path: Path) -> None:
    """Put a complete folder in the place of `path`.

    Raises
    ------
    OutputError : it cannot be put there.
    """
    with writing(path):
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
