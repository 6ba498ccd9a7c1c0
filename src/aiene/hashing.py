"""What tells files apart: SHA-256 of their content and of JSON values, and their place on the disk."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal text.

    Raises
    ------
    OSError : it cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(content: Any) -> str:
    """SHA-256 of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def joined_sha256(*hashes: str) -> str:
    """One hash for several, in their order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def disk_place(path: Path) -> tuple[int, int | str]:
    """What makes a file or folder the same one under any name.

    Some file systems of Windows number every file 0: there it is the path with its links resolved.

    Raises
    ------
    OSError : it is not there.
    """
    status = path.stat()
    return status.st_dev, status.st_ino or os.path.realpath(path)
