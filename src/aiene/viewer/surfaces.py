"""Surfaces of nodes and of the neck around them, for the view in three dimensions."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import marching_cubes

from aiene.geometry.grid import Volume, bounding_box
from aiene.viewer.scene import PRIMARY, Scene

_NODE_STEP_MM: Final = 1.0
_SKIN_STEP_MM: Final = 4.0
_SMOOTH: Final = 0.8  # of a fine voxel: takes the steps between slices, and moves no surface by a voxel
_SKIN_HU: Final = -300.0
_PER_MM: Final = 10  # whole numbers in the page: tenths of a millimetre


def surfaces(scene: Scene) -> list[dict[str, Any]]:
    """The surface of each node, of the primary tumour, and of the skin.

    Returns
    -------
    Each with `value` (that of the labels; 0 for the skin), `points` (x, y, z, x, ... in tenths of a mm from
    the block's first voxel along its axes) and `triangles` (three places in the points, facing outwards).
    """
    found = []
    if scene.ct is not None:
        skin = _surface(_body(scene.ct), scene.grid.spacing, _SKIN_STEP_MM)
        found += [] if skin is None else [{"value": 0, **skin}]
    for value in (int(v) for v in np.unique(scene.labels.array) if v):
        mask = scene.labels.array == value
        surface = _surface(mask, scene.grid.spacing, _NODE_STEP_MM)
        found += [] if surface is None else [{"value": value, **surface}]
    return sorted(found, key=lambda one: (one["value"] == PRIMARY, one["value"]))


def _surface(
    mask: npt.NDArray[np.bool_], spacing: tuple[float, float, float], step_mm: float
) -> dict[str, list[int]] | None:
    span = bounding_box(np.ascontiguousarray(mask))
    if span is None:
        return None
    start = np.array([s.start for s in span]) * spacing
    solid = np.pad(mask[span].astype(np.float32), 2)
    factors = np.array(spacing) / step_mm
    fine = ndimage.zoom(solid, factors, order=1, grid_mode=True, mode="grid-constant")
    fine = ndimage.gaussian_filter(fine, _SMOOTH)
    if min(fine.shape) < 2 or float(fine.max()) <= 0.5:
        return None
    points, triangles, _, _ = marching_cubes(fine, 0.5, allow_degenerate=False)
    scale = np.array(solid.shape) / np.array(fine.shape)  # of a fine voxel, in voxels
    in_mm = ((points + 0.5) * scale - 0.5 - 2) * spacing + start
    tenths = np.rint(in_mm[:, ::-1] * _PER_MM).astype(int)
    return {"points": tenths.ravel().tolist(), "triangles": triangles[:, ::-1].astype(int).ravel().tolist()}


def _body(ct: Volume) -> npt.NDArray[np.bool_]:
    """The largest part of the block that is no air; where the block ends, the surface is closed."""
    dense = ct.array > _SKIN_HU
    parts, count = ndimage.label(dense)
    if not count:
        return dense
    body: npt.NDArray[np.bool_] = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    return body
