"""The headers of many DICOM files, sorted into CT slices, other objects and damaged files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pydicom

from aiene.errors import InputError
from aiene.ingest.dicom.header import DAMAGED, Directory, Frame, Other, StudyKey, quiet, read_header
from aiene.ingest.file_head import Head, read_heads


@dataclass(frozen=True)
class Scan:
    """What lies in a heap of DICOM files.

    Parameters
    ----------
    frames : every CT slice, localizers included, in the order of the files.
    others : objects that are no CT slice.
    damaged : files that are DICOM but cannot be read.
    directories : DICOMDIRs under another name.
    """

    frames: tuple[Frame, ...]
    others: tuple[Other, ...] = ()
    damaged: tuple[Path, ...] = ()
    directories: tuple[Path, ...] = ()

    @property
    def studies(self) -> set[StudyKey]:
        """Patient and study of everything that was read; never shown."""
        return {f.study_key for f in self.frames} | {o.study_key for o in self.others}

    @property
    def series(self) -> set[str]:
        """SeriesInstanceUID of everything that was read."""
        return {f.series_uid for f in self.frames} | {o.series_uid for o in self.others}


class Collector:
    """Headers on their way to a `Scan`."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._others: list[Other] = []
        self._damaged: list[Path] = []
        self._directories: list[Path] = []

    def add(self, head: Head) -> None:
        """Sort in one file."""
        try:
            found = read_header(head)
        except DAMAGED:
            self._damaged.append(head.path)
            return
        if isinstance(found, Other):
            self._others.append(found)
        elif isinstance(found, Directory):
            self._directories.append(found.path)
        else:
            self._frames.extend(found)

    def add_damaged(self, paths: Iterable[Path]) -> None:
        """Files that are known to be damaged."""
        self._damaged.extend(paths)

    def scan(self) -> Scan:
        """What was found."""
        return Scan(tuple(self._frames), tuple(self._others), tuple(self._damaged), tuple(self._directories))


def scan(files: Iterable[Path]) -> Scan:
    """The headers of DICOM files; pixels are not read."""
    collector = Collector()
    for head in read_heads(files):
        if head.error is not None:
            collector.add_damaged([head.path])
        else:
            collector.add(head)
    return collector.scan()


# The DICOMDIR of a disc or folder: which files it lists, and which of them are there (PS3.3 F.3).


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
    InputError : it is not a DICOMDIR that can be read.
    """
    try:
        with quiet():
            records = pydicom.dcmread(path, force=True, specific_tags=_TAGS).get("DirectoryRecordSequence")
            names = list(_names(records or []))
    except DAMAGED as error:
        raise InputError(
            path, "it cannot be read as a DICOMDIR", "give the folder that contains it"
        ) from error
    if records is None:
        raise InputError(path, "it is not a DICOMDIR", "give the folder that contains it")
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
