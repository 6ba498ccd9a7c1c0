"""Moving voxels from one grid onto another; the caller says what lies outside."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.geometry.grid import Grid, RigidTransform, Triple, Volume, bounding_box, nearest_voxels, triple


def resample(
    volume: Volume,
    onto: Grid,
    *,
    order: Literal[0, 1, 3],
    outside: float,
    world: RigidTransform | None = None,
) -> Volume:
    """The volume's values at the voxel centres of another grid.

    Parameters
    ----------
    volume : the voxels to sample.
    onto : where they are wanted.
    order : 0 nearest neighbour, 1 linear, 3 cubic spline.
    outside : the value where `onto` leaves the volume (beyond the outermost voxel centres).
    world : takes points of `onto`'s space to the volume's space; None where both are one space.

    Returns
    -------
    A volume of the same dtype on `onto`.
    """
    array = ndimage.affine_transform(
        volume.array,
        _index_map(volume.grid, onto, world),
        output_shape=onto.size,
        order=order,
        mode="constant",
        cval=outside,
        prefilter=order > 1,
    )
    return Volume(array, onto)


def pull_labels(labels: Volume, onto: Grid, world: RigidTransform | None = None) -> Volume:
    """A label map at the voxel centres of another grid, by nearest neighbour; 0 outside.

    Every voxel of `onto` whose centre lies within half a voxel of `labels`' outermost centres takes the label
    of the nearest voxel there, of several equally near ones the same in every storage order of `labels`. Only
    the block of `onto` that the labelled voxels can reach is visited, so a small crop comes back onto a large
    CT quickly.

    Parameters
    ----------
    labels : integer label map.
    onto : the grid that wants the labels, the native CT's as a rule.
    world : takes points of `onto`'s space to `labels`' space; None where both are one space.

    Returns
    -------
    A volume of the same dtype on `onto`.
    """
    labels = labels.anatomical()
    result = np.zeros(onto.size, dtype=labels.array.dtype)
    block = bounding_box(labels.array != 0)
    if block is None:
        return Volume(result, onto)
    to_labels = _index_map(labels.grid, onto, world)
    low, high = _reach(block, np.linalg.inv(to_labels).astype(np.float64), onto)
    if (high <= low).any():
        return Volume(result, onto)
    for z in range(low[0], high[0]):  # slice by slice: the memory of one slice's indices at a time
        y, x = np.mgrid[low[1] : high[1], low[2] : high[2]]
        at = to_labels[:3, :3] @ np.stack([np.full(y.size, z), y.ravel(), x.ravel()]) + to_labels[:3, 3:]
        nearest = nearest_voxels(at)
        inside = ((nearest >= 0) & (nearest < np.array(labels.grid.size)[:, None])).all(axis=0)
        plane = np.zeros(y.size, dtype=labels.array.dtype)
        plane[inside] = labels.array[tuple(nearest[:, inside])]
        result[z, low[1] : high[1], low[2] : high[2]] = plane.reshape(y.shape)
    return Volume(result, onto)


def _index_map(source: Grid, onto: Grid, world: RigidTransform | None) -> npt.NDArray[np.float64]:
    """4 x 4, from indices on `onto` to indices on `source`."""
    if world is None:
        return source.index_map(onto)
    matrix: npt.NDArray[np.float64] = np.linalg.inv(source.affine) @ world.matrix @ onto.affine
    return matrix


def _reach(
    block: tuple[slice, ...], to_onto: npt.NDArray[np.float64], onto: Grid
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and one-past-last index on `onto` that a block of source voxels, with its rim, can touch."""
    edges = np.array([[s.start - 0.5, s.stop - 0.5] for s in block])
    corners = np.array([[edges[a, i] for a, i in enumerate(c)] for c in np.ndindex(2, 2, 2)])
    reached = corners @ to_onto[:3, :3].T + to_onto[:3, 3]
    low = np.clip(np.floor(reached.min(axis=0)), 0, onto.size).astype(np.int64)
    high = np.clip(np.ceil(reached.max(axis=0)) + 1, 0, onto.size).astype(np.int64)
    return low, high


def block_factors(spacing: Triple, wanted: Triple) -> tuple[int, int, int]:
    """How many voxels along z, y, x can be averaged without becoming coarser than `wanted` mm."""
    z, y, x = (max(1, int(w / s + 1e-3)) for s, w in zip(spacing, wanted, strict=True))
    return z, y, x


def block_mean(volume: Volume, factors: tuple[int, int, int]) -> Volume:
    """Means of blocks of voxels, float32; at the far edges the last voxel is repeated to fill a block.

    One slab of slices is in memory as float at a time.
    """
    fz, fy, fx = factors
    rows, columns = (_clamped(n, f) for n, f in zip(volume.grid.size[1:], factors[1:], strict=True))
    planes = _clamped(volume.grid.size[0], fz)
    size = (len(planes) // fz, len(rows) // fy, len(columns) // fx)
    out = np.empty(size, dtype=np.float32)
    for k in range(size[0]):
        slab = volume.array[planes[k * fz : (k + 1) * fz]].mean(axis=0, dtype=np.float32)
        if fy > 1 or fx > 1:
            blocks = slab[np.ix_(rows, columns)].reshape(size[1], fy, size[2], fx)
            slab = blocks.mean(axis=(1, 3))
        out[k] = slab
    grid = replace(
        volume.grid,
        size=size,
        spacing=triple(np.multiply(volume.grid.spacing, factors)),
        origin=triple(volume.grid.points([(f - 1) / 2 for f in factors])),
    )
    return Volume(out, grid)


def downsample(volume: Volume, wanted: Triple) -> Volume:
    """The volume averaged to at most `wanted` mm along its own z, y, x axes, float32."""
    return block_mean(volume, block_factors(volume.grid.spacing, wanted))


def aligned_grid(grid: Grid, like: Grid, spacing_mm: float) -> Grid:
    """A lattice of equal spacing along the axes of `like` that just holds `grid`."""
    axes = np.array(like.direction)
    along = grid.corners() @ axes.T
    low, high = along.min(axis=0), along.max(axis=0)
    z, y, x = (max(1, int(np.ceil(extent / spacing_mm)) + 1) for extent in high - low)
    return Grid(
        size=(z, y, x),
        spacing=(spacing_mm, spacing_mm, spacing_mm),
        origin=triple(low @ axes),
        direction=like.direction,
    )


def _clamped(n: int, factor: int) -> npt.NDArray[np.int64]:
    """Indices 0, 1, ... n - 1, with the last repeated up to a multiple of `factor`."""
    return np.minimum(np.arange(-(-n // factor) * factor), n - 1)
