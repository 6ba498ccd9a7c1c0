"""What is pushed: the DICOM files of a run, and what became of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

from pydicom import dcmread
from pydicom.uid import UID

from aiene.errors import InputError
from aiene.ingest.dicom.header import DAMAGED, quiet

Status = Literal["accepted", "there", "refused", "unreached"]


@dataclass(frozen=True)
class Outgoing:
    """One file.

    Parameters
    ----------
    syntax : its transfer syntax.
    sha256 : of the whole file.
    """

    file: Path
    sop_class: str
    sop_instance: str
    study: str
    series: str
    syntax: str
    sha256: str

    @property
    def kind(self) -> str:
        """Its class in words."""
        return str(UID(self.sop_class).name)


@dataclass(frozen=True)
class Delivery:
    """What became of one object.

    Parameters
    ----------
    status : `accepted`; `there`: the archive had it; `refused`: another try gives the same answer;
        `unreached`: another try may help.
    reason : one sentence where it is neither accepted nor there; a warning of the archive's where it is.
    committed : the archive's word on storage commitment; None where it gave none.
    """

    object: Outgoing
    status: Status
    reason: str = ""
    committed: bool | None = None

    @property
    def is_there(self) -> bool:
        """Whether the archive has it now."""
        return self.status in ("accepted", "there")


def read_outgoing(files: Iterable[Path]) -> list[Outgoing]:
    """The objects in files.

    Raises
    ------
    InputError : one cannot be read.
    """
    return [_read(file) for file in files]


def _read(file: Path) -> Outgoing:
    try:
        content = file.read_bytes()
        with quiet():
            head = dcmread(BytesIO(content), stop_before_pixels=True)
            return Outgoing(
                file,
                str(head.SOPClassUID),
                str(head.SOPInstanceUID),
                str(head.StudyInstanceUID),
                str(head.SeriesInstanceUID),
                str(head.file_meta.TransferSyntaxUID),
                hashlib.sha256(content).hexdigest(),
            )
    except (*DAMAGED, AttributeError) as error:
        raise InputError(file, "it is not a DICOM object that can be sent", "export the run again") from error
