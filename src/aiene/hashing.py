"""The hash that names files: weights in a bundle, inputs in a run."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal text.

    Raises
    ------
    OSError : it cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
