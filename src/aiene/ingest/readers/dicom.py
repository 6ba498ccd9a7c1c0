"""DICOM as a volume format: by its mark, or, of old archives, by its first element."""

from __future__ import annotations

from aiene.ingest.dicom.header import DAMAGED, quiet, read_dataset
from aiene.ingest.dicom.read import read_dicom
from aiene.ingest.file_head import Head
from aiene.ingest.formats import Format


def _is_dicom(head: Head) -> bool:
    return head.content[128:132] == b"DICM" or _is_bare(head)


def _is_bare(head: Head) -> bool:
    """DICOM without preamble, as old archives write it: it begins with group 0002 or 0008."""
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
