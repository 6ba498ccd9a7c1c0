"""Writing that is either whole or not there."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiene.errors import OutputError

_REASONS = {
    errno.ENOSPC: ("the disk is full", "make room, then run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "make room, then run the same command again"),
    errno.EACCES: ("no permission to write here", "choose another folder with -o"),
    errno.EPERM: ("no permission to write here", "choose another folder with -o"),
    errno.EROFS: ("the file system is read-only", "choose another folder with -o"),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", "choose another folder with -o"),
    errno.EEXIST: ("a file is in the way of this folder", "choose another folder with -o"),
}


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
        fallback = (f"it cannot be written ({error.strerror or error})", "choose another folder with -o")
        problem, remedy = _REASONS.get(error.errno or 0, fallback)
        raise OutputError(path, problem, remedy) from error


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
    """Write JSON for people and machines: UTF-8, indented, no NaN.

    A byte of a path that is not UTF-8 is written as Python's escape (`\\udce9`), which reads back as it was.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8", "backslashreplace"))


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
