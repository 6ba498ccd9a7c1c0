"""DICOM as a volume format: known by its mark, in old archives by its first element; a case to its CT."""

from __future__ import annotations

from typing import Any

from aiene.errors import Said, ours, said
from aiene.ingest.case import Case, NativeCt, place
from aiene.ingest.checks import InRange, check_memory, in_ct_range
from aiene.ingest.dicom.header import DAMAGED, Frame, quiet, read_dataset, whole_header
from aiene.ingest.dicom.header_values import odd_headers
from aiene.ingest.dicom.pixels import is_lossy, read_stack
from aiene.ingest.dicom.stack import Layout
from aiene.ingest.dicom.study import laid_out
from aiene.ingest.file_head import Head
from aiene.ingest.formats import Format
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
    layout = laid_out(case)
    size = layout.size
    check_memory(where, size[0] * size[1] * size[2])
    array = read_stack(layout.places)
    square = keep_planes(layout.affine, size)
    with quiet():
        notes = tuple(odd_headers(whole_header(min(case.files))))
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
        notes=notes,
    )


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


def _warnings(layout: Layout) -> tuple[Said, ...]:
    warnings = []
    doubles = sum(len(frames) - 1 for frames in layout.places)
    if doubles:
        what = ours("1 slice is duplicated") if doubles == 1 else said("{} slices are duplicated", doubles)
        warnings.append(said("{} with the same pixels: one of each was kept", what))
    if layout.tilt_degrees:
        warnings.append(
            said(
                "the gantry was tilted by {:.1f} degrees: the slices were shifted onto a rectangular grid",
                layout.tilt_degrees,
            )
        )
    if is_lossy(layout.places[0][0].path):
        warnings.append(said("the images have undergone lossy compression"))
    return tuple(warnings)


def _is_dicom(head: Head) -> bool:
    """By its mark; without preamble, as old archives write it, DICOM begins with group 0002 or 0008."""
    if head.content[128:132] == b"DICM":
        return True
    if head.content[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    try:
        with quiet():
            return bool(read_dataset(head, ["SOPClassUID"]).get("SOPClassUID"))
    except DAMAGED:
        return False


FORMAT = Format(
    name="dicom",
    title="DICOM",
    choices=("dicom",),
    endings=(".dcm",),
    other_endings=(".dicom", ".ima"),
    recognises=_is_dicom,
    read=read_dicom,
    single_file=False,  # a file is a slice as a rule
    first=True,  # its mark follows 128 bytes that may be anything (PS3.10 7.1)
)
