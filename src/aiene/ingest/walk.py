"""Every file below a folder, in one order everywhere, without going round in circles."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiene.ingest.recognise import by_name
from aiene.wording import file_name, said

_OUR_RESULTS: Final = ("run.json", "cases.csv")

Identity = tuple[int, int]


@dataclass
class Walk:
    """What was found so far; filled while walking.

    Parameters
    ----------
    files : in byte order of their paths, names that begin with a dot and DICOMDIR left out.
    directories : files called DICOMDIR.
    notes : what was passed over and why.
    closed : folders that cannot be opened.
    """

    files: list[Path] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    closed: list[Path] = field(default_factory=list)


def children(folder: Path) -> list[Path]:
    """What lies in a folder, in byte order; names that begin with a dot left out.

    Raises
    ------
    OSError : the folder cannot be opened.
    """
    return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=by_name)


def is_directory_file(path: Path) -> bool:
    """Whether a file's name is that of the list of a DICOM medium (PS3.10 8.6)."""
    return path.name.upper().removesuffix(".") == "DICOMDIR"


def walk(folder: Path, *, above: frozenset[Identity] = frozenset()) -> Walk:
    """Every file below a folder; links to folders are followed, each folder once.

    Parameters
    ----------
    folder : where to begin.
    above : folders that a link may not lead back to.
    """
    result = Walk()
    _visit(folder, set(above), result)
    return result


def identity(path: Path) -> Identity:
    """What makes a folder the same folder under any name."""
    status = path.stat()
    return status.st_dev, status.st_ino


def holds_our_results(folder: Path) -> bool:
    """Whether a folder is what an earlier run left; its label maps are no CTs."""
    return all((folder / name).is_file() for name in _OUR_RESULTS)


def _visit(folder: Path, seen: set[Identity], result: Walk) -> None:
    try:
        here = identity(folder)
        found = children(folder)
    except OSError:
        result.closed.append(folder)
        return
    if here in seen:
        template = "{}: a link to a folder that was already looked at was passed over"
        result.notes.append(said(template, file_name(folder)))
        return
    seen.add(here)
    if holds_our_results(folder):
        result.notes.append(said("{}: the results of an earlier run were passed over", file_name(folder)))
        return
    for path in found:
        if path.is_dir():
            _visit(path, seen, result)
        elif is_directory_file(path):
            result.directories.append(path)
        elif path.is_file() or (path.is_symlink() and not os.path.exists(path)):  # noqa: PTH110 (loops too)
            result.files.append(path)
