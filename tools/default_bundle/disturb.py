"""The same CT by another scanner, or lying otherwise: how much of the result survives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from aiene.geometry.grid import Grid, RigidTransform, Volume, triple
from aiene.geometry.resample import resample

Disturbed = tuple[Volume, RigidTransform]
"""A CT, and the way from its points (LPS mm) to those of the undisturbed one."""

_AIR = -1024


def noisy(ct: Volume, sigma_hu: float = 20.0) -> Disturbed:
    """With more noise."""
    rng = np.random.default_rng(1)
    return _rounded(ct, ct.array + rng.standard_normal(ct.array.shape) * sigma_hu)


def blurred(ct: Volume, sigma_mm: float = 1.5) -> Disturbed:
    """With a softer kernel."""
    sigma = [0.0, sigma_mm / ct.grid.spacing[1], sigma_mm / ct.grid.spacing[2]]
    return _rounded(ct, ndimage.gaussian_filter(ct.array.astype(np.float32), sigma))


def offset(ct: Volume, hu: float) -> Disturbed:
    """With all HU shifted."""
    return _rounded(ct, ct.array + hu)


def sliced(ct: Volume, spacing_mm: float) -> Disturbed:
    """With slices of another distance: averaged where they grow thicker, linear in between otherwise."""
    z, y, x = ct.grid.spacing
    count = int(np.floor((ct.grid.size[0] - 1) * z / spacing_mm)) + 1
    grid = Grid((count, *ct.grid.size[1:]), (spacing_mm, y, x), ct.grid.origin, ct.grid.direction)
    array = ct.array.astype(np.float32)
    if spacing_mm > z:
        array = ndimage.gaussian_filter1d(array, 0.35 * spacing_mm / z, axis=0)
    return _rounded(resample(ct.with_array(array), grid, order=1, outside=_AIR), None)


def moved(ct: Volume, shift_mm: float = 20.0, degrees: float = 10.0) -> Disturbed:
    """The patient lies 20 mm further and turned by 10 degrees about the long axis, by the header."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    centre = np.array(ct.grid.centre)
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + np.array((shift_mm, 0.0, 0.0))
    move = RigidTransform.from_matrix(matrix)
    z, y, x = (triple(matrix[:3, :3] @ np.array(axis)) for axis in ct.grid.direction)
    grid = replace(ct.grid, origin=triple(move.apply(np.array(ct.grid.origin))), direction=(z, y, x))
    return Volume(ct.array, grid), move.inverse()


DISTURBANCES: dict[str, Callable[[Volume], Disturbed]] = {
    "noise of 20 HU": noisy,
    "blur of 1.5 mm": blurred,
    "slices of 1 mm": lambda ct: sliced(ct, 1.0),
    "slices of 5 mm": lambda ct: sliced(ct, 5.0),
    "10 HU more": lambda ct: offset(ct, 10.0),
    "10 HU less": lambda ct: offset(ct, -10.0),
    "shifted 20 mm, turned 10 degrees": moved,
}


def _rounded(ct: Volume, array: np.ndarray | None) -> Disturbed:
    values = ct.array if array is None else array
    return ct.with_array(np.clip(np.rint(values), -1024, 3071).astype(np.int16)), RigidTransform()
