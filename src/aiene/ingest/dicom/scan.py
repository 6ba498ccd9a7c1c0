"""The headers of many DICOM files, sorted into CT slices, other objects and damaged files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aiene.ingest.dicom.damage import DAMAGED
from aiene.ingest.dicom.header import Frame, Other, read_header


@dataclass(frozen=True)
class Scan:
    """What lies in a heap of DICOM files.

    Parameters
    ----------
    frames : every CT slice, localizers included, in the order of the files.
    others : objects that are no CT slice.
    damaged : files that are DICOM but cannot be read.
    """

    frames: tuple[Frame, ...]
    others: tuple[Other, ...] = ()
    damaged: tuple[Path, ...] = ()

    @property
    def studies(self) -> set[tuple[str, str, str]]:
        """Date, patient and study of everything that was read; never shown."""
        return {f.study for f in self.frames} | {o.study for o in self.others}

    @property
    def series(self) -> set[str]:
        """SeriesInstanceUID of everything that was read."""
        return {f.series_uid for f in self.frames} | {o.series_uid for o in self.others}


def scan(files: Iterable[Path]) -> Scan:
    """The headers of DICOM files; pixels are not read.

    In one thread: parsing is bound by the interpreter, and 2,000 headers take about 4 seconds.
    """
    frames: list[Frame] = []
    others: list[Other] = []
    damaged: list[Path] = []
    for path in files:
        try:
            found = read_header(path)
        except DAMAGED:
            damaged.append(path)
            continue
        if isinstance(found, Other):
            others.append(found)
        else:
            frames.extend(found)
    return Scan(tuple(frames), tuple(others), tuple(damaged))
