"""Pictures of a node: square patches through its middle in the three planes, at one pixel size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.geometry import Volume

OUTSIDE_HU = -1024.0
_PLANES = ((1, 2), (0, 2), (0, 1))
"""Which patient axes (z up, y back, x left) are rows and columns: axial, coronal, sagittal."""


def node_patches(
    ct: Volume, node_map: Volume, *, side_mm: float, pixels: int
) -> dict[int, npt.NDArray[np.float32]]:
    """Axial, coronal and sagittal patches (3, pixels, pixels) in HU of each node, by its value.

    The planes are the patient's own, whatever the grid's directions; the middle is the centroid of the
    node's mask. Linear interpolation; air outside the CT.

    Parameters
    ----------
    node_map : each value above 0 a node, on the CT's grid.
    side_mm : of a patch.
    pixels : along its side.
    """
    steps = (np.arange(pixels) - (pixels - 1) / 2) * (side_mm / pixels)
    first, second = np.meshgrid(steps, steps, indexing="ij")
    result = {}
    for value in np.flatnonzero(np.bincount(node_map.array.ravel())):
        if value == 0:
            continue
        middle = node_map.grid.points(np.argwhere(node_map.array == value).mean(axis=0))
        patches = []
        for rows, columns in _PLANES:
            offset = np.zeros((pixels, pixels, 3))  # x, y, z of the patient
            offset[..., 2 - rows] = -first if rows == 0 else first  # the head is up
            offset[..., 2 - columns] = second
            at = ct.grid.indices(middle + offset)
            patches.append(
                ndimage.map_coordinates(
                    ct.array, at.transpose(2, 0, 1), np.float32, order=1, mode="constant", cval=OUTSIDE_HU
                )
            )
        result[int(value)] = np.stack(patches)
    return result
