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
_EVEN_MM: Final = 0.2  # twice the jitter that a stack may have


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
        return _is_localizer(self.first)

    @property
    def is_mixed(self) -> bool:
        """Its slices name more than one image type or frame of reference."""
        return len({_kind(frame) for frame in self.frames}) > 1


def group(frames: Iterable[Frame]) -> list[Group]:
    """Slices grouped by series, image type, matrix, pixel spacing and orientation, in order of first slice.

    A group in which positions repeat is parted by acquisition number where that leaves whole stacks: two
    phases of contrast can share one series UID. Slices of one series that differ in image type or frame of
    reference alone are taken together again where they lie between each other: one stack, whose header says
    more than it should.
    """
    by_key: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_key[_key(frame)].append(frame)
    alike = [part for members in by_key.values() for part in _by_orientation(members)]
    return [Group(tuple(part)) for members in _reunited(alike) for part in _by_acquisition(members)]


def normal(orientation: tuple[float, ...]) -> np.ndarray:
    """The slices' normal (LPS): along a row x along a column; unit length for sound cosines."""
    return np.cross(orientation[:3], orientation[3:])


def _key(frame: Frame) -> Hashable:
    return _lattice(frame), _kind(frame)


def _lattice(frame: Frame) -> Hashable:
    spacing = frame.pixel_spacing and tuple(round(v, 4) for v in frame.pixel_spacing)
    return frame.series_uid, frame.rows, frame.columns, spacing


def _kind(frame: Frame) -> Hashable:
    return frame.frame_of_reference, frame.image_type[:3]  # value 4 and on may change within one scan


def _is_localizer(frame: Frame) -> bool:
    return "LOCALIZER" in frame.image_type or "SCOUT" in frame.image_type


def _reunited(parts: list[list[Frame]]) -> list[list[Frame]]:
    """Parts of one series and lattice put together where no two slices share a place and the steps are even.

    A stack of which every second slice is called otherwise would else pass for one of twice the spacing.
    """
    families: dict[Hashable, list[list[Frame]]] = defaultdict(list)
    for part in parts:
        alone = _is_localizer(part[0]) or any(f.position is None or f.orientation is None for f in part)
        families[_lattice(part[0]), id(part) if alone else None].append(part)
    result: list[list[Frame]] = []
    for family in families.values():
        together = [frame for part in family for frame in part]
        alike = all(_same_orientation(family[0][0], part[0]) for part in family)
        result += [together] if len(family) > 1 and alike and _is_even(together) else family
    return result


def _is_even(frames: list[Frame]) -> bool:
    """Whether slices lie at even steps, each at a place of its own."""
    steps = np.diff(_heights(frames))
    return bool(steps.min() >= _SAME_PLACE_MM and np.ptp(steps) <= _EVEN_MM)


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
    return bool((np.diff(_heights(frames)) < _SAME_PLACE_MM).any())


def _heights(frames: list[Frame]) -> np.ndarray:
    """Where slices lie along their normal, rising."""
    return np.sort([np.dot(f.position or (), normal(f.orientation or ())) for f in frames])
