"""A DICOM case to its CT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiene.errors import InputError
from aiene.ingest.case import Case, NativeCt
from aiene.ingest.checks import check_memory
from aiene.ingest.dicom.header import Frame
from aiene.ingest.dicom.pixels import is_lossy, read_stack
from aiene.ingest.dicom.scan import scan
from aiene.ingest.dicom.series_selection import candidates, choose
from aiene.ingest.dicom.stack import Layout, group, lay_out
from aiene.ingest.hu_range import InRange, in_ct_range
from aiene.ingest.lattice import as_json, keep_planes, on_rectangle

_INT16 = 2  # SimpleITK's number: the published reader turns every DICOM CT into int16


def read_dicom(case: Case) -> NativeCt:
    """The CT of a DICOM case in HU.

    A tilted gantry is undone: each slice is shifted within its own plane (linear interpolation, air around),
    so the planes of the volume are those of the source slices.

    Raises
    ------
    InputError : the slices make no sound stack, or their pixels cannot be read.
    """
    where = place(case.files)
    layout = _laid_out(case)
    size = layout.size
    check_memory(where, size[0] * size[1] * size[2])
    array = read_stack(layout.places)
    square = keep_planes(layout.affine, size)
    inside = InRange(array) if square.snaps else in_ct_range(where, array)  # before it is interpolated
    return NativeCt(
        volume=on_rectangle(inside.array, layout.affine, square),
        pixel_type=_INT16,
        source={
            **_source(layout),
            "off_right_angles_degrees": round(square.angle_degrees, 4),
            **inside.record,
        },
        warnings=(*_warnings(layout), *inside.warnings),
    )


def check_doubles(case: Case) -> None:
    """Read the slices that lie at one place, which a run takes only where they show the same.

    Raises
    ------
    InputError : two of them differ (names both), or one cannot be read.
    """
    doubled = [frames for frames in _laid_out(case).places if len(frames) > 1]
    if doubled:
        read_stack(doubled)


def place(files: tuple[Path, ...]) -> Path:
    """What to name in a message about a series: its only file, or the folder of its first slice."""
    return files[0] if len(files) == 1 else files[0].parent


def _laid_out(case: Case) -> Layout:
    where = place(case.files)
    found = scan(case.files)
    if found.damaged:
        raise InputError(found.damaged[0], "the file cannot be read as DICOM any more", "copy it again")
    groups = [g for g in group(found.frames) if case.series_uid in (None, g.first.series_uid)]
    if not groups:
        raise InputError(where, "it holds no CT image", "give the CT series")
    chosen = choose(candidates(groups, where)).group
    return lay_out(chosen, where)


def _source(layout: Layout) -> dict[str, Any]:
    first: Frame = layout.places[0][0]
    return {
        "kind": "dicom",
        "series_uid": first.series_uid,
        "study_uid": first.study[2],
        "frame_of_reference_uid": first.frame_of_reference,
        "slices": len(layout.places),
        "slice_order": "rising along the slice normal",
        "gantry_tilt_degrees": round(layout.tilt_degrees, 4),
        "lattice": as_json(layout.affine, layout.size),
    }


def _warnings(layout: Layout) -> tuple[str, ...]:
    warnings = []
    doubles = sum(len(frames) - 1 for frames in layout.places)
    if doubles:
        what = "1 slice is there twice" if doubles == 1 else f"{doubles} slices are there twice"
        warnings.append(f"{what} with the same pixels: one of each was kept")
    if layout.tilt_degrees:
        warnings.append(
            f"the gantry was tilted by {layout.tilt_degrees:.1f} degrees: the slices were shifted onto a "
            "rectangular grid"
        )
    if is_lossy(layout.places[0][0].path):
        warnings.append("the images went through a lossy compression")
    return tuple(warnings)
