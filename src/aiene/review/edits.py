"""What a reader's tools do to a drawing: grow a node from a click, fill, interpolate, cut; pure functions.

A drawing is uint8 (z, y, x) on a page's block: 0 nothing, 1 to 250 nodes, `scene.PRIMARY` the primary tumour.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.errors import UsageError
from aiene.geometry.grid import bounding_box
from aiene.results.pictures import key_index
from aiene.viewer.scene import PRIMARY

Drawing = npt.NDArray[np.uint8]
Voxel = tuple[int, int, int]
Spacing = tuple[float, float, float]

_REACH_MM: Final = 14.0
"""A click grows no node farther than this: most nodes are smaller, and what is larger is drawn on."""
_AROUND_HU: Final = 35.0
"""Tissue that differs by less from the clicked spot's mean belongs to it: fat is 100 HU away, noise 10."""
_SPOT_MM: Final = 2.0
_OPEN_MM: Final = 1.5
_GAP_MM: Final = 1.6
"""Width of a cut: more than a voxel of the networks' crop (1 mm), so that the watershed sees two nodes."""


def grow(drawing: Drawing, hu: npt.NDArray[Any], spacing: Spacing, seed: Voxel, value: int) -> Drawing:
    """A node grown from the CT around a voxel.

    Parameters
    ----------
    hu : (z, y, x) on the same block.
    seed : where the reader clicked.
    value : of the new voxels; what is drawn already stays.

    Raises
    ------
    UsageError : nothing of the tissue around the click hangs together.
    """
    away = _distance_mm(drawing.shape, spacing, seed)
    spot = away <= max(_SPOT_MM, *(mm / 2 for mm in spacing))
    mean = float(np.mean(hu[spot]))
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), [0.7 / mm for mm in spacing])
    like = (np.abs(smooth - mean) <= _AROUND_HU) & (away <= _REACH_MM) & ((drawing == 0) | (drawing == value))
    like |= spot & (drawing == 0)
    core = like & (ndimage.distance_transform_edt(like, sampling=spacing) > _OPEN_MM) | spot
    parts, _ = ndimage.label(core)
    if not parts[seed]:
        raise UsageError("nothing can be grown here; draw the node by hand.")
    kept = parts == parts[seed]
    grown = (ndimage.distance_transform_edt(~kept, sampling=spacing) <= _OPEN_MM) & like
    grown = ndimage.binary_fill_holes(grown)
    return np.where(grown & (drawing == 0), np.uint8(value), drawing)


def fill(drawing: Drawing, value: int) -> Drawing:
    """A node with the holes of its axial slices filled; what else is drawn there stays."""
    result = drawing.copy()
    for z in np.flatnonzero((drawing == value).any(axis=(1, 2))):
        filled = ndimage.binary_fill_holes(drawing[z] == value)
        result[z][filled & (drawing[z] == 0)] = value
    return result


def interpolate(drawing: Drawing, value: int) -> Drawing:
    """A node with the axial slices filled in between those that it is drawn on.

    By the mean of the signed distances to both outlines, weighted by nearness (shape-based interpolation:
    Raya and Udupa, IEEE Trans. Med. Imaging 9, 1990).

    Raises
    ------
    UsageError : it is drawn on one slice alone.
    """
    drawn = np.flatnonzero((drawing == value).any(axis=(1, 2)))
    if len(drawn) < 2:
        raise UsageError(
            "the node is drawn on one slice alone; draw it on another to interpolate between them."
        )
    result = drawing.copy()
    for low, high in pairwise(drawn.tolist()):
        ends = [_signed(drawing[z] == value) for z in (low, high)]
        for z in range(low + 1, high):
            share = (z - low) / (high - low)
            inside = (1 - share) * ends[0] + share * ends[1] > 0
            result[z][inside & (drawing[z] == 0)] = value
    return result


def cut(
    drawing: Drawing, spacing: Spacing, value: int, start: Voxel, end: Voxel, fresh: int | None = None
) -> Drawing:
    """A node parted by a plane through a line that was drawn on a slice, across that slice.

    The plane's voxels are taken out, `_GAP_MM` wide, so that the run's own watershed finds two nodes.

    Parameters
    ----------
    start, end : voxels of one slice, of any plane.
    fresh : value of the other part; the next one if None.

    Raises
    ------
    UsageError : the two are one voxel, lie on no common slice, or the line does not split the node.
    """
    step = np.subtract(end, start) * np.array(spacing)
    fixed = [axis for axis in range(3) if start[axis] == end[axis]]
    if not fixed or not step.any():
        raise UsageError("draw a line across the node on one slice to split it.")
    normal = np.cross(step, np.eye(3)[fixed[0]])
    normal /= np.linalg.norm(normal)
    places = np.argwhere(drawing == value)
    if not value or value == PRIMARY or not len(places):
        raise UsageError("choose a node before splitting it.")
    away = ((places - np.array(start)) * np.array(spacing)) @ normal
    gap = np.abs(away) <= max(_GAP_MM, float(np.abs(normal * spacing).max())) / 2
    result = drawing.copy()
    result[tuple(places[gap].T)] = 0
    if not (away[~gap] > 0).any() or not (away[~gap] < 0).any():
        raise UsageError("the line does not split the node; draw it across the whole node.")
    result[tuple(places[~gap & (away > 0)].T)] = fresh or next_value(drawing)
    return result


def next_value(drawing: Drawing) -> int:
    """The lowest value that no node has.

    Raises
    ------
    UsageError : all are taken.
    """
    used = set(np.unique(drawing).tolist())
    free = next((value for value in range(1, 251) if value not in used), None)
    if free is None:
        raise UsageError("there are 250 nodes already.")
    return free


def touched(before: Drawing, after: Drawing) -> bool:
    """Whether the contours (nodes as one, primary tumour) differ."""
    return not np.array_equal(as_labels(before), as_labels(after))


def as_labels(drawing: npt.NDArray[Any]) -> Drawing:
    """The values of `labels.nii.gz`: 2 for every node, 1 for the primary tumour."""
    return np.where(drawing == PRIMARY, 1, np.where(drawing > 0, 2, 0)).astype(np.uint8)


def _signed(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Distance to the outline in pixels, above 0 within."""
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    signed: npt.NDArray[np.float64] = np.where(mask, inside - 0.5, 0.5 - outside)
    return signed


def _distance_mm(shape: tuple[int, ...], spacing: Spacing, seed: Voxel) -> npt.NDArray[np.float64]:
    squares = [((np.arange(n) - at) * mm) ** 2 for n, at, mm in zip(shape, seed, spacing, strict=True)]
    z, y, x = np.ix_(*squares)
    away: npt.NDArray[np.float64] = np.sqrt(z + y + x)
    return away


def span_of(drawing: Drawing, value: int) -> Voxel | None:
    """A voxel of a node, on its largest axial slice; None where it has none."""
    mask = drawing == value
    return key_index(mask) if bounding_box(mask) is not None else None
