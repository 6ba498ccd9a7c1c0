"""One axial slice of a volume, as radiologists look at it, whatever the order of the array's axes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aiene.geometry.grid import Grid

Picture = npt.NDArray[Any]

_SHOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""LPS directions of the slices, the rows and the columns: to the head, to the back, to the patient's left."""


class AxialView(NamedTuple):
    """How an array is turned so that its axes run to the head, to the back and to the patient's left.

    Parameters
    ----------
    axes : the array's axes in that order.
    flips : of which of them the direction is turned round.
    spacing : mm along them.
    oblique_degrees : between the slices' axis and the patient's.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    spacing: tuple[float, float, float]
    oblique_degrees: float

    def turned(self, array: Picture) -> Picture:
        """The array, (slices, rows, columns)."""
        turned = array.transpose(self.axes)
        for axis, flip in enumerate(self.flips):
            if flip:
                turned = np.flip(turned, axis)
        return turned


def axial_view(grid: Grid) -> AxialView:
    """How arrays on a grid are turned."""
    cosines = np.array(grid.direction) @ _SHOWN.T  # (array axis, shown axis)
    axes: list[int] = []
    for shown in range(3):
        left = [axis for axis in range(3) if axis not in axes]
        axes.append(max(left, key=lambda axis, shown=shown: abs(cosines[axis, shown])))  # type: ignore[misc]
    flips = [bool(cosines[axis, shown] < 0) for shown, axis in enumerate(axes)]
    spacing = [float(grid.spacing[axis]) for axis in axes]
    tilt = float(np.degrees(np.arccos(min(1.0, abs(cosines[axes[0], 0])))))
    return AxialView(
        (axes[0], axes[1], axes[2]),
        (flips[0], flips[1], flips[2]),
        (spacing[0], spacing[1], spacing[2]),
        tilt,
    )


def worst_slice(truth: Picture, prediction: Picture) -> int:
    """The slice where truth and prediction differ in most voxels; of equals the middle one of the first run.

    Parameters
    ----------
    truth, prediction : bool, (slices, rows, columns). Where they nowhere differ, the slice with most truth.
    """
    wrong = np.count_nonzero(truth != prediction, axis=(1, 2))
    if not wrong.any():
        wrong = np.count_nonzero(truth, axis=(1, 2))
    if not wrong.any():
        return len(wrong) // 2
    first = int(np.argmax(wrong))
    last = first
    while last + 1 < len(wrong) and wrong[last + 1] == wrong[first]:
        last += 1
    return (first + last) // 2


def window(hu: Picture, centre: float, width: float) -> npt.NDArray[np.float64]:
    """HU as grey from 0 to 1; what is no number is black."""
    low = centre - width / 2
    grey = (np.nan_to_num(hu.astype(np.float64), nan=low, posinf=low + width, neginf=low) - low) / width
    return np.clip(grey, 0.0, 1.0)


def field(
    masks: Picture, spacing: tuple[float, float], *, margin: float, least: float
) -> tuple[slice, slice]:
    """A square piece of a slice around what is in a mask, as far as the slice reaches.

    Parameters
    ----------
    masks : bool, (rows, columns); the whole slice where it is empty.
    spacing : mm along rows and columns.
    margin : mm kept around.
    least : mm that the piece is wide and high at least.
    """
    if not masks.any():
        return slice(0, masks.shape[0]), slice(0, masks.shape[1])
    spans = [np.flatnonzero(masks.any(axis=1 - axis)) for axis in (0, 1)]
    middles = [(span[0] + span[-1]) / 2 for span in spans]
    reach = max((span[-1] - span[0] + 1) * mm for span, mm in zip(spans, spacing, strict=True)) + 2 * margin
    half = max(reach, least) / 2
    pieces = []
    for middle, mm, size in zip(middles, spacing, masks.shape, strict=True):
        start = max(0, round(middle - half / mm))
        stop = min(size, round(middle + half / mm) + 1)
        pieces.append(slice(start, stop))
    return pieces[0], pieces[1]
