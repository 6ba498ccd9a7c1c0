"""From a segmentation to single nodes, numbered as the published code numbers them, and their axes.

Axes are the published ones (feret 1.4.3, `maxf` and `maxf90`), and those of a contour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from aiene.geometry.grid import Block, Grid, Volume, bounding_box, nearest_voxels
from aiene.nodes.node import SMALLEST_SEED, Axes, FgLabels, Node, foreground

BoolArray = npt.NDArray[np.bool_]

_TIE = 1e-9
"""Share of the long axis by which two of one length may differ by rounding."""


def measure_axes(mask: BoolArray, spacing: tuple[float, float, float]) -> Axes:
    """Both axes in the axial, coronal and sagittal slice of largest area.

    Parameters
    ----------
    mask : bool (z, y, x), one node, before dilation; it should not be empty.
    spacing : mm along z, y, x; the mask is taken to 1 mm cubes by nearest neighbour first.

    Returns
    -------
    Lengths in mm between pixel centres, so that a run of n pixels is n - 1 long. 0 for an empty mask, for
    one so thin that no 1 mm cube holds it, and where the slice holds a single pixel (there the published
    code stops with an error).
    """
    cubes = _cut(_to_cubes(mask, spacing))
    lengths = [feret_axes(_largest_slice(cubes, axis)) for axis in range(3)]
    (long_a, short_a), (long_c, short_c), (long_s, short_s) = lengths
    return Axes(
        short_axial=short_a,
        short_coronal=short_c,
        short_sagittal=short_s,
        long_axial=long_a,
        long_coronal=long_c,
        long_sagittal=long_s,
    )


def axial_axes(mask: BoolArray, spacing: tuple[float, float, float]) -> tuple[float, float]:
    """Long and short axis of a contour in its slice of largest area, on its own voxels.

    No cubes of 1 mm come between, as they do in the published axes: thin nodes would lose whole voxels.

    Parameters
    ----------
    mask : bool (z, y, x), one node, its slices along the first axis.
    spacing : mm along z, y, x.

    Returns
    -------
    Largest distance of two voxel centres of the slice, and its extent across the line between them (the
    largest such where several pairs are equally far apart), in mm; 0 for a single voxel or an empty mask.
    """
    corners = convex_corners(_largest_slice(_cut(mask), 0)) * np.array(spacing[1:])
    if len(corners) < 2:
        return 0.0, 0.0
    apart = corners[:, None] - corners[None]
    lengths = np.hypot(apart[..., 0], apart[..., 1])
    long_axis = float(lengths.max())
    ways = apart[lengths >= long_axis * (1 - _TIE)] / long_axis
    across = corners @ np.stack([-ways[:, 1], ways[:, 0]])
    return long_axis, float(np.ptp(across, axis=0).max())


def feret_axes(plane: BoolArray) -> tuple[float, float]:
    """Largest distance of two pixels of a plane, and its extent across the line between them, in pixels.

    Returns
    -------
    Long axis and short axis; (0, 0) for fewer than two pixels.
    """
    corners = convex_corners(plane)
    if len(corners) < 2:
        return 0.0, 0.0
    first, second, length = _farthest_pair(corners)
    row, column = corners[second] - corners[first]
    across = corners @ np.array([-column, row])
    return length, float((across.max() - across.min()) / np.hypot(row, column))


def _farthest_pair(corners: npt.NDArray[np.int64]) -> tuple[int, int, float]:
    """The two corners whose line gives the short axis, and the largest distance.

    Where several pairs are equally far apart, `feret` lists the rows of all their entries in the symmetric
    table of distances, and takes the first of each half of that list. On symmetric masks the choice moves the
    short axis by up to 1.4 mm; the two corners may even be no such pair at all.
    """
    apart = corners[:, None] - corners[None]
    squared = (apart**2).sum(axis=2)  # whole numbers: a tie is exact
    rows = np.nonzero(squared == squared.max())[0]
    return int(rows[len(rows) // 2]), int(rows[0]), float(np.sqrt(squared.max()))


def convex_corners(plane: BoolArray) -> npt.NDArray[np.int64]:
    """Corners (n, 2) of the convex hull of a plane's pixel centres, as (row, column).

    They begin with the last corner (highest row, then highest column) and go round by way of the high
    columns; where there is no corner on that way, they begin with the first corner. This is the order of
    OpenCV's `convexHull`, on which `feret` settles ties. Points on a straight edge are no corners. Andrew's
    monotone chain (Inf. Process. Lett. 9, 1979) on the ends of each row, in whole numbers.
    """
    rows = np.flatnonzero(plane.any(axis=1))
    left = plane[rows].argmax(axis=1)
    right = plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([rows, left], axis=1), np.stack([rows, right], axis=1)])
    points = sorted({(int(row), int(column)) for row, column in ends})
    if len(points) < 2:
        return np.array(points, dtype=np.int64).reshape(-1, 2)
    high, low = _half_hull(points[::-1]), _half_hull(points)
    corners = low if len(high) == 2 < len(low) else high[:-1] + low[:-1]
    return np.array(corners, dtype=np.int64)


def _half_hull(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The chain of corners from the first point to the last that turns one way only."""
    chain: list[tuple[int, int]] = []
    for point in points:
        while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
            chain.pop()
        chain.append(point)
    return chain


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    """Over 0 where the way from a over b to c turns to the one side, 0 where it is straight."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _to_cubes(mask: BoolArray, spacing: tuple[float, float, float]) -> BoolArray:
    """The mask at 1 mm by nearest neighbour, same origin; what lies beyond the outer voxels' rim is empty."""
    cubes = mask
    for axis, step in enumerate(spacing):
        wanted = round(mask.shape[axis] * step)
        source = np.floor(np.arange(wanted) / step + 0.5).astype(np.int64)
        source = source[source < mask.shape[axis]]
        cubes = np.take(cubes, source, axis=axis)
    return cubes


def _cut(mask: BoolArray) -> BoolArray:
    """The smallest block that holds the mask; axes do not depend on where it lies."""
    block = bounding_box(mask)
    # also where nothing of a thin node is left at 1 mm
    return np.zeros((1, 1, 1), dtype=np.bool_) if block is None else mask[block]


def _largest_slice(mask: BoolArray, axis: int) -> BoolArray:
    """The slice across an axis with most pixels, the first such."""
    slices = np.moveaxis(mask, axis, 0)
    plane: BoolArray = slices[int(slices.sum(axis=(1, 2)).argmax())]
    return plane


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
    block = bounding_box(mask)
    if block is None:
        return None
    z, y, x = (
        slice(max(span.start - more, 0), min(span.stop + more, size))
        for span, more, size in zip(block, margin, mask.shape, strict=True)
    )
    return z, y, x


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
