"""Axial slices of a volume as radiologists look at them, and as the pictures that image models take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiene.geometry.grid import Grid

if TYPE_CHECKING:
    from torch import Tensor


IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class AxialView:
    """How the axes of a grid are turned so that slices are axial, rows go to the back, columns to the left.

    Parameters
    ----------
    order : which of the array's axes becomes slice, row and column.
    flips : which of these three then run backwards.
    spacing : mm along slice, row, column.
    """

    order: tuple[int, int, int]
    flips: tuple[int, ...]
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, grid: Grid) -> AxialView:
        """The view of a grid; an oblique one is looked at along its axis nearest to head and feet."""
        along = np.array(grid.direction)[:, [2, 1, 0]]  # rows: array axes; columns: z, y, x of the patient
        order = _nearest_axes(np.abs(along))
        flips = tuple(place for place, axis in enumerate(order) if along[axis, place] < 0)
        steps = [grid.spacing[axis] for axis in order]
        return cls(order, flips, (steps[0], steps[1], steps[2]))

    def turn(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An array of the grid as (slice, row, column)."""
        return np.flip(array.transpose(self.order), self.flips)

    def back(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The opposite of `turn`."""
        return np.flip(array, self.flips).transpose(np.argsort(self.order))


@dataclass(frozen=True)
class PictureScale:
    """How HU become an image model's input.

    Parameters
    ----------
    window_hu : what becomes 0 and 1.
    mean, sd : subtracted and divided by then, a channel.
    """

    window_hu: tuple[float, float]
    mean: tuple[float, ...]
    sd: tuple[float, ...]

    @classmethod
    def from_config(
        cls, window_hu: tuple[float, float], content: dict[str, Any], channels: int
    ) -> PictureScale:
        """As the model's own preprocessor file says; ImageNet's numbers where it says nothing."""
        normalise = content.get("do_normalize", True)
        mean = content.get("image_mean") or IMAGENET_MEAN
        sd = content.get("image_std") or IMAGENET_SD
        if not normalise:
            mean, sd = (0.0,), (1.0,)
        return cls(window_hu, _channels(mean, channels), _channels(sd, channels))

    def pictures(self, hu: npt.NDArray[Any]) -> Tensor:
        """(n, channels, rows, columns) float32 of slices (n, rows, columns) in HU."""
        return self.normalised(self.grey(hu))

    def grey(self, hu: npt.NDArray[Any]) -> Tensor:
        """(n, 1, rows, columns) float32 from 0 to 1: a third of the memory, until the model wants colours."""
        import torch

        low, high = self.window_hu
        return torch.from_numpy(np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1))[:, None]

    def normalised(self, grey: Tensor) -> Tensor:
        """Grey pictures in the model's channels, with its mean and deviation."""
        import torch

        mean = torch.tensor(self.mean).reshape(1, -1, 1, 1)
        return (grey - mean) / torch.tensor(self.sd).reshape(1, -1, 1, 1)


def _channels(values: Any, channels: int) -> tuple[float, ...]:
    numbers = [float(v) for v in (values if isinstance(values, (list, tuple)) else [values])]
    if len(numbers) == channels:
        return tuple(numbers)
    return (float(np.mean(numbers)),) * channels


def _nearest_axes(closeness: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    """For slice, row and column the array axis nearest to them, each taken once."""
    from scipy.optimize import linear_sum_assignment

    axes, places = linear_sum_assignment(-closeness)
    order = [0, 0, 0]
    for axis, place in zip(axes, places, strict=True):
        order[int(place)] = int(axis)
    return order[0], order[1], order[2]
