"""NRRD to a CT, read by one parser from header to voxels, so that nothing is opened which was not checked.

The space
    LPS, RAS and LAS are brought to LPS; any other is taken for LPS, with a warning that nobody knows which
    side is left. Without a space, `spacings` and `axis mins` count; where neither they nor space directions
    are there, the CT is refused.
The unit
    Lengths are in `space units` (of each component of origin and directions), without a space in `units` (of
    each axis); mm where none is said. A unit that is not known is refused.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Final

import numpy as np

from aiene.errors import InputError, Said, joined, ours, said
from aiene.geometry.grid import Grid, Volume, triple
from aiene.ingest.case import Case, NativeCt
from aiene.ingest.checks import check_spacing
from aiene.ingest.file_head import Head
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.formats import Format
from aiene.ingest.lattice import PIXEL_TYPES, Matrix, as_json, narrow
from aiene.ingest.nrrd import AGAIN, NrrdHeader, data_files, read_nrrd_header, read_voxels, sizes

_TO_LPS: Final = {
    "lps": (1, 1, 1),
    "left-posterior-superior": (1, 1, 1),
    "ras": (-1, -1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "las": (1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
}
_UNITS_MM: Final = {
    **dict.fromkeys(("", "???", "mm", "millimeter", "millimetre", "millimeters", "millimetres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre", "centimeters", "centimetres"), 10.0),
    **dict.fromkeys(("m", "meter", "metre", "meters", "metres"), 1000.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns"), 0.001),
    **dict.fromkeys(("micrometer", "micrometre", "micrometers", "micrometres"), 0.001),
}
_UNKNOWN: Final = said(
    "the file does not say how the patient lies (no space LPS, RAS or LAS): "
    "the sides of the neck cannot be known"
)


def read_nrrd(case: Case) -> NativeCt:
    """The CT of an NRRD case, .nrrd or a detached .nhdr; spaces LPS, RAS and LAS.

    Raises
    ------
    InputError : a data file is missing, cut off or outside the header's folder, it holds no single 3-D volume
        of plain numbers, or its geometry is absurd, sheared or in an unknown unit.
    """
    path = case.files[0]
    header = read_nrrd_header(path)
    grid = _grid(header)
    stored = read_voxels(header)
    known = header.get("space").lower() in _TO_LPS
    return NativeCt(
        volume=Volume(narrow(stored), grid),
        pixel_type=PIXEL_TYPES[stored.dtype.str[1:]],
        source={
            "kind": "nrrd",
            "space": header.get("space"),
            "orientation_known": known,
            "lattice": as_json(grid.affine, grid.size),
            **_parts(path, data_files(header)),
        },
        warnings=() if known else (_UNKNOWN,),
    )


def _parts(path: Path, files: tuple[Path, ...]) -> dict[str, Any]:
    """What the record says of a detached header: the voxels' files count too."""
    return {"files": 1 + len(files), "sha256": content_sha256((path, *files))} if files else {}


def _grid(header: NrrdHeader) -> Grid:
    size = sizes(header)[::-1]
    if header.get("space") or header.get("spacedimension") or header.get("spacedirections"):
        affine, unit = _with_space(header)
    else:
        affine, unit = _without_space(header)
    steps = [triple(step) for step in affine[:3, :3].T]
    # Length and unit vectors in teem's own arithmetic: the published registration repeats to the bit only on
    # the very numbers that SimpleITK would read.
    z, y, x = (math.sqrt(a * a + b * b + c * c) for a, b, c in steps)
    check_spacing(header.path, (z, y, x), unit)
    units = [triple([v * (1.0 / n) for v in step]) for step, n in zip(steps, (z, y, x), strict=True)]
    try:
        return Grid(size, (z, y, x), triple(affine[:3, 3]), (units[0], units[1], units[2]))
    except ValueError as error:
        raise InputError(
            header.path,
            "its space directions are sheared or flat, or its origin is not a position",
            "resample the CT onto a rectangular grid",
        ) from error


def _with_space(header: NrrdHeader) -> tuple[Matrix, Said | None]:
    """From (z, y, x, 1) to LPS mm, and what the header says of units other than mm."""
    vectors = re.findall(r"\(([^)]*)\)", header.get("spacedirections"))
    steps = _numbers(header, "space directions", [v for vector in vectors for v in vector.split(",")], 9)
    if len(vectors) != 3 or steps is None:
        raise InputError(header.path, "it has no three space directions of three numbers", AGAIN)
    origin = np.zeros(3)
    if header.get("spaceorigin"):
        place = _numbers(header, "space origin", header.get("spaceorigin").strip("() ").split(","), 3)
        origin = origin if place is None else place
    scale, told = _scale(header, "spaceunits")
    turn = np.array(_TO_LPS.get(header.get("space").lower(), (1, 1, 1))) * scale
    affine = np.eye(4)
    affine[:3, :3] = (steps.reshape(3, 3) * turn).T[:, ::-1]
    affine[:3, 3] = origin * turn
    return affine, told


def _without_space(header: NrrdHeader) -> tuple[Matrix, Said | None]:
    """The same from the axes' own spacings; the axes are taken for x, y and z of LPS."""
    spacing = _numbers(header, "spacings", header.get("spacings").split(), 3)
    if spacing is None:
        raise InputError(header.path, "it does not say how large its voxels are (spacings)", AGAIN)
    scale, told = _scale(header, "units")
    origin = np.zeros(3)
    if header.get("axismins"):
        place = _numbers(header, "axis mins", header.get("axismins").split(), 3)
        centres = [word.lower() for word in header.get("centers", "centerings").split()]
        half = np.array([0.5 * (word == "cell") for word in [*centres, "", "", ""][:3]])
        if place is not None and np.isfinite(place).all():
            origin = place + half * spacing
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing * scale)[:, ::-1]
    affine[:3, 3] = origin * scale
    return affine, told


def _numbers(header: NrrdHeader, name: str, words: list[str], count: int) -> Matrix | None:
    if len(words) != count:
        return None
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise InputError(header.path, said("its {} are not numbers", ours(name)), AGAIN) from error


def _scale(header: NrrdHeader, name: str) -> tuple[Matrix, Said | None]:
    """mm of the unit of each of the three components, and the units in words where they are not mm."""
    stated = header.get(name)
    words = re.findall(r'"([^"]*)"', stated) if '"' in stated else stated.split()
    words = [word.strip().lower() for word in words] or [""] * 3
    known = [_UNITS_MM.get(word) for word in words]
    if len(known) != 3 or None in known:
        raise InputError(
            header.path, "its units of length are unknown (mm, cm, m, um)", "convert the CT to mm"
        )
    scale = np.array(known, dtype=np.float64)
    return scale, None if (scale == 1).all() else said("its units are {}", joined(", ", map(ours, words)))


def _is_nrrd(head: Head) -> bool:
    return head.content.startswith(b"NRRD000")


FORMAT: Final = Format(
    name="nrrd",
    title="NRRD",
    article="an",
    choices=("nrrd",),
    endings=(".nrrd", ".nhdr"),
    recognises=_is_nrrd,
    read=read_nrrd,
    detached=lambda name: True,  # the field `data file` may stand in a file of any name
    data_files=lambda path: data_files(read_nrrd_header(path)),
)
