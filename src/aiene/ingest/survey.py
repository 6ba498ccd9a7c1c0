"""What lies in one place of the input: the source itself, or one sub-folder of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiene.ingest.case import Format
from aiene.ingest.recognise import claimed, recognise

_CANNOT_READ: Final = "it cannot be read"


@dataclass(frozen=True)
class Broken:
    """A file that should be an image and is none."""

    path: Path
    problem: str
    remedy: str


@dataclass(frozen=True)
class Place:
    """The files of one place, by what they are.

    Parameters
    ----------
    path : the folder, or the single file.
    images : NIfTI and NRRD files with their kind, by name.
    dicom : DICOM files.
    broken : files that are an image by name only, or cannot be opened.
    broken_dicom : the same where they would be DICOM.
    unwanted : images of a format that was not asked for.
    ignored : files that are no image.
    closed : folders that cannot be opened.
    notes : what was passed over and why.
    """

    path: Path
    images: tuple[tuple[Path, Format], ...] = ()
    dicom: tuple[Path, ...] = ()
    broken: tuple[Broken, ...] = ()
    broken_dicom: tuple[Path, ...] = ()
    unwanted: int = 0
    ignored: int = 0
    closed: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing here is, or claims to be, an image that was asked for."""
        return not (self.images or self.dicom or self.broken or self.broken_dicom)


def survey(
    path: Path,
    files: Iterable[Path],
    wanted: frozenset[Format],
    *,
    notes: Iterable[str] = (),
    closed: Iterable[Path] = (),
) -> Place:
    """Sort the files of a place by their content; the first bytes of each are read."""
    images: list[tuple[Path, Format]] = []
    dicom: list[Path] = []
    broken: list[Broken] = []
    broken_dicom: list[Path] = []
    locked: list[Path] = []
    unwanted = ignored = 0
    for file in files:
        kind, problem = _look(file)
        promised = claimed(file)
        if kind is None and promised is None:
            if problem.startswith(_CANNOT_READ):
                locked.append(file)
            ignored += 1
        elif (kind or promised) not in wanted:
            unwanted += 1
        elif kind == "dicom":
            dicom.append(file)
        elif kind is not None:
            images.append((file, kind))
        elif promised == "dicom":
            broken_dicom.append(file)
        else:
            broken.append(Broken(file, problem, "copy the file again, or take it out"))
    if dicom:  # a slice often has no name that says so
        broken_dicom += locked
    told = [f"{file.name}: it cannot be read and was left aside" for file in locked]
    return Place(
        path,
        tuple(images),
        tuple(dicom),
        tuple(broken),
        tuple(broken_dicom),
        unwanted,
        ignored,
        tuple(closed),
        (*notes, *told),
    )


def _look(file: Path) -> tuple[Format | None, str]:
    """The kind of image, and what is wrong where a file that should be one is none."""
    try:
        return recognise(file), "it holds no image of the kind that its name promises"
    except OSError as error:
        return None, f"{_CANNOT_READ} ({error.strerror or 'input/output error'})"
