"""Slices to a lattice, from ImagePositionPatient alone: file order, numbers and tilt tags do not count.

Stock readers stretch a stack with a gap or a double slice in silence; here it is refused. Slices with a place
that none of their series can have are set aside, so that one does not spoil the rest.

The rule
    A slice is astray that lies over 2 m from the middle of the others in any coordinate, or has a coordinate
    that is no length (under 1e-37 mm and not 0: other bytes read as a number). As long as the others make an
    even stack without it, so is one that has no position or orientation, lies over 1 mm beside the line of
    the others, or between two that are neighbours at the even spacing. What lies farther along the line is
    not astray: slices before it may be missing.
    Strays are few: two, or one in twenty.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from aiene.errors import InputError, file_name, joined, ours, said
from aiene.ingest.checks import MIN_SLICES, check_spacing
from aiene.ingest.dicom.header import Frame
from aiene.ingest.lattice import Matrix, keep_planes

_FAR_MM: Final = 2000.0
"""Longer than the travel of a scanner's table."""

_NO_LENGTH: Final = 1e-37
"""Under the smallest normal float32; rounding of oblique positions leaves 1e-14 and the like."""

_BESIDE_MM: Final = 1.0
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
    return normal(frame.orientation or ())


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


# Slices that belong on one lattice: one series, one orientation, one matrix, one kind of image.


_SAME_COSINE: Final = 1e-3  # files write direction cosines with 3 to 16 digits


@dataclass(frozen=True)
class Group:
    """The slices of one series that can be stacked together, or one that none of its series can lie beside.

    Parameters
    ----------
    frames : at least one.
    astray : it is a single slice, with a place that cannot be (see `without_strays`).
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
        sound, strays = without_strays(members, MIN_SLICES)
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


_SAME_PLACE_MM: Final = 0.01
_JITTER_MM: Final = 0.1
"""Deviation of a slice from the even lattice that is accepted (positions are written rounded)."""

_WIDE_RUN: Final = 3
"""So many steps in a row, all as many times too wide: a part that was made with another spacing."""

_TOLD_GAPS: Final = 4
_MAX_TILT_DEGREES: Final = 45.0
_AXIAL_COSINE: Final = 0.7071


@dataclass(frozen=True)
class Layout:
    """Where the slices of a group lie.

    Parameters
    ----------
    places : for each slice, rising along the normal, the frames found there: one, or duplicates.
    affine : 4 x 4, from indices (slice, row, column, 1) to LPS mm; sheared where the gantry was tilted.
    tilt_degrees : angle between the slices' normal and the line through their first pixels; 0 where that
        moves no voxel by more than half a voxel.
    """

    places: tuple[tuple[Frame, ...], ...]
    affine: Matrix
    tilt_degrees: float

    @property
    def size(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return len(self.places), self.places[0][0].rows, self.places[0][0].columns

    @property
    def spacing_mm(self) -> float:
        """Distance of neighbouring slices along their normal."""
        return float(abs(keep_planes(self.affine, self.size).vectors[:, 0] @ _unit_normal(self.affine)))

    @property
    def height_mm(self) -> float:
        """How much the stack covers from head to foot, slice thickness counted as the spacing."""
        return float(abs(self.affine[2, 0]) * len(self.places))


def lay_out(group: Group, where: Path) -> Layout:
    """The lattice of a group's slices.

    Parameters
    ----------
    group : slices of one series, orientation and matrix.
    where : named in the error.

    Raises
    ------
    InputError : a position is missing, there are fewer than four slices, slices are missing (says between
        which millimetres), unevenly spaced, or shifted against each other; the gantry tilt is over 45
        degrees. For a slice astray: it is one.
    """
    if group.astray:
        raise InputError(
            group.first.path, "its position cannot belong to its series", "export the series again"
        )
    row, column = _axes(group, where)
    up = np.cross(row, column)
    places = _places(group, up)
    if len(places) < MIN_SLICES:
        slices = ours("a single slice") if len(places) == 1 else said("only {} slices", len(places))
        raise InputError(where, said("its CT series has {}", slices), "give the whole series")
    points = np.array([frames[0].position for frames in places])
    first, step, off = _line(points)
    tolerance = min(1.5 * _JITTER_MM, 0.25 * float(np.median(np.diff(points @ up))))
    if np.abs(off @ up).max() > tolerance:
        raise _uneven(points, up, where)
    sideways = float(np.linalg.norm(off - np.outer(off @ up, up), axis=1).max())
    if sideways > 1.5 * _JITTER_MM:
        problem = said("its slices are shifted sideways against each other by up to {:.1f} mm", sideways)
        raise InputError(where, problem, "export a reconstruction with aligned slices")
    spacing = group.first.pixel_spacing or ()
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = step, column * spacing[0], row * spacing[1]
    affine[:3, 3] = first
    check_spacing(where, [float(np.linalg.norm(step)), *spacing])
    return Layout(tuple(places), affine, _tilt(affine, places, where))


def _axes(group: Group, where: Path) -> tuple[Matrix, Matrix]:
    """Unit vectors along a row and along a column."""
    lost = [f for f in group.frames if None in (f.position, f.orientation, f.pixel_spacing)]
    if lost:
        what = "its CT slices have no usable position (position, orientation or pixel spacing missing{})"
        first = said(", {} first", file_name(lost[0].path))
        problem = said(what, said("") if len(lost) == len(group.frames) else first)
        raise InputError(where, problem, "export the series again with its geometry")
    mean = np.mean([f.orientation or () for f in group.frames], axis=0)
    row, column = mean[:3], mean[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if np.abs(np.subtract(lengths, 1)).max() > 0.01 or abs(row @ column) > 0.01:
        raise InputError(
            where, "its direction cosines are not orthonormal", "export the series again with its geometry"
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)


def _places(group: Group, up: Matrix) -> list[tuple[Frame, ...]]:
    """Frames by place, rising along the normal."""
    ordered = sorted(group.frames, key=lambda f: (float(np.dot(f.position or (), up)), str(f.path), f.index))
    places: list[list[Frame]] = []
    for frame in ordered:
        height = np.dot(frame.position or (), up)
        if places and height - np.dot(places[-1][0].position or (), up) < _SAME_PLACE_MM:
            places[-1].append(frame)
        else:
            places.append([frame])
    return [tuple(frames) for frames in places]


def _line(points: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """First point and step of the even line nearest to the points, and each point's distance from it.

    The ends decide where all lie on their line; else least squares.
    """
    index = np.arange(len(points), dtype=np.float64)
    step = np.round((points[-1] - points[0]) / (len(points) - 1), 9)
    off = points - points[0] - np.outer(index, step)
    if np.abs(off).max() < 1e-3:
        return points[0], step, off
    slope, start = np.polyfit(index, points, 1)
    return start, slope, points - start - np.outer(index, slope)


def _uneven(points: Matrix, up: Matrix, where: Path) -> InputError:
    """Why slices at these points make no even stack: two spacings, missing slices, or just any distances."""
    steps = np.diff(points @ up)
    unit = float(np.median(steps))
    counts = np.rint(steps / unit)
    axis = int(np.abs(up).argmax())
    fits = bool((counts >= 1).all() and np.abs(steps - counts * unit).max() <= 2 * _JITTER_MM)
    if not fits or not (counts > 1).any():
        problem = said("its slices are unevenly spaced ({:.2f} to {:.2f} mm apart)", steps.min(), steps.max())
        return InputError(where, problem, "export a reconstruction with even spacing")
    wide = _wide_part(counts)
    if wide is not None:
        first, last = wide
        return InputError(
            where,
            said(
                "its slices lie {:.2f} mm apart within {} = {:.1f} to "
                "{:.1f} mm and {:.2f} mm apart elsewhere, so their spacing is uneven",
                steps[first],
                ours("xyz"[axis]),
                points[first][axis],
                points[last][axis],
                unit,
            ),
            "export a reconstruction with even spacing",
        )
    gaps = [
        said("{:.1f} to {:.1f} mm", a[axis], b[axis])
        for (a, b), count in zip(pairwise(points), counts, strict=True)
        if count > 1
    ]
    more = said(" and in {} more places", len(gaps) - _TOLD_GAPS) if len(gaps) > _TOLD_GAPS else said("")
    missing = int((counts - 1).sum())
    lost = ours("1 slice is missing") if missing == 1 else said("{} slices are missing", missing)
    return InputError(
        where,
        said(
            "{} within {} = {}{} (spacing {:.2f} mm)",
            lost,
            ours("xyz"[axis]),
            joined(" and ", gaps[:_TOLD_GAPS]),
            more,
            unit,
        ),
        "export the whole series again",
    )


def _wide_part(counts: npt.NDArray[np.float64]) -> tuple[int, int] | None:
    """First and last point of the first long run of equally wide steps; None where there is none."""
    start = 0
    for count, run in groupby(counts.tolist()):
        length = len(list(run))
        if count > 1 and length >= _WIDE_RUN:
            return start, start + length
        start += length
    return None


def _tilt(affine: Matrix, places: list[tuple[Frame, ...]], where: Path) -> float:
    size = (len(places), places[0][0].rows, places[0][0].columns)
    step = affine[:3, 0]
    along = float(abs(step @ _unit_normal(affine)))
    tilt = float(np.degrees(np.arccos(np.clip(along / np.linalg.norm(step), 0, 1))))
    if tilt > _MAX_TILT_DEGREES:
        problem = said("its slices are sheared by {:.1f} degrees", tilt)
        raise InputError(where, problem, "export a reconstruction without gantry tilt")
    return 0.0 if keep_planes(affine, size).snaps else tilt


def _unit_normal(affine: Matrix) -> npt.NDArray[np.float64]:
    across = np.cross(affine[:3, 2], affine[:3, 1])
    return across / np.linalg.norm(across)


def is_axial(group: Group) -> bool:
    """Whether the slices' normal lies within 45 degrees of the body's axis; so a tilted gantry counts."""
    orientation = group.first.orientation
    return orientation is not None and bool(abs(normal(orientation)[2]) > _AXIAL_COSINE)
