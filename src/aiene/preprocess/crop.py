"""The networks' window onto the registered CT, and its scaling to [0, 1]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aiene.geometry.grid import Grid, Triple, Volume, triple
from aiene.preprocess.profile import AIR, OPEN, PUBLISHED, Profile

_TOO_BRIGHT = 700.0

LOWEST_DROPPED = 30
"""Slices at the template's low end that the published crop leaves out."""


def published_crop(registered: Volume, profile: Profile = PUBLISHED) -> Volume:
    """The published crop of a CT on the template's grid, float32 (64, 160, 160), with its true place.

    The lowest 30 slices are dropped, the rest is scaled by its own range and cut at a place that depends on
    the template's size alone. A template that is too short is filled up with raw -1024: first on both ends to
    64 slices, then (once 30 slices were dropped) at the low end. The crop's grid counts all of it.

    Parameters
    ----------
    registered : float32 HU on the template's grid, 0 where the CT does not reach.
    profile : gives size and window.
    """
    n, (slices, rows, columns) = registered.grid.size[0], profile.crop_size
    scaled = _own_range(registered.array[LOWEST_DROPPED:], profile.window)
    both = abs(n - slices) // 2 if n < slices else 0
    y, x = published_start(registered.grid.size)
    window = np.pad(scaled, ((both, both), (0, 0), (0, 0)), constant_values=AIR)
    window = window[:slices, y : y + rows, x : x + columns]
    low = slices - window.shape[0]
    window = np.pad(window, ((low, 0), (0, 0), (0, 0)), constant_values=AIR)
    return Volume(window, registered.grid.crop((LOWEST_DROPPED - both - low, y, x), profile.crop_size))


def patient_lattice(template: Grid, neck_centre: Triple, in_plane: Triple, profile: Profile) -> Grid:
    """The lattice of a crop that is centred on the neck along z and on the patient in plane.

    Parameters
    ----------
    template : gives the directions of the axes.
    neck_centre : LPS mm; counts along the template's z axis.
    in_plane : LPS mm of the body's centre; counts along its y and x axes.
    profile : gives size and spacing.
    """
    axes = np.array(template.direction)
    middle = np.array([axes[0] @ neck_centre, axes[1] @ in_plane, axes[2] @ in_plane])
    first = middle - (np.array(profile.crop_size) - 1) / 2 * profile.crop_spacing
    return Grid(
        size=profile.crop_size,
        spacing=profile.crop_spacing,
        origin=triple(first @ axes),
        direction=template.direction,
    )


def fixed_window(
    hu: npt.NDArray[np.float32], window: tuple[float, float] = OPEN.window
) -> npt.NDArray[np.float32]:
    """HU scaled by the profile's window, float32 in [0, 1].

    The published steps make values over 700 HU soft tissue and stretch each volume to its own range. Here
    what is brighter than the window (bone, metal) is 1, what is darker (air, nothing) is 0: a HU value has
    one meaning in every patient.
    """
    low, high = window
    return (hu.clip(low, high) - np.float32(low)) / np.float32(high - low)


def _own_range(hu: npt.NDArray[np.float32], window: tuple[float, float]) -> npt.NDArray[np.float32]:
    """The published scaling, in float32 and in the order of the published steps."""
    values = np.where(hu <= AIR, np.float32(AIR), hu)
    values = np.where(values > _TOO_BRIGHT, np.float32(0), values)
    values = values.clip(*window)
    low, high = values.min(), values.max()
    if low == high:
        return np.zeros_like(values)
    scaled: npt.NDArray[np.float32] = (values - low) / (high - low)
    return scaled


def published_start(size: tuple[int, int, int]) -> tuple[int, int]:
    """First row and column (y, x) of the published crop on a template of that size (z, y, x).

    The published code takes the rows' centre for x and the columns' for y.
    """
    _, rows, columns = size
    return int((columns - 1) / 2 - 80) - 40, int((rows - 1) / 2 - 80)
