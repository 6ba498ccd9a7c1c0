"""Long and short axes: the published ones (feret 1.4.3, `maxf` and `maxf90`), and those of a contour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aiene.nodes.node import Axes

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
    hit = np.argwhere(mask)
    if hit.size == 0:
        return np.zeros((1, 1, 1), dtype=np.bool_)  # also where nothing of a thin node is left at 1 mm
    low, high = hit.min(axis=0), hit.max(axis=0) + 1
    return mask[low[0] : high[0], low[1] : high[1], low[2] : high[2]]


def _largest_slice(mask: BoolArray, axis: int) -> BoolArray:
    """The slice across an axis with most pixels, the first such."""
    slices = np.moveaxis(mask, axis, 0)
    plane: BoolArray = slices[int(slices.sum(axis=(1, 2)).argmax())]
    return plane
