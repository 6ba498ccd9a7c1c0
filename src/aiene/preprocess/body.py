"""The patient in a CT: which voxels are body, where it begins, where its middle lies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.geometry.grid import Volume

BODY_HU = -300.0
"""Over this is body on an averaged lattice: fat lies near -100, lung and air below -500."""

BONE_HU = 200.0

Mask = npt.NDArray[np.bool_]


def body_mask(volume: Volume, opening_mm: float = 6.0) -> Mask:
    """The largest connected body, without couch and head rest, its airways and lungs filled slice by slice.

    Parameters
    ----------
    volume : HU on a lattice of a few mm.
    opening_mm : what is thinner than twice this is no body.
    """
    dense = volume.array > BODY_HU
    radii = [max(1, round(opening_mm / s)) for s in volume.grid.spacing]
    eroded = dense.copy()
    for axis, radius in enumerate(radii):
        eroded = ndimage.minimum_filter1d(eroded, 2 * radius + 1, axis=axis, mode="nearest")
    parts, n = ndimage.label(eroded)
    if n == 0:
        return np.zeros(dense.shape, dtype=bool)
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    for axis, radius in enumerate(radii):
        largest = ndimage.maximum_filter1d(largest, 2 * radius + 3, axis=axis, mode="nearest")
    return np.stack([ndimage.binary_fill_holes(plane) for plane in largest & dense])


def grown(mask: Mask, spacing: tuple[float, float, float], rim_mm: float) -> Mask:
    """The mask with a rim around it, as a box filter does it."""
    for axis, s in enumerate(spacing):
        mask = ndimage.maximum_filter1d(mask, 2 * max(1, round(rim_mm / s)) + 1, axis=axis)
    return mask


def centre_of(mask: Mask, volume: Volume) -> npt.NDArray[np.float64] | None:
    """LPS mm (x, y, z) of the mean of a mask's voxels; None for an empty mask."""
    if not mask.any():
        return None
    return volume.grid.points(np.array(ndimage.center_of_mass(mask)))
