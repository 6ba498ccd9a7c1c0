"""Slices that belong on one lattice: one series, one orientation, one matrix, one kind of image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from aiene.ingest.dicom.header import Frame

_SAME_COSINE: Final = 1e-3  # files write direction cosines with 3 to 16 digits
_SAME_PLACE_MM: Final = 0.01


@dataclass(frozen=True)
class Group:
    """The slices of one series that can be stacked together."""

    frames: tuple[Frame, ...]

    @property
    def first(self) -> Frame:
        """A slice to ask for what all have in common."""
        return self.frames[0]

    @property
    def is_localizer(self) -> bool:
        """A scout for planning the scan."""
        return "LOCALIZER" in self.first.image_type or "SCOUT" in self.first.image_type


def group(frames: Iterable[Frame]) -> list[Group]:
    """Slices grouped by series, image type, matrix, pixel spacing and orientation, in order of first slice.

    A group in which positions repeat is parted by acquisition number where that leaves whole stacks: two
    phases of contrast can share one series UID.
    """
    by_key: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_key[_key(frame)].append(frame)
    alike = [part for members in by_key.values() for part in _by_orientation(members)]
    return [Group(tuple(part)) for members in alike for part in _by_acquisition(members)]


def normal(orientation: tuple[float, ...]) -> np.ndarray:
    """The slices' normal (LPS): along a row x along a column; unit length for sound cosines."""
    return np.cross(orientation[:3], orientation[3:])


def _key(frame: Frame) -> Hashable:
    spacing = frame.pixel_spacing and tuple(round(v, 4) for v in frame.pixel_spacing)
    return (
        frame.series_uid,
        frame.frame_of_reference,
        frame.image_type[:3],  # value 4 and on may change within one scan
        frame.rows,
        frame.columns,
        spacing,
    )


def _by_orientation(frames: list[Frame]) -> list[list[Frame]]:
    parts: list[list[Frame]] = []
    for frame in frames:
        part = next((part for part in parts if _same_orientation(part[0], frame)), None)
        if part is None:
            parts.append([frame])
        else:
            part.append(frame)
    return parts


def _same_orientation(a: Frame, b: Frame) -> bool:
    if a.orientation is None or b.orientation is None:
        return a.orientation is b.orientation
    return bool(np.abs(np.subtract(a.orientation, b.orientation)).max() < _SAME_COSINE)


def _by_acquisition(frames: list[Frame]) -> list[list[Frame]]:
    parts: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        parts[frame.acquisition].append(frame)
    whole = all(len(part) > 1 and not _repeats(part) for part in parts.values())
    return list(parts.values()) if len(parts) > 1 and whole and _repeats(frames) else [frames]


def _repeats(frames: list[Frame]) -> bool:
    """Whether two slices lie at one place."""
    if any(frame.position is None or frame.orientation is None for frame in frames):
        return False
    heights = np.sort([np.dot(f.position, normal(f.orientation)) for f in frames])  # type: ignore[arg-type]
    return bool((np.diff(heights) < _SAME_PLACE_MM).any())
