"""What masks must be before they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aiene.errors import UsageError

LabelArray = npt.NDArray[Any]
Spacing = tuple[float, float, float]
BoolArray = npt.NDArray[np.bool_]


def as_labels(array: npt.ArrayLike, what: str) -> LabelArray:
    """A label map of whole numbers, also out of bools and of whole numbers that were stored as floats.

    Parameters
    ----------
    array : (z, y, x).
    what : its name in the sentence: "the prediction".

    Raises
    ------
    UsageError : it has not three axes, or holds values that are no labels (fractions, NaN, negative numbers).
    """
    labels = np.asarray(array)
    if labels.ndim != 3 or labels.size == 0:
        raise UsageError(f"{what} has the shape {labels.shape}, not three axes (z, y, x) with voxels.")
    if labels.dtype == np.bool_:
        return labels.astype(np.uint8)
    if np.issubdtype(labels.dtype, np.floating):
        if not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
            raise UsageError(
                f"{what} holds values that are not whole-number labels (fractions, NaN or infinite)."
            )
        labels = labels.astype(np.int64)
    if not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"{what} holds {labels.dtype} values, not labels.")
    if labels.min() < 0:
        raise UsageError(f"{what} holds negative values, so it is not a label map.")
    return labels


def check_pair(truth: LabelArray, prediction: LabelArray) -> None:
    """Both must lie on one grid.

    Raises
    ------
    UsageError : their shapes differ.
    """
    if truth.shape != prediction.shape:
        raise UsageError(
            f"the truth has {truth.shape} voxels and the prediction {prediction.shape}; "
            "they must be on one grid."
        )


def check_spacing(spacing: Sequence[float]) -> Spacing:
    """Three lengths in mm along z, y, x.

    Raises
    ------
    UsageError : they are not three positive finite numbers.
    """
    steps = tuple(float(step) for step in spacing)
    if len(steps) != 3 or not np.isfinite(steps).all() or min(steps) <= 0:
        raise UsageError(f"voxel spacing {steps} is not three lengths in mm over 0.")
    return steps[0], steps[1], steps[2]
