"""Slices to a lattice, from ImagePositionPatient alone: file order, numbers and tilt tags do not count.

Stock readers stretch a stack with a gap or a double slice in silence; here it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from aiene.errors import InputError
from aiene.ingest.dicom.group import Group, normal
from aiene.ingest.dicom.header import Frame
from aiene.ingest.lattice import Matrix, keep_planes
from aiene.ingest.limits import MIN_SLICES, check_spacing

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
    uneven_mm : largest distance of a slice from its place on the lattice.
    """

    places: tuple[tuple[Frame, ...], ...]
    affine: Matrix
    tilt_degrees: float
    uneven_mm: float

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
            group.first.path, "it lies where no slice of its series can", "export the series again"
        )
    row, column = _axes(group, where)
    up = np.cross(row, column)
    places = _places(group, up)
    if len(places) < MIN_SLICES:
        slices = "a single slice" if len(places) == 1 else f"only {len(places)} slices"
        raise InputError(where, f"its CT series has {slices}", "give the whole series")
    points = np.array([frames[0].position for frames in places])
    first, step, off = _line(points)
    tolerance = min(1.5 * _JITTER_MM, 0.25 * float(np.median(np.diff(points @ up))))
    if np.abs(off @ up).max() > tolerance:
        raise _uneven(points, up, where)
    sideways = float(np.linalg.norm(off - np.outer(off @ up, up), axis=1).max())
    if sideways > 1.5 * _JITTER_MM:
        raise InputError(
            where,
            f"its slices are shifted sideways against each other by up to {sideways:.1f} mm",
            "export a reconstruction with aligned slices",
        )
    spacing = group.first.pixel_spacing or ()
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = step, column * spacing[0], row * spacing[1]
    affine[:3, 3] = first
    check_spacing(where, [float(np.linalg.norm(step)), *spacing])
    return Layout(
        tuple(places), affine, _tilt(affine, places, where), float(np.linalg.norm(off, axis=1).max())
    )


def _axes(group: Group, where: Path) -> tuple[Matrix, Matrix]:
    """Unit vectors along a row and along a column."""
    lost = [f for f in group.frames if None in (f.position, f.orientation, f.pixel_spacing)]
    if lost:
        named = "" if len(lost) == len(group.frames) else f", {lost[0].path.name} first"
        raise InputError(
            where,
            "its CT slices do not say where they lie (position, orientation or pixel spacing missing"
            f"{named})",
            "export the series again with its geometry",
        )
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
        problem = f"its slices are unevenly spaced ({steps.min():.2f} to {steps.max():.2f} mm apart)"
        return InputError(where, problem, "export a reconstruction of even spacing")
    wide = _wide_part(counts)
    if wide is not None:
        first, last = wide
        return InputError(
            where,
            f"its slices lie {steps[first]:.2f} mm apart within {'xyz'[axis]} = {points[first][axis]:.1f} to "
            f"{points[last][axis]:.1f} mm and {unit:.2f} mm apart elsewhere, so their spacing is uneven",
            "export a reconstruction of even spacing",
        )
    gaps = [
        f"{a[axis]:.1f} to {b[axis]:.1f} mm"
        for (a, b), count in zip(pairwise(points), counts, strict=True)
        if count > 1
    ]
    more = f" and in {len(gaps) - _TOLD_GAPS} more places" if len(gaps) > _TOLD_GAPS else ""
    missing = int((counts - 1).sum())
    lost = "1 slice is missing" if missing == 1 else f"{missing} slices are missing"
    return InputError(
        where,
        f"{lost} within {'xyz'[axis]} = {' and '.join(gaps[:_TOLD_GAPS])}{more} (spacing {unit:.2f} mm)",
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
        raise InputError(
            where,
            f"its slices are sheared by {tilt:.1f} degrees",
            "export a reconstruction without gantry tilt",
        )
    return 0.0 if keep_planes(affine, size).snaps else tilt


def _unit_normal(affine: Matrix) -> npt.NDArray[np.float64]:
    across = np.cross(affine[:3, 2], affine[:3, 1])
    return across / np.linalg.norm(across)


def is_axial(group: Group) -> bool:
    """Whether the slices' normal lies within 45 degrees of the body's axis; so a tilted gantry counts."""
    orientation = group.first.orientation
    return orientation is not None and bool(abs(normal(orientation)[2]) > _AXIAL_COSINE)
