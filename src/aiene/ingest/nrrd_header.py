"""The header of an NRRD file: its fields as they stand, and what they say of the voxels' layout."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from aiene.errors import InputError
from aiene.ingest.checks import check_size

AGAIN: Final = "correct the header, or convert the CT again"
_MAX_HEADER: Final = 1 << 20
_END: Final = re.compile(rb"\n\r?\n")
_INTEGERS: Final = {
    "char": 1,
    "short": 2,
    "int": 4,
    "longlong": 8,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
}
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
        said = self.get(name)
        if not said:
            return default
        if not re.fullmatch(r"[+-]?\d{1,18}", said):
            raise InputError(self.path, f"its field {name!r} is not a whole number", AGAIN)
        return int(said)


def read_nrrd_header(path: Path) -> NrrdHeader:
    """The header of an .nrrd or .nhdr file.

    Raises
    ------
    InputError : the file cannot be read, its header does not end within 1 MiB, or says one thing twice.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_MAX_HEADER + 1)
    except OSError as error:
        raise InputError(path, f"it cannot be read ({error.strerror})", "check its permissions") from error
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
        raise InputError(path, f"its sizes {found} are not those of a volume", AGAIN)
    if len(found) == 2:
        raise InputError(path, "it is a single two-dimensional image", "give the whole CT volume")
    if len(found) > 3:
        raise InputError(path, f"it has {len(found)} dimensions instead of 3", "give one CT per file")
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
    said = header.get("type").lower().removesuffix("_t")
    letter, word = "i", said
    if word.startswith("unsigned"):
        letter, word = "u", word.removeprefix("unsigned").strip()
    elif word.startswith("signed"):
        word = word.removeprefix("signed").strip()
    elif word.startswith("u"):
        letter, word = "u", word[1:]
    word = word.replace("long long", "longlong").removesuffix(" int") or "int"
    bits = _INTEGERS.get(word)
    if bits is None:
        letter, bits = "f", _FLOATS.get(said)
    if bits is None:
        raise InputError(
            header.path, "its voxels are of a type other than plain numbers", "give a greyscale CT"
        )
    order = {"little": "<", "big": ">"}.get(header.get("endian").lower())
    text = header.get("encoding").lower() in ("txt", "text", "ascii")
    if order is None and bits > 1 and not text:
        raise InputError(header.path, "its byte order (endian) is not stated", AGAIN)
    return np.dtype(f"{order or '='}{letter}{bits}")
