"""What a page shows of a case: the neck of its CT, its nodes and their surfaces, in one order of axes.

A browser is never trusted with geometry. Whatever way a CT is stored, its voxels reach the page in the order
of NIfTI's RAS (x, y, z towards right, front and head), and what is drawn there comes back as voxels of the
same block: the way in and out is `Scene.order` alone, an `AxisOrder`, which moves no voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import marching_cubes

from aiene.geometry.grid import AxisOrder, Block, Grid, RigidTransform, Volume, bounding_box
from aiene.nodes.node import GTVP

PRIMARY: Final = 255
"""The primary tumour's value in a page's labels; nodes have theirs of `nodes.nii.gz`."""

MOST_NODES: Final = 250
_TISSUE_HU: Final = -300.0
_RIM: Final = 4  # voxels
MARGIN_MM: Final = 15.0
"""Around the networks' crop and the nodes: neighbours help to tell what is what."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A block of a CT and its labels as a page gets them.

    Parameters
    ----------
    ct : int16 HU of the block; None where the CT is gone.
    labels : uint8 there: k for `GTVn_k`, `PRIMARY` for the primary tumour.
    order : the native CT's axes in the page's order.
    native : grid of the whole CT, as it is stored.
    block : which part of the reordered CT it is.
    """

    ct: Volume | None
    labels: Volume
    order: AxisOrder
    native: Grid
    block: Block

    @property
    def grid(self) -> Grid:
        """Where the block lies; its axes run nearest to head, front and right (those of RAS)."""
        return self.labels.grid

    def into_native(self, drawn: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What was drawn on the block, set into an array of the whole CT as it is stored.

        Parameters
        ----------
        drawn : of the block's shape.
        whole : (z, y, x) of the native CT; what lies outside the block is taken from it.

        Raises
        ------
        ValueError : a shape that is not the block's, or not the CT's.
        """
        if drawn.shape != self.grid.size or whole.shape != self.native.size:
            raise ValueError(f"{drawn.shape} in a block of {self.grid.size}")
        native = Volume(whole, self.native)
        page = native.reordered(self.order).array.copy()
        page[self.block] = drawn
        back = Volume(page, self.native.reordered(self.order)).reordered(self.order.inverse)
        return np.ascontiguousarray(back.array)

    def relabelled(self, nodes: Volume, labels: Volume) -> Scene:
        """The same block with other label maps of the same CT.

        Raises
        ------
        ValueError : more nodes than a page can tell apart.
        """
        marked = _marked(nodes, labels).reordered(self.order).array[self.block]
        return replace(self, labels=self.labels.with_array(np.ascontiguousarray(marked)))


def ras_order(grid: Grid) -> AxisOrder:
    """The order in which the axes (z, y, x) run nearest to head, front and right."""
    up, back, left = grid.anatomical_order().reversed
    return replace(grid.anatomical_order(), reversed=(up, not back, not left))


def scene_of(
    ct: Volume | None, nodes: Volume, labels: Volume, crop: Grid | None, to_native: RigidTransform | None
) -> Scene:
    """The neck of a case.

    Parameters
    ----------
    ct : HU on the native grid; None where it is gone.
    nodes, labels : uint16 node map and uint8 label map there.
    crop, to_native : the networks' crop and its way home; without them the block is around the labels, or
        all where there are none.

    Raises
    ------
    ValueError : more nodes than a page can tell apart.
    """
    order = ras_order(nodes.grid)
    ordered = _marked(nodes, labels).reordered(order)
    block = _block(ordered, crop, to_native)
    if ct is not None:
        block = _without_air(block, Volume(ct.array, nodes.grid).reordered(order).array, ordered.array)
    z, y, x = block
    size = (z.stop - z.start, y.stop - y.start, x.stop - x.start)
    grid = ordered.grid.crop((z.start, y.start, x.start), size)
    shown = None
    if ct is not None:
        hu = Volume(ct.array, nodes.grid).reordered(order).array[block]
        shown = Volume(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), grid)
    return Scene(shown, Volume(np.ascontiguousarray(ordered.array[block]), grid), order, nodes.grid, block)


def _marked(nodes: Volume, labels: Volume) -> Volume:
    if int(nodes.array.max(initial=0)) > MOST_NODES:
        raise ValueError(f"more than {MOST_NODES} nodes")
    marked = nodes.array.astype(np.uint8)
    marked[(labels.array == GTVP) & (marked == 0)] = PRIMARY
    return Volume(marked, nodes.grid)


def _block(labels: Volume, crop: Grid | None, to_native: RigidTransform | None) -> Block:
    """The block around the crop and the labels, with a margin, within the CT."""
    grid = labels.grid
    corners = []
    if crop is not None and to_native is not None:
        corners.append(grid.indices(to_native.apply(crop.corners())))
    span = bounding_box(labels.array != 0)
    if span is not None:
        corners.append(np.array([[s.start for s in span], [s.stop - 1 for s in span]], dtype=float))
    if not corners:
        return slice(0, grid.size[0]), slice(0, grid.size[1]), slice(0, grid.size[2])
    every = np.concatenate(corners)
    margin = MARGIN_MM / np.array(grid.spacing)
    low = np.clip(np.floor(every.min(axis=0) - margin), 0, np.array(grid.size) - 1).astype(int)
    high = np.clip(np.ceil(every.max(axis=0) + margin) + 1, low + 1, grid.size).astype(int)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _without_air(block: Block, hu: npt.NDArray[Any], labels: npt.NDArray[np.uint8]) -> Block:
    """The block without the air around the patient, but for a rim; a page is for looking at tissue."""
    shown = np.ascontiguousarray((hu[block] > _TISSUE_HU) | (labels[block] > 0))
    span = bounding_box(shown)
    if span is None:
        return block
    parts = [
        slice(
            max(outer.start, outer.start + inner.start - _RIM),
            min(outer.stop, outer.start + inner.stop + _RIM),
        )
        for outer, inner in zip(block, span, strict=True)
    ]
    return parts[0], parts[1], parts[2]


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
