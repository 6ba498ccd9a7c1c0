"""Hashes of what images, masks and answers say, however they are stored: format, compression, order of axes.

Two sites with the same public data, the one as DICOM and the other as NIfTI, get the same hash; the names of
files and the numbers of nodes are not in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from aiene.geometry.grid import Grid, Volume
from aiene.hashing import digest

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
