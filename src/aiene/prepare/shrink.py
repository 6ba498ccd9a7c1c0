"""Coarser lattices of a volume: block means on its own axes, and an upright lattice on the template's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from aiene.geometry import Grid, Triple, Volume, triple


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


def shrunk(volume: Volume, wanted: Triple) -> Volume:
    """The volume averaged to at most `wanted` mm along its own z, y, x axes, float32."""
    return block_mean(volume, block_factors(volume.grid.spacing, wanted))


def upright(grid: Grid, like: Grid, spacing_mm: float) -> Grid:
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
