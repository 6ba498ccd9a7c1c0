"""Unpacking the ZIP files of strangers: nothing outside the target, nothing endless."""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from aiene.errors import ModelError

MOST_ENTRIES = 20_000
MOST_BYTES = 8 * 1024**3
_REMEDY = "unpack it yourself, look at it, and name the folder"


def unpack(archive: Path, target: Path, wanted: Iterable[str]) -> None:
    """Unpack the files with a wanted ending, and no other, into a folder.

    Parameters
    ----------
    archive : a ZIP file.
    target : an empty folder.
    wanted : endings of file names, as `.json`.

    Raises
    ------
    ModelError : no ZIP file, a damaged or encrypted one, an entry that is a link or would lie outside the
        target, or more than `MOST_ENTRIES` entries or `MOST_BYTES` bytes.
    """
    endings = tuple(wanted)
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            _check(archive, entries)
            for entry in entries:
                if entry.filename.endswith(endings):
                    _write(opened, entry, target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(archive, "is not a ZIP file, or is damaged or encrypted", _REMEDY) from error
    except OSError as error:
        raise ModelError(archive, "cannot be unpacked", _REMEDY) from error


def _check(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise ModelError(archive, "is far too large for a model", _REMEDY)
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        outside = path.is_absolute() or ".." in path.parts or ":" in entry.filename
        if outside or stat.S_ISLNK(entry.external_attr >> 16):
            problem = "holds a link, or a file that would lie outside the folder"
            raise ModelError(archive, problem, _REMEDY)


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Copy at most the bytes that the entry announced: `zipfile` reads no further."""
    file = target.joinpath(*PurePosixPath(entry.filename.replace("\\", "/")).parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(entry) as source, file.open("wb") as sink:
        shutil.copyfileobj(source, sink)
