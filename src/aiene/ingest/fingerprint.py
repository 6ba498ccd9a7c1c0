"""What tells one input from another: by a glance, and by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from aiene.errors import InputError
from aiene.hashing import file_sha256


def content_sha256(files: Iterable[Path]) -> str:
    """SHA-256 over the content of some files, whatever their names and order.

    Raises
    ------
    InputError : a file cannot be read.
    """
    return joined_sha256(file_hash(file) for file in files)


def joined_sha256(hashes: Iterable[str]) -> str:
    """The same from the hashes of the files (`file_hash`)."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def glance(files: Sequence[Path]) -> str:
    """SHA-256 over name, size and time of change of some files; 0 for one that is not there."""
    lines = []
    for file in sorted(files):
        try:
            status = file.stat()
            lines.append(f"{file.name}\t{status.st_size}\t{status.st_mtime_ns}")
        except OSError:
            lines.append(f"{file.name}\t0")
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()


def file_hash(file: Path) -> str:
    """SHA-256 of one file's content.

    Raises
    ------
    InputError : it cannot be read.
    """
    try:
        return file_sha256(file)
    except OSError as error:
        raise InputError(file, f"it cannot be read ({error.strerror})", "check its permissions") from error
