"""NRRD to a CT, read by one parser from header to voxels, so that nothing is opened which was not checked.

The space
    LPS, RAS and LAS are brought to LPS; any other is taken for LPS, with a warning that nobody knows which
    side is left. Without a space, `spacings` and `axis mins` count; where neither they nor space directions
    are there, the CT is refused.
The unit
    Lengths are in `space units` (of each component of origin and directions), without a space in `units` (of
    each axis); mm where none is said. A unit that is not known is refused.
The files
    A detached header may name files. It comes from a stranger: only plain files within its own folder are
    opened, links resolved, and only as many of them as the volume has parts.
"""

from __future__ import annotations

import bz2
import gzip
import math
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt

from aiene.errors import InputError, Said, file_name, joined, ours, reading, said
from aiene.geometry.grid import Grid, Volume, triple
from aiene.ingest.case import Case, NativeCt
from aiene.ingest.checks import check_memory, check_promise, check_size, check_spacing
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.formats import Format
from aiene.ingest.lattice import PIXEL_TYPES, Matrix, as_json, narrow

AGAIN: Final = "correct the header, or convert the CT again"
_MAX_HEADER: Final = 1 << 20
_END: Final = re.compile(rb"\n\r?\n")
_INTEGERS: Final = {
    "char": 1, "short": 2, "int": 4, "longlong": 8, "int8": 1, "int16": 2, "int32": 4, "int64": 8
}  # fmt: skip
_FLOATS: Final = {"float": 4, "double": 8}


@dataclass(frozen=True)
class NrrdHeader:
    """Fields by lower-case name without blanks, and where the voxels begin if they follow the header.

    Parameters
    ----------
    path : the file.
    fields : as they stand; `data file` is `datafile` here.
    listed : the lines after `data file: LIST`.
    length : bytes up to and with the blank line.
    """

    path: Path
    fields: dict[str, str] = field(repr=False)
    listed: tuple[str, ...] = field(repr=False)
    length: int

    def get(self, *names: str) -> str:
        """The first of the fields that is there; empty where none is."""
        return next((self.fields[name] for name in names if name in self.fields), "")

    def whole(self, name: str, default: int) -> int:
        """A field that holds one whole number.

        Raises
        ------
        InputError : it holds something else.
        """
        value = self.get(name)
        if not value:
            return default
        if not re.fullmatch(r"[+-]?\d{1,18}", value):
            raise InputError(self.path, said("its field {} is not a whole number", ours(repr(name))), AGAIN)
        return int(value)


def read_nrrd_header(path: Path) -> NrrdHeader:
    """The header of an .nrrd or .nhdr file.

    Raises
    ------
    InputError : the file cannot be read, its header does not end within 1 MiB, or says one thing twice.
    """
    with reading(path), path.open("rb") as file:
        head = file.read(_MAX_HEADER + 1)
    end = _END.search(head)
    if end is None and len(head) > _MAX_HEADER:
        raise InputError(path, "its header is longer than 1 MiB", AGAIN)
    length = len(head) if end is None else end.end()
    fields: dict[str, str] = {}
    lines = [line.rstrip("\r") for line in head[:length].decode("utf-8", "replace").split("\n")]
    for number, line in enumerate(lines[1:], start=2):
        name, colon, value = line.partition(":")
        if line.startswith("#") or not colon or value.startswith("="):
            continue
        name = "".join(name.lower().split())
        if name in fields:
            raise InputError(path, "a field appears twice in its header, so it is ambiguous", AGAIN)
        fields[name] = value.strip()
        if name == "datafile" and fields[name].split()[:1] == ["LIST"]:
            return NrrdHeader(path, fields, tuple(lines[number:]), length)
    return NrrdHeader(path, fields, (), length)


def sizes(header: NrrdHeader) -> tuple[int, int, int]:
    """Voxels along the axes, fastest first.

    Raises
    ------
    InputError : these are no volume's.
    """
    path, words = header.path, header.get("sizes").split()
    if not all(re.fullmatch(r"\d{1,9}", word) for word in words):
        raise InputError(path, "its sizes are not numbers", AGAIN)
    found = [int(word) for word in words]
    if len(found) < 2 or min(found) < 1:
        raise InputError(path, said("its sizes {} are not those of a volume", found), AGAIN)
    if len(found) == 2:
        raise InputError(path, "it is a single two-dimensional image", "give the whole CT volume")
    if len(found) > 3:
        raise InputError(path, said("it has {} dimensions instead of 3", len(found)), "give one CT per file")
    if header.whole("dimension", 3) != 3:
        raise InputError(path, "its dimension and its sizes contradict each other", AGAIN)
    check_size(path, found)
    return found[0], found[1], found[2]


def voxel_type(header: NrrdHeader) -> np.dtype[np.generic]:
    """The type of the stored numbers, in the file's byte order.

    Raises
    ------
    InputError : they are no plain numbers, or their byte order is not said.
    """
    named = header.get("type").lower().removesuffix("_t")
    letter, word = "i", named
    if word.startswith("unsigned"):
        letter, word = "u", word.removeprefix("unsigned").strip()
    elif word.startswith("signed"):
        word = word.removeprefix("signed").strip()
    elif word.startswith("u"):
        letter, word = "u", word[1:]
    word = word.replace("long long", "longlong").removesuffix(" int") or "int"
    bits = _INTEGERS.get(word)
    if bits is None:
        letter, bits = "f", _FLOATS.get(named)
    if bits is None:
        raise InputError(
            header.path, "its voxels are of a type other than plain numbers", "give a greyscale CT"
        )
    order = {"little": "<", "big": ">"}.get(header.get("endian").lower())
    text = header.get("encoding").lower() in ("txt", "text", "ascii")
    if order is None and bits > 1 and not text:
        raise InputError(header.path, "its byte order (endian) is not stated", AGAIN)
    return np.dtype(f"{order or '='}{letter}{bits}")


_COPY: Final = "the file is cut off or damaged: copy it again"
_BESIDE: Final = "put the voxels next to the header, and name them there without a folder"
_PATTERN: Final = re.compile(r"(.*%0?\d{0,2}d.*?)\s+(-?\d{1,9})\s+(-?\d{1,9})\s+(-?\d{1,9})(?:\s+(\d))?")
_RAW: Final = frozenset({"raw"})
_GZIP: Final = frozenset({"gz", "gzip"})
_BZIP2: Final = frozenset({"bz2", "bzip2"})
_TEXT: Final = frozenset({"txt", "text", "ascii"})
_LONGEST_NUMBER: Final = 32
"""Characters of a number in a text encoding, its blank included; more than any writer needs."""

_LONGEST_NAME: Final = 4096
_LONGEST_SKIP: Final = 64 << 20
"""Bytes that may be passed over in a compressed stream: a few of bzip2 can unfold to a terabyte."""

_LONGEST_LINE: Final = 1 << 20
_TEXT_MEMORY: Final = 12
"""How many times as much memory a voxel in digits needs while it is read."""


def data_files(header: NrrdHeader) -> tuple[Path, ...]:
    """The files with the voxels that a detached header names; none where they follow the header.

    Raises
    ------
    InputError : a file is missing, is no plain file or lies outside the header's folder, or there are not as
        many of them as the volume has parts.
    """
    named = header.get("datafile")
    if not named:
        return ()
    if len(named) > _LONGEST_NAME:
        raise InputError(header.path, "the name of its data file is too long", AGAIN)
    pattern = _PATTERN.fullmatch(named)
    if named.split()[0] == "LIST":
        words = named.split()
        names = [line for line in header.listed if line.strip()]
        _check_count(header, len(names), words[1] if len(words) == 2 else None, sound=len(words) <= 2)
        return tuple(within_folder(header.path, name.strip()) for name in names)
    if pattern is not None:
        first, last, step = (int(pattern[n]) for n in (2, 3, 4))
        count = (last - first) // step + 1 if step else 0
        _check_count(header, count, pattern[5], sound=pattern[1].count("%") == 1)
        return tuple(within_folder(header.path, pattern[1] % (first + n * step)) for n in range(count))
    return (within_folder(header.path, named),)


def read_voxels(header: NrrdHeader) -> npt.NDArray[np.generic]:
    """The stored numbers (z, y, x), in this machine's byte order.

    Raises
    ------
    InputError : as for `data_files`; the voxels are cut off, or encoded in a way that is not known.
    """
    size, dtype, files = sizes(header), voxel_type(header), data_files(header)
    count = math.prod(size)
    places = [(file, 0) for file in files] or [(header.path, header.length)]
    part = count // len(places)
    encoding = header.get("encoding").lower()
    for file, offset in places:
        if encoding in _RAW | _GZIP:
            check_promise(file, part * dtype.itemsize, offset=offset, deflated=encoding in _GZIP)
    check_memory(header.path, count)
    pieces = [_piece(header, file, offset, part, dtype) for file, offset in places]
    array = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return array.reshape(size[::-1]).astype(dtype.newbyteorder("="), copy=False)


def _check_count(header: NrrdHeader, count: int, subdim: str | None, *, sound: bool) -> None:
    size = sizes(header)
    dimension = int(subdim) if subdim and subdim.isascii() and subdim.isdigit() else len(size) - 1
    if not sound or (subdim and not subdim.isdigit()) or not 1 <= dimension <= len(size):
        raise InputError(header.path, "the names of its data files cannot be parsed", AGAIN)
    wanted = math.prod(size[dimension:])
    slabs = dimension == len(size) and 1 <= count <= size[-1] and size[-1] % count == 0
    if count != wanted and not slabs:
        raise InputError(
            header.path, said("it names {} data files for a volume of {} parts", count, wanted), AGAIN
        )


def within_folder(header: Path, name: str) -> Path:
    """A plain file in the header's folder or below; one to which a link leads out of it is outside."""
    folder = header.parent.resolve()
    away = PureWindowsPath(name)
    try:
        file = (folder / name).resolve()
        inside = not (away.drive or away.root) and "\0" not in name and file.is_relative_to(folder)
        there, plain = (file.exists(), file.is_file()) if inside else (False, False)
    except (OSError, RuntimeError, ValueError):
        inside, there, plain = True, False, False
    if not inside:
        raise InputError(header, "its data file is outside its own folder, which is not read", _BESIDE)
    if not there:
        missing = said("its data file {} is missing", file_name(name))
        raise InputError(header, missing, "put it next to the header")
    if not plain:
        raise InputError(header, said("its data file {} is not a plain file", file_name(name)), _BESIDE)
    return file


def _piece(
    header: NrrdHeader, file: Path, offset: int, count: int, dtype: np.dtype[np.generic]
) -> npt.NDArray[np.generic]:
    encoding = header.get("encoding").lower()
    lines, skip = header.whole("lineskip", 0), header.whole("byteskip", 0)
    if lines < 0 or (encoding not in _RAW and not 0 <= skip <= _LONGEST_SKIP) or skip < -1:
        raise InputError(header.path, "its line skip or byte skip is not supported", AGAIN)
    length = count * dtype.itemsize
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            for _ in range(lines):
                if not stream.readline(_LONGEST_LINE):
                    break
            if encoding in _TEXT or encoding == "hex":
                return _from_text(stream, file, count, dtype, hexadecimal=encoding == "hex")
            begin = stream.tell() + max(skip, 0)
            if encoding in _RAW:
                stream.seek(max(file.stat().st_size - length, 0) if skip == -1 else begin)
                content = stream.read(length)
            elif encoding in _GZIP:
                content = _unzipped(cast("BinaryIO", gzip.GzipFile(fileobj=stream)), skip, length)
            elif encoding in _BZIP2:
                content = _unzipped(cast("BinaryIO", bz2.BZ2File(stream)), skip, length)
            else:
                raise InputError(header.path, "the encoding of its voxels is not known", AGAIN)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise InputError(file, "it cannot be read as NRRD", _COPY) from error
    if len(content) < length:
        raise InputError(file, "it ends before its last voxel", _COPY)
    return np.frombuffer(content, dtype=dtype)


def _unzipped(stream: BinaryIO, skip: int, length: int) -> bytes:
    """Bytes of a compressed stream, after some others."""
    while skip > 0:
        passed = len(stream.read(min(skip, 1 << 20)))
        if not passed:
            return b""
        skip -= passed
    return stream.read(length)


def _from_text(
    stream: BinaryIO, file: Path, count: int, dtype: np.dtype[np.generic], *, hexadecimal: bool
) -> npt.NDArray[np.generic]:
    """Voxels that are written in digits; `ValueError` where they are none."""
    if hexadecimal:
        digits = b"".join(stream.read(4 * count * dtype.itemsize).split())[: 2 * count * dtype.itemsize]
        values: npt.NDArray[np.generic] = np.frombuffer(bytes.fromhex(digits.decode("ascii")), dtype=dtype)
    else:
        check_memory(file, count * _TEXT_MEMORY)
        text = stream.read(_LONGEST_NUMBER * count).decode("ascii").replace(",", " ")
        numbers = np.array(text.split(None, count)[:count], dtype=np.float64)
        if dtype.kind != "f" and not np.isfinite(numbers).all():
            raise InputError(file, "its voxels are not whole numbers, although its type says so", _COPY)
        values = numbers.astype(dtype)
    if values.size < count:
        raise InputError(file, "it ends before its last voxel", _COPY)
    return values


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
    known, files = header.get("space").lower() in _TO_LPS, data_files(header)
    return NativeCt(
        volume=Volume(narrow(stored), grid),
        pixel_type=PIXEL_TYPES[stored.dtype.str[1:]],
        source={
            "kind": "nrrd",
            "space": header.get("space"),
            "orientation_known": known,
            "lattice": as_json(grid.affine, grid.size),
            # of a detached header the voxels' files count too
            **({"files": 1 + len(files), "sha256": content_sha256((path, *files))} if files else {}),
        },
        warnings=() if known else (_UNKNOWN,),
    )


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
        problem = "its space directions are sheared or flat, or its origin is not a position"
        raise InputError(header.path, problem, "resample the CT onto a rectangular grid") from error


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


FORMAT: Final = Format(
    name="nrrd",
    title="NRRD",
    article="an",
    choices=("nrrd",),
    endings=(".nrrd", ".nhdr"),
    recognises=lambda head: head.content.startswith(b"NRRD000"),
    read=read_nrrd,
    detached=lambda name: True,  # the field `data file` may stand in a file of any name
    data_files=lambda path: data_files(read_nrrd_header(path)),
)
