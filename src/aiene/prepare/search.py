"""The best shift of a CT against the template, out of all there are: a start that cannot be far off."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft

from aiene.geometry import Grid, Triple, Volume, resample, triple
from aiene.prepare.body import body_mask, grown
from aiene.prepare.shrink import upright

LATTICE_MM = 6.0
_RIM_MM = 12.0
_WINDOW = (-400.0, 400.0)
_LEAST_OVERLAP = 0.6

Floats = npt.NDArray[np.float64]


def correlations(fixed: Volume, moving: Volume, overlap: float = _LEAST_OVERLAP) -> tuple[Floats, Grid]:
    """Normalised correlation of two volumes for every shift, over the voxels that both know.

    Parameters
    ----------
    fixed, moving : on lattices of one spacing and direction; NaN where unknown.
    overlap : shifts with less than this share of the largest overlap count as -1.

    Returns
    -------
    The correlations (z, y, x), and the lattice of the shift vectors: its point at a voxel is what must be
    added to a point of `fixed` to reach `moving`.

    Source
    ------
    D. Padfield, Masked object registration in the Fourier domain, IEEE Trans. Image Process. 21:2706, 2012.
    """
    shape = [a + b - 1 for a, b in zip(fixed.grid.size, moving.grid.size, strict=True)]
    padded = [fft.next_fast_len(n, real=True) for n in shape]

    def spectrum(values: Floats) -> npt.NDArray[np.complex128]:
        return np.asarray(fft.rfftn(values, padded, workers=1))

    def product(a: npt.NDArray[np.complex128], b: npt.NDArray[np.complex128]) -> Floats:
        back = fft.irfftn(a * b, padded, workers=1)
        return np.asarray(back[tuple(slice(n) for n in shape)])

    known_f, known_m = np.isfinite(fixed.array), np.isfinite(moving.array)[::-1, ::-1, ::-1]
    f = np.where(known_f, fixed.array, 0).astype(np.float64) / 1000
    m = np.where(known_m, moving.array[::-1, ::-1, ::-1], 0).astype(np.float64) / 1000
    mask_f, mask_m, f1, m1 = (spectrum(a) for a in (known_f.astype(float), known_m.astype(float), f, m))
    n = np.maximum(np.rint(product(mask_f, mask_m)), 1)
    sum_f, sum_m = product(f1, mask_m), product(mask_f, m1)
    var_f = np.maximum(product(spectrum(f * f), mask_m) - sum_f**2 / n, 0)
    var_m = np.maximum(product(mask_f, spectrum(m * m)) - sum_m**2 / n, 0)
    covariance = product(f1, m1) - sum_f * sum_m / n
    scale = np.sqrt(var_f * var_m)
    usable = (n >= overlap * n.max()) & (scale > 1e-6 * scale.max())
    values = np.full(n.shape, -1.0)
    np.divide(covariance, scale, out=values, where=usable)
    return values, _shift_lattice(fixed.grid, moving.grid, (shape[0], shape[1], shape[2]))


def best_shift(fixed: Volume, moving: Volume) -> Triple:
    """The vector (LPS mm) from points of the template to points of the CT, at the best correlation.

    Parameters
    ----------
    fixed, moving : template and CT in HU, averaged to a few mm.
    """
    values, lattice = correlations(_known_part(fixed, fixed.grid), _known_part(moving, fixed.grid))
    at = np.unravel_index(int(np.argmax(values)), values.shape)
    return triple(lattice.points(np.array(at)))


def _known_part(volume: Volume, like: Grid) -> Volume:
    """Windowed HU on an upright lattice; NaN outside the volume and away from the body."""
    body = grown(body_mask(volume), volume.grid.spacing, _RIM_MM)
    lattice = upright(volume.grid, like, LATTICE_MM)
    values = resample(volume, lattice, order=1, outside=np.nan).array.clip(*_WINDOW)
    near = resample(volume.with_array(body.astype(np.float32)), lattice, order=1, outside=0.0).array > 0.5
    return Volume(np.where(near, values, np.nan), lattice)


def _shift_lattice(fixed: Grid, moving: Grid, shape: tuple[int, int, int]) -> Grid:
    """Where in the space of shifts the correlations lie: voxel k pairs fixed i, moving i + size - 1 - k."""
    axes = np.array(moving.direction)
    last = np.array(moving.size) - 1
    first = np.array(moving.origin) - np.array(fixed.origin) + (last * np.array(moving.spacing)) @ axes
    return Grid(
        size=shape,
        spacing=moving.spacing,
        origin=triple(first),
        direction=(triple(-axes[0]), triple(-axes[1]), triple(-axes[2])),
    )
