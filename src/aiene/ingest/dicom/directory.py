"""The DICOMDIR of a disc or folder: which files it lists, and which of them are there (PS3.3 F.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pydicom

from aiene.errors import InputError
from aiene.ingest.dicom.damage import DAMAGED, quiet

_TAGS: Final = ["DirectoryRecordSequence", "ReferencedFileID"]


@dataclass(frozen=True)
class Medium:
    """What a DICOMDIR lists.

    Parameters
    ----------
    files : the listed files that are there, in the order of the list, each once.
    missing : how many others it lists.
    """

    files: tuple[Path, ...]
    missing: int


def read_directory(path: Path) -> Medium:
    """The files that a DICOMDIR lists, wherever they lie below its folder.

    Names are compared without regard to case, since discs are copied with names in lower case, and a version
    such as `;1` is left out. What a name with `..` points to does not count as listed.

    Raises
    ------
    InputError : it is no DICOMDIR that can be read.
    """
    try:
        with quiet():
            records = pydicom.dcmread(path, force=True, specific_tags=_TAGS).get("DirectoryRecordSequence")
            names = list(_names(records or []))
    except DAMAGED as error:
        raise InputError(
            path, "it cannot be read as a DICOMDIR", "give the folder in which it lies"
        ) from error
    if records is None:
        raise InputError(path, "it is no DICOMDIR", "give the folder in which it lies")
    folders = _Folders()
    found = [folders.find(path.parent, parts) for parts in names]
    there = dict.fromkeys(file for file in found if file is not None)
    return Medium(tuple(there), sum(file is None for file in found))


def _names(records: Sequence[pydicom.Dataset]) -> Iterator[tuple[str, ...]]:
    for record in records:
        name = record.get("ReferencedFileID")
        parts = [name] if isinstance(name, str) else list(name or [])
        parts = [part for said in parts for part in str(said).replace("\\", "/").split("/")]
        parts = [part.split(";")[0].strip() for part in parts]
        if parts and all(part and part.strip(".") for part in parts):
            yield tuple(parts)


class _Folders:
    """What lies in folders, by lower-case name; each is listed once."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, Path]] = {}

    def find(self, folder: Path, parts: Sequence[str]) -> Path | None:
        """The file of that name below a folder."""
        here = folder
        for part in parts:
            below = self._entries(here).get(part.lower().removesuffix("."))
            if below is None:
                return None
            here = below
        return here if here.is_file() else None

    def _entries(self, folder: Path) -> dict[str, Path]:
        if folder not in self._known:
            try:
                entries = sorted(folder.iterdir(), reverse=True)
            except OSError:
                entries = []
            self._known[folder] = {entry.name.lower().removesuffix("."): entry for entry in entries}
        return self._known[folder]
