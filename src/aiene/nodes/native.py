"""Where the nodes lie on the patient's own CT."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.geometry import Grid, RigidTransform, Triple, Volume, pull_labels
from aiene.nodes.node import NativePlace, Node, Side

MIDLINE_MM = 5.0
"""A node whose centroid lies no farther than this from the midline is on neither side."""


def ranks_by_volume(nodes: Sequence[Node]) -> list[int]:
    """The rank of each node, from 1 for the largest: falling volume before dilation, ties by number."""
    order = sorted(range(len(nodes)), key=lambda i: (-nodes[i].volume_before_mm3, nodes[i].number))
    ranks = [0] * len(nodes)
    for rank, index in enumerate(order, start=1):
        ranks[index] = rank
    return ranks


def names_by_volume(nodes: Sequence[Node]) -> list[str]:
    """The one name of each node, `GTVn_01` for the largest, in the order in which the nodes are given."""
    return [f"GTVn_{rank:02d}" for rank in ranks_by_volume(nodes)]


def native_places(
    nodes: Sequence[Node], crop_grid: Grid, native: Grid, to_native: RigidTransform, *, midline_x: float
) -> tuple[Volume, list[NativePlace]]:
    """The nodes on the native CT, by nearest neighbour.

    The masks before dilation are taken, the layer of the watershed around the segmentation included: what the
    published volume counts.

    Parameters
    ----------
    nodes : of one crop.
    crop_grid : the crop's true place in the template's space.
    native : grid of the CT.
    to_native : takes points of the template's space to points of the native CT.
    midline_x : LPS x of the template's midline in its own space; larger x is the patient's left.

    Returns
    -------
    A uint16 map on the native grid whose values are the ranks by volume (1 is `GTVn_01`), and the place of
    each node in the order given. A node that holds no native voxel centre keeps its row: volume 0, and as
    centroid that of its mask on the crop, taken to the native CT.
    """
    ranks = ranks_by_volume(nodes)
    on_crop = np.zeros(crop_grid.size, dtype=np.uint16)
    for node, rank in zip(nodes, ranks, strict=True):
        on_crop[node.mask] = rank
    placed = pull_labels(Volume(on_crop, crop_grid), native, to_native.inverse())
    found = ndimage.find_objects(placed.array, max_label=len(nodes)) if nodes else []
    places = []
    for node, rank in zip(nodes, ranks, strict=True):
        middle = crop_grid.points(np.argwhere(node.mask).mean(axis=0))
        side = _side(float(middle[0]), midline_x)
        block = found[rank - 1]
        if block is None:
            places.append(_between_voxels(to_native.apply(middle), native, side))
        else:
            places.append(_place(placed.array[block] == rank, block, native, side))
    return placed, places


def _place(mask: npt.NDArray[np.bool_], block: tuple[slice, ...], native: Grid, side: Side) -> NativePlace:
    voxels = np.argwhere(mask) + [s.start for s in block]
    return NativePlace(
        centroid_lps_mm=_triple(native.points(voxels.mean(axis=0))),
        volume_mm3=float(len(voxels) * native.voxel_volume_mm3),
        side=side,
        touches_border=any(
            s.start == 0 or s.stop == size for s, size in zip(block, native.size, strict=True)
        ),
    )


def _between_voxels(centroid: npt.NDArray[np.float64], native: Grid, side: Side) -> NativePlace:
    """A node without a native voxel: too small, or outside the CT, which counts as touching its edge."""
    index = native.indices(centroid)
    inside = bool(((index > 0) & (index < np.array(native.size) - 1)).all())
    return NativePlace(
        centroid_lps_mm=_triple(centroid), volume_mm3=0.0, side=side, touches_border=not inside
    )


def _side(x: float, midline_x: float) -> Side:
    if abs(x - midline_x) <= MIDLINE_MM:
        return "midline"
    return "left" if x > midline_x else "right"


def _triple(point: npt.NDArray[np.float64]) -> Triple:
    x, y, z = (float(v) for v in point)
    return x, y, z
