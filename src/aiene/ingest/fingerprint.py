"""What tells one input from another: by a glance, and by content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from aiene.errors import InputError
from aiene.geometry import Volume
from aiene.hashing import file_sha256


def content_sha256(files: Iterable[Path]) -> str:
    """SHA-256 over the content of some files, whatever their names and order.

    Raises
    ------
    InputError : a file cannot be read.
    """
    hashes = sorted(_sha256(file) for file in files)
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def voxels_sha256(volume: Volume) -> str:
    """SHA-256 over the HU of a CT in the order of its array, as float32, and its size; not over its place."""
    sha256 = hashlib.sha256(repr(volume.grid.size).encode())
    for plane in volume.array:
        sha256.update(np.ascontiguousarray(plane, dtype="<f4").tobytes())
    return sha256.hexdigest()


def glance(files: Sequence[Path]) -> str:
    """SHA-256 over name, size and time of change of some files; 0 for one that is not there."""
    lines = []
    for file in sorted(files):
        try:
            status = file.stat()
            lines.append(f"{file.name}\t{status.st_size}\t{status.st_mtime_ns}")
        except OSError:
            lines.append(f"{file.name}\t0")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _sha256(file: Path) -> str:
    try:
        return file_sha256(file)
    except OSError as error:
        raise InputError(file, f"it cannot be read ({error.strerror})", "check its permissions") from error
