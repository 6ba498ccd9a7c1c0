"""What tells files apart: the hash of their content, and their place on the disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal text.

    Raises
    ------
    OSError : it cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def disk_place(path: Path) -> tuple[int, int | str]:
    """What makes a file or folder the same one under any name.

    Some file systems of Windows number every file 0: there it is the path with its links resolved.

    Raises
    ------
    OSError : it is not there.
    """
    status = path.stat()
    return status.st_dev, status.st_ino or os.path.realpath(path)
