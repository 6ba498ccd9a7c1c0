"""Where the nodes lie on the patient's own CT: the contour there, each voxel in one node or told of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from aiene.geometry.grid import Grid, RigidTransform, Triple, Volume, nearest_voxels, triple
from aiene.nodes.node import NativePlace, Node, NoNode, Side, ranks_by_volume
from aiene.nodes.split import axial_axes

MIDLINE_MM = 5.0
"""A node whose centroid lies no farther than this from the midline is on neither side."""

_TOUCHING = np.ones((3, 3, 3), dtype=bool)
"""Voxels of a contour hang together by faces, edges and corners."""


@dataclass(frozen=True, eq=False)
class NativeNodes:
    """The nodes of a case on the native CT.

    Parameters
    ----------
    map : uint16, the rank of the node (1 is `GTVn_01`), 0 elsewhere.
    places : of each node, in the order in which they were given.
    no_node : what of the contours is in no node, in order of falling volume.
    in_crop : share of the contours' voxels that lie in the crop; 1 where there is no contour.
    """

    map: Volume
    places: tuple[NativePlace, ...]
    no_node: tuple[NoNode, ...]
    in_crop: float


def native_nodes(
    nodes: Sequence[Node],
    crop_grid: Grid,
    contours: Volume,
    to_native: RigidTransform,
    *,
    midline_x: float,
) -> NativeNodes:
    """The contours on the native CT, divided among the nodes.

    A voxel of the contours belongs to the node whose basin of the watershed (`Node.mask`) holds its centre.
    What lies in no basin, beyond the crop's edge as a rule, goes to the node that is nearest among those that
    the same part of the contours (voxels that touch) belongs to. A part without a node is in none: it is too
    small for one, or outside the crop. So no voxel is in two nodes, and nodes and `no_node` are the contours.

    Parameters
    ----------
    nodes : of one crop.
    crop_grid : the crop's true place in the template's space.
    contours : bool on the native CT's grid, where the segmentation or the user has drawn nodes.
    to_native : takes points of the template's space to points of the native CT.
    midline_x : LPS x of the template's midline in its own space; larger x is the patient's left.

    Returns
    -------
    A node that holds no native voxel centre keeps its place: volume 0, and as centroid that of its contour on
    the crop, taken to the native CT.
    """
    native, from_native = contours.grid, to_native.inverse()
    placed, left_over, in_crop = _divided(nodes, crop_grid, contours, to_native)
    voxels = np.argwhere(placed)
    owner = placed[tuple(voxels.T)]
    ranks = ranks_by_volume(nodes)
    places = []
    for node, rank in zip(nodes, ranks, strict=True):
        own = voxels[owner == rank]
        if len(own):
            centroid = native.points(own.mean(axis=0))
            side = _side(float(from_native.apply(centroid)[0]), midline_x)
            places.append(_place(own, native, side))
        else:
            on_crop_too = node.contour if node.contour.any() else node.mask
            middle = crop_grid.points(np.argwhere(on_crop_too).mean(axis=0))
            side = _side(float(middle[0]), midline_x)
            places.append(_between_voxels(to_native.apply(middle), native, side))
    return NativeNodes(
        Volume(placed, native),
        tuple(places),
        tuple(sorted(left_over, key=lambda part: -part.volume_mm3)),
        in_crop,
    )


def _divided(
    nodes: Sequence[Node], crop_grid: Grid, contours: Volume, to_native: RigidTransform
) -> tuple[npt.NDArray[np.uint16], list[NoNode], float]:
    """The rank of each native voxel's node, the parts without a node, and the contours' share in the crop.

    All is found in the anatomical order, so that which of two equally near nodes a voxel gets does not depend
    on the order of the file.
    """
    order = contours.grid.anatomical_order()
    ordered = contours.reordered(order)
    native, from_native = ordered.grid, to_native.inverse()
    voxels = np.argwhere(ordered.array)
    on_crop = nearest_voxels(crop_grid.indices(from_native.apply(native.points(voxels))))
    within = (on_crop >= 0) & (on_crop < np.array(crop_grid.size))
    seen: npt.NDArray[np.bool_] = np.all(within, axis=1)
    owner = np.zeros(len(voxels), dtype=np.uint16)
    basins = np.zeros(crop_grid.size, dtype=np.uint16)
    for node, rank in zip(nodes, ranks_by_volume(nodes), strict=True):
        basins[node.mask] = rank
    owner[seen] = basins[tuple(on_crop[seen].T)]
    left_over = []
    for part in _parts(voxels):
        in_mm = (voxels[part] - voxels[part].min(axis=0)) * np.array(native.spacing)
        if (owner[part] == 0).any() and not _spread(owner, part, in_mm):
            left_over.append(
                NoNode(
                    volume_mm3=float(len(part) * native.voxel_volume_mm3),
                    centroid_lps_mm=triple(native.points(voxels[part].mean(axis=0))),
                    outside=not seen[part].any(),
                )
            )
    placed = np.zeros(native.size, dtype=np.uint16)
    placed[tuple(voxels.T)] = owner
    stored = np.ascontiguousarray(Volume(placed, native).reordered(order.inverse).array)
    return stored, left_over, float(seen.mean()) if len(seen) else 1.0


def _parts(voxels: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """The places in a list of voxels (n, 3) of each part of them that hangs together."""
    if not len(voxels):
        return
    low = voxels.min(axis=0)
    block = np.zeros(voxels.max(axis=0) - low + 1, dtype=bool)
    at = tuple((voxels - low).T)
    block[at] = True
    part_of = ndimage.label(block, _TOUCHING)[0][at]
    order = np.argsort(part_of, kind="stable")
    yield from np.split(order, np.cumsum(np.bincount(part_of)[1:])[:-1])


def _spread(
    owner: npt.NDArray[np.uint16], part: npt.NDArray[np.int64], points: npt.NDArray[np.float64]
) -> bool:
    """Give the voxels of a part that have no owner that of the nearest voxel of the part; False: none has."""
    owned = owner[part] > 0
    if not owned.any():
        return False
    _, nearest = cKDTree(points[owned]).query(points[~owned])
    owner[part[~owned]] = owner[part[owned]][nearest]
    return True


def _place(voxels: npt.NDArray[np.int64], native: Grid, side: Side) -> NativePlace:
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    mask = np.zeros(high - low + 1, dtype=bool)
    mask[tuple((voxels - low).T)] = True
    long_axis, short_axis = axial_axes(*_upright(mask, native))
    return NativePlace(
        centroid_lps_mm=triple(native.points(voxels.mean(axis=0))),
        volume_mm3=float(len(voxels) * native.voxel_volume_mm3),
        long_axis_mm=long_axis,
        short_axis_mm=short_axis,
        side=side,
        touches_border=bool((low == 0).any() or (high == np.array(native.size) - 1).any()),
    )


def _upright(mask: npt.NDArray[np.bool_], native: Grid) -> tuple[npt.NDArray[np.bool_], Triple]:
    """A mask and its spacing with the axis first that runs nearest to the body's: files hold any order."""
    upright = int(np.abs(np.array(native.direction)[:, 2]).argmax())
    order = [upright, *(axis for axis in range(3) if axis != upright)]
    return mask.transpose(order), triple(np.array(native.spacing)[order])


def _between_voxels(centroid: npt.NDArray[np.float64], native: Grid, side: Side) -> NativePlace:
    """A node without a native voxel: too small, or outside the CT, which counts as touching its edge."""
    index = native.indices(centroid)
    inside = bool(((index > 0) & (index < np.array(native.size) - 1)).all())
    return NativePlace(
        centroid_lps_mm=triple(centroid),
        volume_mm3=0.0,
        long_axis_mm=None,
        short_axis_mm=None,
        side=side,
        touches_border=not inside,
    )


def _side(x: float, midline_x: float) -> Side:
    if abs(x - midline_x) <= MIDLINE_MM:
        return "midline"
    return "left" if x > midline_x else "right"
