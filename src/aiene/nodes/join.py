"""Nodes that a reader says are one: what the watershed parted is put together again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aiene.geometry.grid import Volume
from aiene.geometry.resample import nearest_voxels
from aiene.nodes.node import Node
from aiene.nodes.split import node_of

Points = npt.NDArray[np.float64]


def join_nodes(
    nodes: Sequence[Node], pairs: Sequence[tuple[Points, Points]], segmented: Volume, *, axes: bool
) -> list[Node]:
    """The nodes with those of each pair as one, which keeps the lower number.

    Parameters
    ----------
    nodes : of one crop.
    pairs : two points each (x, y, z, LPS mm in the crop's space); one that lies in no node joins nothing.
    segmented : bool, the segmentation that the nodes are made of, on the crop.
    axes : measure the published axes of joined nodes too.
    """
    groups = {node.number: {node.number} for node in nodes}
    by_number = {node.number: node for node in nodes}
    for pair in pairs:
        ends = [number for point in pair if (number := _node_at(nodes, point, segmented)) is not None]
        if len(ends) == 2 and groups[ends[0]] is not groups[ends[1]]:
            together = groups[ends[0]] | groups[ends[1]]
            for number in together:
                groups[number] = together
    joined = []
    for number, group in sorted(groups.items()):
        if number != min(group):
            continue
        if len(group) == 1:
            joined.append(by_number[number])
            continue
        mask = np.any([by_number[n].mask for n in group], axis=0)
        joined.append(node_of(number, mask, segmented.array, segmented.grid, axes=axes))
    return joined


def _node_at(nodes: Sequence[Node], point: Points, segmented: Volume) -> int | None:
    voxel = nearest_voxels(segmented.grid.indices(point))
    if (voxel < 0).any() or (voxel >= np.array(segmented.grid.size)).any():
        return None
    return next((node.number for node in nodes if node.mask[tuple(voxel)]), None)
