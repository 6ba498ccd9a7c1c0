"""Writing that is either whole or not there."""

from __future__ import annotations

import errno
import gzip
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from aiene.errors import OutputError, os_reason, said

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
