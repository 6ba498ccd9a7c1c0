"""What tells one input from another: by a glance, by a closer look, and by content."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from aiene.errors import InputError
from aiene.geometry.grid import Volume
from aiene.hashing import file_sha256, joined_sha256
from aiene.ingest.formats import detached_files

_KEEPS_CTIME = os.name != "nt"


def content_sha256(files: Iterable[Path]) -> str:
    """SHA-256 over the content of some files and of those that their headers name, whatever their order.

    Raises
    ------
    InputError : a file cannot be read.
    """
    return joined_sha256(*sorted(file_hash(file) for file in _with_data(files)))


def glance(files: Sequence[Path]) -> str:
    """SHA-256 over name, size and time of change of some files; 0 for one that is not there."""
    return _of_status(files, lambda status: (status.st_size, status.st_mtime_ns))


def seal(files: Sequence[Path]) -> str:
    """SHA-256 over what no user sets: the system's own time of change (ctime) and number of each file.

    Where it is the same, so is the content. Where it is not, the content may be, as after a copy or a move.
    Windows keeps no such time (its ctime is when a file was made): there no two seals are the same.
    """
    if not _KEEPS_CTIME:
        return secrets.token_hex(32)
    return _of_status(files, lambda status: (status.st_size, status.st_ctime_ns, status.st_ino))


def _of_status(files: Sequence[Path], facts: Callable[[os.stat_result], tuple[int, ...]]) -> str:
    lines = []
    for file in sorted(_with_data(files)):
        try:
            numbers = "\t".join(map(str, facts(file.stat())))
        except OSError:
            numbers = "0"
        lines.append(f"{file.name}\t{numbers}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _with_data(files: Iterable[Path]) -> list[Path]:
    """The files, and those beside them that hold the voxels of a header among them."""
    every: dict[Path, None] = {}
    for file in files:
        every[file] = None
        every.update(dict.fromkeys(detached_files(file)))
    return list(every)


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


def voxels_sha256(volume: Volume) -> str:
    """SHA-256 over the HU of a CT in the order of its array, as float32, and its size; not over its place."""
    sha256 = hashlib.sha256(repr(volume.grid.size).encode())
    for plane in volume.array:
        sha256.update(np.ascontiguousarray(plane, dtype="<f4").tobytes())
    return sha256.hexdigest()
