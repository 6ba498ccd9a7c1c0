"""What tells one input from another: by a glance, by a closer look, and by content.

Hashes of content are those of files, or of what images, masks and answers say, however they are stored:
format, compression, order of axes. Two sites with the same public data, the one as DICOM and the other as
NIfTI, get the same hash; the names of files and the numbers of nodes are not in it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aiene.errors import reading
from aiene.geometry.grid import Grid, Volume
from aiene.hashing import digest, file_sha256, joined_sha256
from aiene.ingest.formats import detached_files

_KEEPS_CTIME = os.name != "nt"


def content_sha256(files: Iterable[Path]) -> str:
    """SHA-256 over the content of some files and of those that their headers name, whatever their order.

    Raises
    ------
    InputError : a file cannot be read.
    """
    return joined_sha256(*sorted(file_hash(file) for file in with_data(files)))


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
    for file in sorted(with_data(files)):
        try:
            numbers = "\t".join(map(str, facts(file.stat())))
        except OSError:
            numbers = "0"
        lines.append(f"{file.name}\t{numbers}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def with_data(files: Iterable[Path]) -> list[Path]:
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
    with reading(file):
        return file_sha256(file)


def voxels_sha256(volume: Volume) -> str:
    """SHA-256 over the HU of a CT in the order of its array, as float32, and its size; not over its place."""
    sha256 = hashlib.sha256(repr(volume.grid.size).encode())
    for plane in volume.array:
        sha256.update(np.ascontiguousarray(plane, dtype="<f4").tobytes())
    return sha256.hexdigest()


_STEP_MM = 0.1
"""Places are the same that agree to this; formats keep some digits more or fewer."""
_OFFSET = 0.0371
"""Steps end at odd places, where no written coordinate lies, so that rounding never parts equal ones."""


def image_sha256(image: Volume) -> str:
    """Of a CT: its HU and its place."""
    turned = image.anatomical()
    values = np.nan_to_num(turned.array.astype("<f4"), copy=False) + np.float32(0)  # no -0
    return _joined(values, turned.grid)


def labels_sha256(labels: Volume) -> str:
    """Of a label map."""
    turned = labels.anatomical()
    return _joined(turned.array.astype("<i4"), turned.grid)


def nodes_sha256(nodes: Volume, said: Mapping[int, object]) -> str:
    """Of a node map and what is said of its nodes, whatever their numbers.

    Parameters
    ----------
    said : by the node's value; JSON values.
    """
    turned = nodes.anatomical()
    numbered, old = in_order_of_place(turned.array)
    return digest([_joined(numbered.astype("<i4"), turned.grid), [said.get(value) for value in old]])


def in_order_of_place(nodes: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], list[int]]:
    """A node map with 1, 2, ... in the order of each node's first voxel, and the old value of each."""
    values, first, index = np.unique(nodes, return_index=True, return_inverse=True)
    there = [place for place in np.argsort(first, kind="stable") if values[place] != 0]
    table = np.zeros(len(values), dtype=np.int64)
    table[there] = np.arange(1, len(there) + 1)
    return table[index.reshape(nodes.shape)], [int(values[place]) for place in there]


def _joined(array: npt.NDArray[np.generic], grid: Grid) -> str:
    last = np.array(grid.size) - 1
    ends = grid.points(np.array([[0, 0, 0], *np.diag(last)]))
    steps = np.floor(ends / _STEP_MM + _OFFSET).astype(np.int64)
    sha256 = hashlib.sha256(repr((grid.size, steps.tolist())).encode())
    sha256.update(np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()
