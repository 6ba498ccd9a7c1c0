"""Inputs and readings that several tests share, first written for test_nrrd_reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from builders.dicom_files import ct

SIGNS = {
    "left-posterior-superior": (1, 1, 1),
    "LPS": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "RAS": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "LAS": (1, -1, 1),
}


def write(
    path: Path, *, space: str | None = "LPS", lines: str = "", data: str = "", sizes: str = "40 32 8"
) -> Path:
    """A hand-written header, voxels raw behind it or in the file `data`."""
    sign = SIGNS.get(space or "", (1, 1, 1))
    steps = np.diag([0.8, 0.9, 3.0]) * sign
    origin = np.array([-20, -15, 100]) * sign
    header = f"NRRD0004\n# made by hand\ntype: short\ndimension: {len(sizes.split())}\nsizes: {sizes}\n"
    if space is not None:
        header += f"space: {space}\nspace directions: "
        header += " ".join(f"({s[0]:g},{s[1]:g},{s[2]:g})" for s in steps)
        header += f"\nspace origin: ({origin[0]},{origin[1]},{origin[2]})\n"
    header += f"endian: little\nencoding: raw\n{lines}"
    if data:
        header += f"data file: {data}\n"
        (path.parent / data).write_bytes(ct().tobytes())
    path.write_bytes(header.encode() + b"\n" + (b"" if data else ct().tobytes()))
    return path
