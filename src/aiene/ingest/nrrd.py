"""NRRD to a CT: SimpleITK reads, after a look at what it would pass over in silence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, NamedTuple

import SimpleITK as sitk

from aiene.errors import InputError
from aiene.geometry import Grid, Volume, grid_of
from aiene.ingest.case import Case, NativeCt
from aiene.ingest.lattice import as_json
from aiene.ingest.limits import check_memory, check_promise, check_size, check_spacing
from aiene.ingest.values import narrow
from aiene.wording import file_name, said

_MAX_HEADER: Final = 1 << 20
_BITS: Final = {
    "char": 8,
    "int8": 8,
    "short": 16,
    "int16": 16,
    "int32": 32,
    "int64": 64,
    "float": 32,
    "double": 64,
}
_PATIENT_SPACES: Final = frozenset(
    {"lps", "ras", "las", "left-posterior-superior", "right-anterior-superior", "left-anterior-superior"}
)
_AGAIN: Final = "correct the header, or convert the CT again"
_UNKNOWN: Final = (
    "the file does not say how the patient lies (no space LPS, RAS or LAS): "
    "the sides of the neck cannot be known"
)


class _Header(NamedTuple):
    """Fields by lower-case name, and how many bytes the header takes."""

    fields: dict[str, str]
    length: int

    def get(self, *names: str) -> str:
        return next((self.fields[name] for name in names if name in self.fields), "")


def read_nrrd(case: Case) -> NativeCt:
    """The CT of an NRRD case, .nrrd or a detached .nhdr; spaces LPS, RAS and LAS.

    Raises
    ------
    InputError : the data file is missing or cut off, it holds no single 3-D volume of plain numbers, or its
        geometry is absurd or sheared.
    """
    path = case.files[0]
    header = _read_header(path)
    sizes = _sizes(path, header)
    _check_data(path, header, sizes)
    check_memory(path, math.prod(sizes))
    image = _read(path)
    grid = _grid(path, image)
    known = header.get("space").lower() in _PATIENT_SPACES
    return NativeCt(
        volume=Volume(narrow(sitk.GetArrayFromImage(image)), grid),
        pixel_type=int(image.GetPixelID()),
        source={
            "kind": "nrrd",
            "space": header.get("space"),
            "orientation_known": known,
            "lattice": as_json(grid.affine, grid.size),
        },
        warnings=() if known else (_UNKNOWN,),
    )


def data_files(path: Path) -> tuple[Path, ...]:
    """The files with the voxels that a detached header names; none where they follow the header.

    Raises
    ------
    InputError : the file cannot be read or is no NRRD.
    """
    header = _read_header(path)
    named = header.get("data file", "datafile")
    if not named:
        return ()
    words = named.split()
    if words[0].upper() == "LIST":
        lines = header.get("\n").splitlines()
        return tuple(path.with_name(line.strip()) for line in lines if line.strip())
    if len(words) >= 4 and "%" in words[0]:
        first, last, step = (int(word) for word in words[1:4])
        return tuple(path.with_name(words[0] % n) for n in range(first, last + (1 if step > 0 else -1), step))
    return (path.parent / named,)


def _read_header(path: Path) -> _Header:
    try:
        with path.open("rb") as file:
            head = file.read(_MAX_HEADER)
    except OSError as error:
        raise InputError(path, f"it cannot be read ({error.strerror})", "check its permissions") from error
    ends = [at + len(blank) for blank in (b"\n\n", b"\r\n\r\n") if (at := head.find(blank)) >= 0]
    length = min(ends, default=len(head))
    fields: dict[str, str] = {}
    lines = head[:length].decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines[1:], start=2):
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[name.strip().lower()] = value.strip()
            if name.lower() in ("data file", "datafile") and value.split()[:1] == ["LIST"]:
                fields["\n"] = "\n".join(lines[number:])
                break
    return _Header(fields, length)


def _sizes(path: Path, header: _Header) -> list[int]:
    try:
        sizes = [int(word) for word in header.get("sizes").split()]
    except ValueError as error:
        raise InputError(path, "its sizes are no numbers", _AGAIN) from error
    if len(sizes) < 2 or min(sizes) < 1:
        raise InputError(path, f"its sizes {sizes} are no volume's", _AGAIN)
    if len(sizes) == 2:
        raise InputError(path, "it is a single two-dimensional image", "give the whole CT volume")
    if len(sizes) > 3:
        raise InputError(path, f"it has {len(sizes)} dimensions instead of 3", "give one CT a file")
    check_size(path, sizes)
    return sizes


def _check_data(path: Path, header: _Header, sizes: list[int]) -> None:
    """Refuse a data file that is missing, or too short for what the header promises."""
    try:
        files = data_files(path)
    except (ValueError, TypeError) as error:
        raise InputError(path, "the names of its data files cannot be understood", _AGAIN) from error
    for file in files:
        if not file.is_file():
            raise InputError(
                path, said("its data file {} is missing", file_name(file)), "put it beside the header"
            )
    kind = header.get("type").lower().removesuffix("_t")
    word = (
        kind.replace("unsigned", "").replace("signed", "").strip().removesuffix(" int").lstrip("u") or "int"
    )
    bits = _BITS.get({"int": "int32", "long long": "int64", "longlong": "int64"}.get(word, word))
    if bits is None:
        raise InputError(
            path, f"its voxels are of the type {kind!r} instead of plain numbers", "give a grey CT"
        )
    encoding, promised = header.get("encoding").lower(), math.prod(sizes) * bits // 8
    if len(files) > 1 or encoding not in ("raw", "gz", "gzip"):
        return
    check_promise(
        files[0] if files else path,
        promised,
        offset=0 if files else header.length,
        deflated=encoding != "raw",
    )


def _read(path: Path) -> sitk.Image:
    talks = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.SetImageIO("NrrdImageIO")
        return reader.Execute()
    except RuntimeError as error:
        if "orthonormal" in str(error).lower() or "determinant" in str(error).lower():
            raise InputError(
                path, "its space directions are sheared or flat", "resample the CT onto a rectangular grid"
            ) from error
        raise InputError(
            path, "it cannot be read as NRRD", "the file is cut off or damaged: copy it again"
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(talks)


def _grid(path: Path, image: sitk.Image) -> Grid:
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(path, "it holds no single volume of grey values", "give one CT a file")
    check_spacing(path, image.GetSpacing())
    try:
        return grid_of(image)
    except ValueError as error:
        raise InputError(
            path, "its space directions are sheared or flat", "resample the CT onto a rectangular grid"
        ) from error
