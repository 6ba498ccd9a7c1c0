"""The headers of many DICOM files, sorted into CT slices, other objects and damaged files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aiene.ingest.dicom.damage import DAMAGED
from aiene.ingest.dicom.header import Directory, Frame, Other, StudyKey, read_header
from aiene.ingest.heads import Head, read_heads


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
