"""MetaImage (.mha, .mhd) to a CT, read by one parser from header to voxels, as NRRD is.

The place
    `TransformMatrix` holds the unit vectors of x, y and z one after the other, `Offset` the first voxel, both
    in LPS (mm), as ITK reads and writes them; `ElementSpacing` counts before `ElementSize`.
    `AnatomicalOrientation` moves nothing, as in ITK: it only describes the matrix. Where the two contradict
    each other, the case is warned; not of RAI beside a matrix, which some writers put into every header.
The data
    After the header (`LOCAL`), or in one file in the header's folder. A header comes from a stranger: no
    file outside that folder is opened, links resolved.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiene.errors import InputError, Said, ours, reading, said
from aiene.geometry.grid import Grid, Volume, triple
from aiene.ingest.case import Case, NativeCt
from aiene.ingest.checks import check_memory, check_promise, check_size, check_spacing
from aiene.ingest.file_head import Head
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.formats import Format
from aiene.ingest.lattice import PIXEL_TYPES, as_json, narrow
from aiene.ingest.readers.nrrd import AGAIN, within_folder

_MAX_HEADER: Final = 1 << 16
_COPY: Final = "the file is cut off or damaged: copy it again"
_TYPES: Final = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
"""MET_LONG is left out: it has 4 or 8 bytes by the machine that wrote it."""

_COMES_FROM: Final = ("RL", "AP", "IS")
"""For x, y, z of LPS: the side from which an axis comes that grows with it, and one that runs against it."""

_FIELD: Final = re.compile(r"\s*([^\s=]+)\s*=(.*)")
"""ITK writes what it knows of an image under names such as `dim[0]` (of NIfTI) and `0008|0060` (of DICOM)."""


@dataclass(frozen=True)
class _Header:
    """Fields by name as they stand, and how many bytes they take with the line that ends them."""

    path: Path
    fields: dict[str, str] = field(repr=False)
    length: int

    def get(self, *names: str) -> str:
        return next((self.fields[name] for name in names if name in self.fields), "")

    def numbers(self, *names: str, count: int) -> npt.NDArray[np.float64] | None:
        """Finite numbers of the first of the fields that is there; None where none is."""
        words = self.get(*names).split()
        if not words:
            return None
        try:
            found = np.array([float(word) for word in words])
        except ValueError:
            found = np.zeros(0)
        if len(found) != count or not np.isfinite(found).all():
            raise InputError(self.path, said("its {} is not {} numbers", ours(names[0]), count), AGAIN)
        return found

    def whole(self, name: str, default: int) -> int:
        value = self.get(name)
        if value and not re.fullmatch(r"-?\d{1,15}", value):
            raise InputError(self.path, said("its {} is not a whole number", ours(name)), AGAIN)
        return int(value) if value else default

    def is_true(self, *names: str) -> bool:
        return self.get(*names).lower() in ("true", "t", "1", "yes")


def read_metaimage(case: Case) -> NativeCt:
    """The CT of a MetaImage case: .mha, or a detached .mhd with its .raw or .zraw.

    Raises
    ------
    InputError : the data file is missing, cut off or outside the header's folder, it holds no single 3-D
        volume of plain numbers, or its place is absurd or sheared.
    """
    path = case.files[0]
    header = _read_header(path)
    size = _sizes(header)
    grid = _grid(header, size)
    files = _data_files(header)
    stored = _voxels(header, size, files)
    known, warnings = _orientation(header, grid)
    parts = {"files": 1 + len(files), "sha256": content_sha256((path, *files))} if files else {}
    return NativeCt(
        volume=Volume(narrow(stored), grid),
        pixel_type=PIXEL_TYPES[stored.dtype.str[1:]],
        source={
            "kind": "metaimage",
            "anatomical_orientation": header.get("AnatomicalOrientation"),
            "orientation_known": known,
            "lattice": as_json(grid.affine, grid.size),
            **parts,
        },
        warnings=warnings,
    )


def _read_header(path: Path) -> _Header:
    with reading(path), path.open("rb") as file:
        head = file.read(_MAX_HEADER)
    fields: dict[str, str] = {}
    place = 0
    while place < len(head):
        end = head.find(b"\n", place)
        line = head[place : end if end >= 0 else len(head)].decode("utf-8", "replace")
        place = end + 1 if end >= 0 else len(head)
        found = _FIELD.fullmatch(line.rstrip("\r"))
        if found is None:
            if line.strip():
                break
            continue
        name, value = found[1], found[2].strip()
        if name in fields:
            raise InputError(path, "a field appears twice in its header, so it is ambiguous", AGAIN)
        fields[name] = value
        if name == "ElementDataFile":  # the last field by the format's definition; voxels may follow
            return _Header(path, fields, place)
    raise InputError(path, "its header does not say where the voxels are (ElementDataFile)", AGAIN)


def _sizes(header: _Header) -> tuple[int, int, int]:
    """(z, y, x)."""
    words = header.get("DimSize").split()
    if not words or not all(re.fullmatch(r"\d{1,9}", word) for word in words):
        raise InputError(header.path, "its DimSize is not that of a volume", AGAIN)
    if len(words) == 2:
        raise InputError(header.path, "it is a single two-dimensional image", "give the whole CT volume")
    if len(words) != 3 or header.whole("NDims", 3) != 3:
        problem = said("it has {} dimensions instead of 3", header.get("NDims"))
        raise InputError(header.path, problem, "give one CT per file")
    if header.whole("ElementNumberOfChannels", 1) != 1:
        raise InputError(header.path, "it has several values per voxel", "give a greyscale CT")
    check_size(header.path, [int(word) for word in words])
    x, y, z = (int(word) for word in words)
    return z, y, x


def _grid(header: _Header, size: tuple[int, int, int]) -> Grid:
    spacing = header.numbers("ElementSpacing", "ElementSize", count=3)
    if spacing is None:
        raise InputError(header.path, "it does not say how large its voxels are (ElementSpacing)", AGAIN)
    unit = header.get("DistanceUnits").lower()
    if unit not in ("", "?", "mm"):
        raise InputError(header.path, "its unit of length is not mm", "convert the CT to mm")
    check_spacing(header.path, spacing.tolist())
    matrix = header.numbers("TransformMatrix", "Rotation", "Orientation", count=9)
    steps = np.eye(3) if matrix is None else matrix.reshape(3, 3)
    origin = header.numbers("Offset", "Position", "Origin", count=3)
    x, y, z = (triple(step) for step in steps)
    try:
        return Grid(
            size,
            triple(spacing[::-1]),
            triple(np.zeros(3) if origin is None else origin),
            (z, y, x),
        )
    except ValueError as error:
        problem = "its TransformMatrix is sheared, flat or scaled"
        raise InputError(header.path, problem, "resample the CT onto a rectangular grid") from error


def _orientation(header: _Header, grid: Grid) -> tuple[bool, tuple[Said, ...]]:
    """Whether the sides are known, and what to warn of where two statements contradict each other."""
    stated = header.get("AnatomicalOrientation").upper()
    placed = bool(header.get("TransformMatrix", "Rotation", "Orientation"))
    if stated in ("", "???"):
        unknown = said(
            "the file does not say how the patient lies (no TransformMatrix and no AnatomicalOrientation): "
            "the sides of the neck cannot be known"
        )
        return placed, () if placed else (unknown,)
    if stated == _code(grid) or (placed and stated == "RAI"):
        return True, ()
    what = ours("its TransformMatrix" if placed else "its axes, which have no TransformMatrix,")
    return placed, (
        said(
            "AnatomicalOrientation {} contradicts {} ({}): AnatomicalOrientation was not "
            "followed, as in ITK; check that the sides of the neck are right",
            stated[:3],
            what,
            ours(_code(grid)),
        ),
    )


def _code(grid: Grid) -> str:
    """The sides from which x, y and z come, as ITK names the axes: RAI is LPS."""
    vectors = np.array(grid.direction)[::-1]  # of x, y, z
    letters: dict[int, str] = {}
    axes, sides = {0, 1, 2}, {0, 1, 2}
    while axes:
        axis, side = max(((a, s) for a in axes for s in sides), key=lambda pair: abs(vectors[pair]))
        letters[axis] = _COMES_FROM[side][int(vectors[axis, side] < 0)]
        axes.remove(axis)
        sides.remove(side)
    return "".join(letters[axis] for axis in range(3))


def _data_files(header: _Header) -> tuple[Path, ...]:
    named = header.get("ElementDataFile")
    if named.upper() == "LOCAL":
        return ()
    if named.split()[:1] == ["LIST"] or "%" in named:
        raise InputError(
            header.path, "its voxels are in several files", "write the CT with one data file, or as .mha"
        )
    if not named or len(named) > 4096:
        raise InputError(header.path, "its ElementDataFile is not a file name", AGAIN)
    return (within_folder(header.path, named),)


def _voxels(header: _Header, size: tuple[int, int, int], files: tuple[Path, ...]) -> npt.NDArray[Any]:
    """The stored numbers (z, y, x), in this machine's byte order."""
    kind = _TYPES.get(header.get("ElementType"))
    if kind is None:
        problem = "its ElementType is not supported"
        raise InputError(header.path, problem, "write the CT again as MET_SHORT or MET_FLOAT")
    if header.get("BinaryData") and not header.is_true("BinaryData"):
        raise InputError(header.path, "its voxels are written in digits", "write the CT again as binary")
    slope = header.numbers("ElementToIntensityFunctionSlope", count=1)
    shift = header.numbers("ElementToIntensityFunctionOffset", count=1)
    if (slope is not None and slope[0] != 1) or (shift is not None and shift[0] != 0):
        problem = "it scales its values (ElementToIntensityFunction), which other readers do not follow"
        raise InputError(header.path, problem, "write the CT again in HU, without a scale")
    dtype = np.dtype(kind).newbyteorder(
        ">" if header.is_true("BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
    )
    content = _content(header, files[0] if files else header.path, math.prod(size), dtype.itemsize)
    return np.frombuffer(content, dtype=dtype).reshape(size).astype(dtype.newbyteorder("="), copy=False)


def _content(header: _Header, file: Path, count: int, itemsize: int) -> bytes:
    length, attached = count * itemsize, file == header.path
    skip, packed = header.whole("HeaderSize", 0), header.is_true("CompressedData")
    if skip < -1 or (skip == -1 and packed):
        raise InputError(header.path, "its HeaderSize is not supported", AGAIN)
    begin = (header.length if attached else 0) + max(skip, 0)
    if skip == -1:
        begin = max(file.stat().st_size - length, 0)
    check_promise(file, length, offset=begin, deflated=packed)
    check_memory(header.path, count)
    with file.open("rb") as stream:
        stream.seek(begin)
        content = stream.read() if packed else stream.read(length)
    if packed:
        try:
            content = zlib.decompressobj(wbits=47).decompress(content, length)  # zlib's or gzip's header
        except zlib.error as error:
            raise InputError(file, "it cannot be read as MetaImage", _COPY) from error
    if len(content) < length:
        raise InputError(file, "it ends before its last voxel", _COPY)
    return content


def _is_metaimage(head: Head) -> bool:
    """By its first field: MetaImage has no magic number."""
    first = head.content[:4096]
    if re.match(rb"(?:ObjectType|ObjectSubType|NDims|Comment)\s*=", first) is None:
        return False
    kind = re.search(rb"^ObjectType\s*=\s*(\S+)", first, re.MULTILINE)
    described = re.search(rb"^DimSize\s*=", first, re.MULTILINE) is not None
    return described and (kind is None or kind[1] == b"Image")


FORMAT: Final = Format(
    name="metaimage",
    title="MetaImage",
    choices=("mha",),
    endings=(".mha", ".mhd"),
    recognises=_is_metaimage,
    read=read_metaimage,
    detached=lambda name: True,  # both endings may name a data file
    data_files=lambda path: _data_files(_read_header(path)),
)
