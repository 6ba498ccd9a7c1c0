"""What a file is, by its content: the first bytes count, its name does not."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Final

from aiene.ingest.case import Format
from aiene.ingest.dicom.header import DAMAGED, quiet, read_dataset
from aiene.ingest.file_head import Head, read_head

_HEAD: Final = 352  # a NIfTI-1 header with its extension flag; DICOM's mark ends at 132, NIfTI-2's at 12
_NAMES: Final[dict[str, Format]] = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".dcm": "dicom",
}


def recognise(path: Path) -> Format | None:
    """The kind of image that a file holds; None where it holds none that we read.

    Raises
    ------
    OSError : the file cannot be opened or read.
    """
    head = read_head(path)
    if head.error is not None:
        raise head.error
    return kind_of(head)


def kind_of(head: Head) -> Format | None:
    """The same by a file's first bytes."""
    content = head.content
    if content[128:132] == b"DICM":
        return "dicom"
    if content.startswith(b"NRRD000"):
        return "nrrd"
    if _is_nifti(content) or (content.startswith(b"\x1f\x8b") and _is_nifti(_unzipped(content))):
        return "nifti"
    return "dicom" if _is_bare_dicom(head) else None


def claimed(path: Path) -> Format | None:
    """The kind of image that a file's name promises; None where it promises none."""
    name = path.name.lower()
    return next((kind for ending, kind in _NAMES.items() if name.endswith(ending)), None)


def is_zip(head: Head) -> bool:
    """Whether a file is a zip archive, empty ones included."""
    return head.content[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def by_name(path: Path) -> bytes:
    """Sort key: the whole path in byte order, the same on every machine and in every language setting."""
    return os.fsencode(path)


def _is_nifti(head: bytes) -> bool:
    for order in ("little", "big"):
        size = int.from_bytes(head[:4], order)
        if size == 348 and head[344:348] in (b"n+1\0", b"ni1\0"):
            return True
        if size == 540 and head[4:8] in (b"n+2\0", b"ni2\0"):
            return True
    return False


def _unzipped(content: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(content, _HEAD)
    except zlib.error:
        return b""


def _is_bare_dicom(head: Head) -> bool:
    """DICOM without preamble, as old archives write it: it begins with group 0002 or 0008."""
    if head.content[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    try:
        with quiet():
            return bool(read_dataset(head, ["SOPClassUID"]).get("SOPClassUID"))
    except DAMAGED:
        return False
