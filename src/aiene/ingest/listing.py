"""Which files lie where in an input: by folder, DICOMDIR or zip archive; nothing is opened but lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from aiene.errors import InputError
from aiene.ingest.dicom.directory import Medium, read_directory
from aiene.ingest.dicom.header import is_directory
from aiene.ingest.heads import read_head
from aiene.ingest.recognise import is_zip
from aiene.ingest.walk import children, holds_our_results, identity, is_directory_file, walk
from aiene.wording import file_name, said

_PACKED: Final = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
_LISTED: Final = "the DICOMDIR lists {} that {} not there: the copy of the disc is not complete"


@dataclass(frozen=True)
class Listing:
    """The files of one place, not looked at yet.

    Parameters
    ----------
    path : the folder, the single file, or the zip archive.
    files : what to look at; none of an archive.
    notes : what was passed over and why.
    warnings : what the user should look at in each case of this place.
    closed : folders that cannot be opened.
    unopened : names of archives within this archive.
    is_archive : `path` is a zip file.
    named_by_file : an image here is named after its file, not after the place.
    """

    path: Path
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    closed: tuple[Path, ...] = ()
    unopened: tuple[str, ...] = ()
    is_archive: bool = False
    named_by_file: bool = False


def list_places(source: Path) -> list[Listing]:
    """The places of an input: its own files first, then its sub-folders by name; an archive is its own place.

    Raises
    ------
    InputError : a folder cannot be opened, or no file that a DICOMDIR lists is there.
    """
    if not source.is_dir():
        return [_of_file(source)]
    try:
        entries, here = children(source), identity(source)
    except OSError as error:
        raise InputError(
            source, f"it cannot be opened ({error.strerror})", "check its permissions"
        ) from error
    own = Listing(source, named_by_file=True)
    folders: list[Listing] = []
    files: list[Path] = []
    directories: list[Path] = []
    for entry in entries:
        if entry.is_dir():
            if holds_our_results(entry):
                note = said("{}: the results of an earlier run were passed over", file_name(entry))
                own = replace(own, notes=(*own.notes, note))
                continue
            below = walk(entry, above=frozenset({here}))
            listing = Listing(entry, notes=tuple(below.notes), closed=tuple(below.closed))
            folders += _with_files(listing, below.files, below.directories)
        elif is_directory_file(entry):
            directories.append(entry)
        elif entry.is_file() or (entry.is_symlink() and not entry.exists()):
            files.append(entry)
    mine = _with_files(own, files, [])
    listed = [_incomplete(path) for path in directories]
    warnings = tuple(warning for warning in listed if warning)
    return [replace(one, warnings=(*one.warnings, *warnings)) for one in (*mine, *folders)]


def walk_inside(listing: Listing, folder: Path) -> Listing:
    """The files of an archive that was unpacked to a folder."""
    below = walk(folder)
    warnings = [_incomplete(path) for path in below.directories]
    nested = [file for file in below.files if _is_archive(file)]
    template = "{}: a zip archive within {} was not opened"
    notes = [said(template, file_name(file), file_name(listing.path)) for file in nested]
    return replace(
        listing,
        files=tuple(file for file in below.files if file not in nested),
        notes=(*listing.notes, *below.notes, *notes),
        warnings=(*listing.warnings, *(w for w in warnings if w)),
        unopened=tuple(file.name for file in nested),
    )


def _of_file(source: Path) -> Listing:
    head = read_head(source)
    if is_zip(head) or _is_archive(source):
        return Listing(source, is_archive=True)
    if source.name.lower().endswith(_PACKED):
        raise InputError(source, "an archive of this kind is not opened", "unpack it, or make a zip of it")
    if not is_directory_file(source) and not is_directory(head):
        return Listing(source, (source,), named_by_file=True)
    folder = source.resolve().parent
    try:
        medium = read_directory(source)
    except InputError:
        below = walk(folder)
        template = "{}: it cannot be read as a DICOMDIR, so every file of its folder was looked at"
        note = said(template, file_name(source))
        return Listing(folder, tuple(below.files), notes=(note, *below.notes), closed=tuple(below.closed))
    if not medium.files:
        raise InputError(
            source, f"none of the {medium.missing} files that it lists is there", "copy the whole disc"
        )
    warning = _missing(medium)
    return Listing(folder, medium.files, warnings=(warning,) if warning else ())


def _with_files(listing: Listing, files: Sequence[Path], directories: Sequence[Path]) -> Iterator[Listing]:
    """A place with its files, and one more for each zip archive among them."""
    archives = [file for file in files if _is_archive(file)]
    warnings = [warning for warning in map(_incomplete, directories) if warning]
    rest = tuple(file for file in files if file not in set(archives))
    packed = [file for file in rest if file.name.lower().endswith(_PACKED)]
    notes = [said("{}: an archive of this kind is not opened; unpack it", file_name(f)) for f in packed]
    yield replace(
        listing, files=rest, warnings=(*listing.warnings, *warnings), notes=(*listing.notes, *notes)
    )
    for archive in archives:
        yield Listing(archive, is_archive=True)


def _is_archive(file: Path) -> bool:
    return file.name.lower().endswith(".zip") and file.is_file()


def _incomplete(directory: Path) -> str:
    """What to warn of where files that a DICOMDIR lists are missing; empty where all is well."""
    try:
        return _missing(read_directory(directory))
    except InputError:
        return ""  # the files are found without it


def _missing(medium: Medium) -> str:
    if not medium.missing:
        return ""
    count = medium.missing
    return _LISTED.format(*(("1 file", "is") if count == 1 else (f"{count} files", "are")))
