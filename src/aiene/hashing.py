"""The hash that names files: weights in a bundle, inputs in a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from aiene.geometry.grid import Volume


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


def voxels_sha256(volume: Volume) -> str:
    """SHA-256 over the HU of a CT in the order of its array, as float32, and its size; not over its place."""
    sha256 = hashlib.sha256(repr(volume.grid.size).encode())
    for plane in volume.array:
        sha256.update(np.ascontiguousarray(plane, dtype="<f4").tobytes())
    return sha256.hexdigest()
