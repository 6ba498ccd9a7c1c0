"""What the classifier sees of a node: the box around it, and the node alone."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.classify.dualnet import BOX_SIZE, SMALL_SIZE
from aiene.geometry.grid import bounding_box

Normalisation = Literal["legacy", "zscore", "none"]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_OUTSIDE = -1024.0  # the published padding; the mask makes it 0 again


class ClassifierInputs(NamedTuple):
    """One node, ready for the network.

    Parameters
    ----------
    box : float32 (32, 118, 118), the node in its place at the crop's spacing.
    small : float32 (32, 32, 32), the node's bounding box stretched to the full size.
    """

    box: FloatArray
    small: FloatArray


def classifier_inputs(
    crop: npt.NDArray[np.floating], dilated_mask: BoolArray, normalisation: Normalisation
) -> ClassifierInputs | None:
    """The two inputs of the classifier for one node, as the published code makes them.

    Parameters
    ----------
    crop : float (z, y, x), HU scaled to [0, 1], padding -1024.
    dilated_mask : bool of the same shape: the node and 4 voxels around it in plane, at least one voxel.
    normalisation : `legacy`, `zscore` or `none`, of each input by itself, background included.

    Returns
    -------
    The inputs; None where no voxel under the mask is above the window's lower end (air or nothing but the
    outside of the CT), so that there is nothing to classify. The published code stops there with an error.

    Raises
    ------
    ValueError : shapes that differ, or an empty mask.
    """
    if crop.shape != dilated_mask.shape or not dilated_mask.any():
        raise ValueError(f"a mask of shape {dilated_mask.shape} on a crop of {crop.shape}, or an empty one")
    image, mask = _box_around(crop.astype(np.float32, copy=False), dilated_mask)
    box = image * mask
    inside = bounding_box(box != 0)
    if inside is None:
        return None
    small = _stretched(image[inside], mask[inside])
    return ClassifierInputs(_NORMALISE[normalisation](box), _NORMALISE[normalisation](small))


def _box_around(crop: FloatArray, mask: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Image and mask in the box; its centre is the middle of the mask's bounding box, cut to an integer."""
    image = np.full(BOX_SIZE, _OUTSIDE, dtype=np.float32)
    cut = np.zeros(BOX_SIZE, dtype=np.float32)
    spans = bounding_box(mask)
    if spans is None:
        return image, cut
    source, target = [], []
    for span, size, limit in zip(spans, BOX_SIZE, crop.shape, strict=True):
        start = (span.start + span.stop - 1) // 2 - size // 2
        first, last = max(start, 0), min(start + size, limit)
        source.append(slice(first, last))
        target.append(slice(first - start, last - start))
    image[tuple(target)] = crop[tuple(source)]
    cut[tuple(target)] = mask[tuple(source)]
    return image, cut


def _stretched(image: FloatArray, mask: FloatArray) -> FloatArray:
    """Image (linear) times mask (nearest), both with their corner voxels on the corners of the result."""
    factors = [size / n for size, n in zip(SMALL_SIZE, image.shape, strict=True)]
    large = ndimage.zoom(image, factors, order=1, mode="constant")
    large_mask = ndimage.zoom(mask, factors, order=0, mode="nearest")
    return np.asarray(large * large_mask, dtype=np.float32)


def _legacy(array: FloatArray) -> FloatArray:
    return np.asarray(np.minimum(array + np.float32(0.001), np.float32(1)))


def _zscore(array: FloatArray) -> FloatArray:
    """Mean and deviation of the voxels that are not 0, applied to all; background is not 0 any more.

    In float64: float32 sums would differ between processors.
    """
    values = array[array != 0].astype(np.float64)
    if values.size == 0:
        return array
    deviation = values.std()
    if deviation < 1e-6:
        deviation = 1.0
    return np.asarray(np.clip((array - values.mean()) / deviation, -5, 5), dtype=np.float32)


def _none(array: FloatArray) -> FloatArray:
    return array


_NORMALISE = {"legacy": _legacy, "zscore": _zscore, "none": _none}
