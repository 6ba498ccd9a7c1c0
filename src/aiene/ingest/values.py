"""Stored numbers to the two types in which HU travel: int16 where nothing is lost, else float32."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

PIXEL_TYPES: Final = {
    "i1": 0,
    "u1": 1,
    "i2": 2,
    "u2": 3,
    "i4": 4,
    "u4": 5,
    "i8": 6,
    "u8": 7,
    "f4": 8,
    "f8": 9,
}
"""SimpleITK's numbers of the pixel types, with which the published resampling fills."""

_INT16 = np.iinfo(np.int16)


def fits_int16(values: npt.NDArray[Any]) -> bool:
    """Whether every value is a whole number that int16 can hold."""
    if values.dtype == np.int16:
        return True
    if not (values.min() >= _INT16.min and values.max() <= _INT16.max):  # also False for NaN
        return False
    return np.issubdtype(values.dtype, np.integer) or bool((values == np.rint(values)).all())


def narrow(values: npt.NDArray[Any], slope: float = 1.0, intercept: float = 0.0) -> npt.NDArray[Any]:
    """Values times slope plus intercept, computed in float64, as int16 where nothing is lost, else float32.

    Works plane by plane along the first axis. NaN and infinite values stay what they are.
    """
    plain = slope == 1.0 and intercept == 0.0
    if plain and values.dtype == np.dtype("=i2"):
        return values
    result: npt.NDArray[Any] = np.zeros(values.shape, dtype=np.int16)
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # what float32 cannot hold becomes infinite, and is found
        for k, plane in enumerate(values):
            hu = plane if plain else plane.astype(np.float64) * slope + intercept
            if result.dtype == np.int16 and not fits_int16(hu):
                result = result.astype(np.float32)
            result[k] = hu
    return result
