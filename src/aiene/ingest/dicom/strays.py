"""Slices with a place that none of their series can have: set aside, so that one does not spoil the rest.

The rule
    A slice is astray that lies over 2 m from the middle of the others in any coordinate, or has a coordinate
    that is no length (under 1e-37 mm and not 0: other bytes read as a number). As long as the others make an
    even stack without it, so is one that has no position or orientation, lies over 1 mm beside the line of
    the others, or between two that are neighbours at the even spacing. What lies farther along the line is
    not astray: slices before it may be missing.
    Strays are few: two, or one in twenty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from aiene.ingest.dicom.frame import Frame

_FAR_MM: Final = 2000.0
"""Longer than the travel of a scanner's table."""

_NO_LENGTH: Final = 1e-37
"""Under the smallest normal float32; rounding of oblique positions leaves 1e-14 and the like."""

_BESIDE_MM: Final = 1.0
_SAME_PLACE_MM: Final = 0.01
_EVEN_MM: Final = 0.2  # twice the jitter that a stack may have
_SHARE: Final = 20

_Points = npt.NDArray[np.float64]


def without_strays(frames: Sequence[Frame], fewest: int) -> tuple[list[Frame], list[Frame]]:
    """The slices that may belong together, and those astray, by the rule above.

    Parameters
    ----------
    frames : of one series, matrix and kind; orientations may differ.
    fewest : with fewer slices nothing can be told.
    """
    limit = max(2, len(frames) // _SHARE)
    placed = [f for f in frames if f.position is not None and f.orientation is not None]
    if len(placed) < max(fewest, len(frames) - limit):
        return list(frames), []
    points = np.array([f.position for f in placed], dtype=np.float64)
    absurd = (np.abs(points - np.median(points, axis=0)) > _FAR_MM).any(axis=1)
    absurd |= ((points != 0) & (np.abs(points) < _NO_LENGTH)).any(axis=1)
    sound = [f for f, far in zip(placed, absurd, strict=True) if not far]
    if len(sound) < max(fewest, len(frames) - limit):
        return list(frames), []
    sound = _on_even_line(sound, limit - (len(frames) - len(sound)), fewest)
    kept = {id(f) for f in sound}
    if len(placed) < len(frames) and not is_even(sound, repeated=True):
        kept |= {id(f) for f in frames if f.position is None or f.orientation is None}
    return [f for f in frames if id(f) in kept], [f for f in frames if id(f) not in kept]


def heights(frames: Sequence[Frame]) -> _Points:
    """Where slices lie along their normal, rising."""
    return np.sort([np.dot(f.position or (), _normal(f)) for f in frames])


def is_even(frames: Sequence[Frame], *, repeated: bool = False) -> bool:
    """Whether slices lie at even steps; each at a place of its own unless they may be repeated."""
    steps = np.diff(heights(frames))
    if repeated:
        steps = steps[steps >= _SAME_PLACE_MM]
    return bool(steps.size and steps.min() >= _SAME_PLACE_MM and np.ptp(steps) <= _EVEN_MM)


def _normal(frame: Frame) -> _Points:
    orientation = frame.orientation or ()
    return np.cross(orientation[:3], orientation[3:])


def _on_even_line(frames: list[Frame], limit: int, fewest: int) -> list[Frame]:
    """The slices without the few that lie beside the line or between the steps of the others."""
    if limit < 1 or (is_even(frames, repeated=True) and not _beside(frames).any()):
        return frames
    beside, between = _beside(frames), _between(frames, fewest)
    for odd in (beside, between, beside | between):
        rest = [f for f, out in zip(frames, odd, strict=True) if not out]
        if 0 < odd.sum() <= limit and len(rest) >= fewest and is_even(rest, repeated=True):
            return rest
    return frames


def _beside(frames: Sequence[Frame]) -> npt.NDArray[np.bool_]:
    """Which slices lie beside the line that most lie on."""
    points = np.array([f.position for f in frames], dtype=np.float64)
    up = np.median([_normal(f) for f in frames], axis=0)
    along = points @ up
    sideways = points - np.outer(along, up)
    order = np.argsort(along, kind="stable")
    half = len(frames) // 2
    first, second = order[: len(frames) - half], order[half:]
    apart = along[second] - along[first]
    far = apart > _SAME_PLACE_MM
    if not far.any():
        return np.zeros(len(frames), dtype=bool)
    slope = np.median(((sideways[second] - sideways[first])[far].T / apart[far]).T, axis=0)
    rest = sideways - np.outer(along, slope)
    off: npt.NDArray[np.bool_] = np.linalg.norm(rest - np.median(rest, axis=0), axis=1) > _BESIDE_MM
    return off


def _between(frames: Sequence[Frame], fewest: int) -> npt.NDArray[np.bool_]:
    """Which slices lie between two others that are one ordinary step apart."""
    along = np.array([np.dot(f.position or (), _normal(f)) for f in frames])
    places = np.sort(along)
    places = places[np.concatenate([[True], np.diff(places) >= _SAME_PLACE_MM])]
    odd = np.zeros(len(frames), dtype=bool)
    if len(places) < fewest:
        return odd
    steps = np.diff(places)
    unit = float(np.median(steps))
    near = min(_EVEN_MM, 0.25 * unit)
    for before, place, after in zip(places, places[1:], places[2:], strict=False):
        if abs(after - before - unit) <= near:
            odd |= np.abs(along - place) < _SAME_PLACE_MM
    return odd
