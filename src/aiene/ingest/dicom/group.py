"""Slices that belong on one lattice: one series, one orientation, one matrix, one kind of image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final

import numpy as np

from aiene.ingest.dicom.header import Frame
from aiene.ingest.dicom.strays import heights, is_even, without_strays

_SAME_COSINE: Final = 1e-3  # files write direction cosines with 3 to 16 digits
_SAME_PLACE_MM: Final = 0.01


@dataclass(frozen=True)
class Group:
    """The slices of one series that can be stacked together, or one that none of its series can lie beside.

    Parameters
    ----------
    frames : at least one.
    astray : it is a single slice, with a place that cannot be (see `strays`).
    """

    frames: tuple[Frame, ...]
    astray: bool = False

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

    A group in which positions repeat is parted by acquisition number, temporal position or time where that
    leaves whole stacks: two phases of contrast can share one series UID. Slices of one series that differ in
    image type or frame of reference alone are taken together again where they lie between each other: one
    stack, whose header says more than it should. Slices with a place that cannot be come last, each alone.
    """
    by_key: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_key[_key(frame)].append(frame)
    alike: list[list[Frame]] = []
    astray: list[Frame] = []
    for members in by_key.values():
        sound, strays = without_strays(members)
        alike += _by_orientation(sound)
        astray += strays
    whole = [Group(tuple(part)) for members in _reunited(alike) for part in _by_phase(members)]
    return whole + [Group((frame,), astray=True) for frame in astray]


def what_differs(one: Group, other: Group) -> str:
    """In a few words, what keeps the slices of a group out of the stack of another of the same series."""
    a, b = one.first, other.first
    if (a.rows, a.columns) != (b.rows, b.columns):
        return "another matrix"
    if a.pixel_spacing != b.pixel_spacing and _lattice(a) != _lattice(b):
        return "another pixel spacing"
    if not _same_orientation(a, b):
        return "another orientation"
    if a.image_type[:3] != b.image_type[:3]:
        return "another image type"
    if a.frame_of_reference != b.frame_of_reference:
        return "another frame of reference"
    if a.acquisition != b.acquisition:
        return "another acquisition at the same places"
    if a.phase != b.phase:
        return "another phase at the same places"
    return "another time at the same places"


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
        result += [together] if len(family) > 1 and alike and is_even(together) else family
    return result


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


def _by_phase(frames: list[Frame]) -> list[list[Frame]]:
    """Slices that repeat each other's places, parted by what tells their scans apart; else all together."""
    if not _repeats(frames):
        return [frames]
    numbered: dict[str, list[Frame]] = defaultdict(list)
    phased: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        numbered[frame.acquisition].append(frame)
        phased[frame.phase].append(frame)
    for parts in (list(numbered.values()), list(phased.values()), _by_time(frames)):
        if len(parts) > 1 and all(len(part) > 1 and not _repeats(part) for part in parts):
            return parts
    return [frames]


def _by_time(frames: list[Frame]) -> list[list[Frame]]:
    """Slices cut at the longest pauses between their times, into as many parts as one place has slices."""
    if any(frame.seconds is None for frame in frames):
        return [frames]
    ordered = sorted(frames, key=lambda frame: frame.seconds or 0.0)
    pauses = np.diff([frame.seconds or 0.0 for frame in ordered])
    together = (np.diff(heights(frames)) < _SAME_PLACE_MM).tolist()
    most = max(len(list(run)) for same, run in groupby(together) if same) + 1
    cuts = sorted(int(n) + 1 for n in np.argsort(-pauses, kind="stable")[: most - 1] if pauses[n] > 0)
    return [ordered[a:b] for a, b in pairwise([0, *cuts, len(ordered)])]


def _repeats(frames: list[Frame]) -> bool:
    """Whether two slices lie at one place."""
    if any(frame.position is None or frame.orientation is None for frame in frames):
        return False
    return bool((np.diff(heights(frames)) < _SAME_PLACE_MM).any())
