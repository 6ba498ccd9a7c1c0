"""From a segmentation to single nodes, numbered as the published code numbers them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from aiene.geometry.grid import Grid, Volume, nearest_voxels
from aiene.nodes.measure import measure_axes
from aiene.nodes.node import SMALLEST_SEED, FgLabels, Node, foreground

BoolArray = npt.NDArray[np.bool_]
Block = tuple[slice, slice, slice]

SEED_DISTANCE = 2.0
"""Seeds lie nearer to the mask than this, in voxels: the mask and one layer around it, corners included."""
WATERSHED_LEVEL = 1.0
"""A lobe is a node of its own where it lies deeper than this, in voxels, below the saddle to the next."""
DILATION = 4
"""Voxels in plane by which the classifier's mask is larger."""


def split_nodes(labels: Volume, *, fg_labels: FgLabels, axes: bool) -> list[Node]:
    """Every node of a label map, in rising number.

    Parameters
    ----------
    labels : integer label map on the crop.
    fg_labels : the labels that are nodes; two labels that touch are one mask.
    axes : measure long and short axes too.

    Returns
    -------
    The nodes. Their masks do not overlap and hold the layer around the segmentation, as published; the
    dilated masks may overlap. A node's contour is what of the segmentation lies in its mask. Numbers have
    gaps where a part was too small to be a node.
    """
    inside = foreground(labels.array, fg_labels)
    split = split_labels(inside)
    return [
        node_of(int(number), split == number, inside, labels.grid, axes=axes)
        for number in np.flatnonzero(np.bincount(split.ravel()))
        if number > 0
    ]


def split_labels(mask: BoolArray) -> npt.NDArray[np.int64]:
    """Node numbers (z, y, x) of a mask: watershed of the distance map within the seeds; 0 elsewhere.

    Only the mask's bounding box and one layer around it are looked at. That changes nothing: the distance is
    measured to mask voxels, which are all inside; seeds and the flat bottoms of the basins reach one voxel
    beyond the mask at most; a way from basin to basin that leaves the box, moved onto its nearest face, comes
    no farther from the mask; and a basin's number is its place in raster order, which a box keeps.
    """
    result = np.zeros(mask.shape, dtype=np.int64)
    block = padded_block(mask, (1, 1, 1))
    if block is not None:
        result[block] = _watershed_in_seeds(mask[block])
    return result


def _watershed_in_seeds(mask: BoolArray) -> npt.NDArray[np.int64]:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    distance = sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=False, squaredDistance=False, useImageSpacing=False
    )
    seeds = _large_enough(sitk.GetArrayViewFromImage(distance) < SEED_DISTANCE)
    if not seeds.any():
        return np.zeros(mask.shape, dtype=np.int64)
    basins = sitk.MorphologicalWatershed(
        distance, level=WATERSHED_LEVEL, markWatershedLine=False, fullyConnected=False
    )
    return np.where(seeds, sitk.GetArrayViewFromImage(basins), 0).astype(np.int64)


def _large_enough(seeds: BoolArray) -> BoolArray:
    """The seeds whose face-connected component has enough voxels."""
    components, _ = ndimage.label(seeds)
    enough = np.bincount(components.ravel()) >= SMALLEST_SEED
    enough[0] = False
    kept: BoolArray = enough[components]
    return kept


def node_of(number: int, mask: BoolArray, segmented: BoolArray, grid: Grid, *, axes: bool) -> Node:
    """The node of a mask that has its layer already.

    Parameters
    ----------
    mask : the node with its layer, not empty.
    segmented : the segmentation, of which the node's contour is the part within `mask`.
    grid : of both.
    axes : measure the published axes too.
    """
    dilated, contour = dilate(mask), mask & segmented
    return Node(
        number=number,
        contour=contour,
        mask=mask,
        dilated=dilated,
        contour_mm3=_volume(contour, grid),
        volume_before_mm3=_volume(mask, grid),
        volume_after_mm3=_volume(dilated, grid),
        axes=measure_axes(mask, grid.spacing) if axes else None,
        touches_border=touches_border(contour),
    )


def _volume(mask: BoolArray, grid: Grid) -> float:
    return float(np.count_nonzero(mask) * grid.voxel_volume_mm3)


def dilate(mask: BoolArray) -> BoolArray:
    """A mask grown by a square of 9 x 9 voxels in plane, cut off at the array's edge."""
    result = np.zeros_like(mask)
    block = padded_block(mask, (0, DILATION, DILATION))
    if block is None:
        return result
    square = 2 * DILATION + 1
    part = mask[block].astype(np.uint8)
    result[block] = ndimage.maximum_filter(part, size=(1, square, square), mode="constant", cval=0) > 0
    return result


def touches_border(mask: BoolArray) -> bool:
    """Whether a mask reaches the first or last layer of its array along any axis."""
    faces = (np.moveaxis(mask, axis, 0)[[0, -1]] for axis in range(3))
    return any(bool(face.any()) for face in faces)


def padded_block(mask: BoolArray, margin: tuple[int, int, int]) -> Block | None:
    """The bounding box of a mask and a margin around it, within the array; None for an empty mask."""
    spans = []
    for axis, (size, more) in enumerate(zip(mask.shape, margin, strict=True)):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if hit.size == 0:
            return None
        spans.append(slice(max(int(hit[0]) - more, 0), min(int(hit[-1]) + 1 + more, size)))
    return spans[0], spans[1], spans[2]


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
