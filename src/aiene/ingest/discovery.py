"""Which files lie where in an input: by folder, DICOMDIR or zip archive; nothing is opened but lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pydicom

from aiene.errors import InputError, Said, counted, file_name, os_reason, ours, said
from aiene.hashing import disk_place
from aiene.ingest.dicom.header import DAMAGED, Scan, is_directory, quiet
from aiene.ingest.file_head import Head, read_head, read_heads
from aiene.ingest.formats import by_name, claimed, is_zip, kind_of

# Every file below a folder, in one order everywhere, without going round in circles.


_OUR_RESULTS: Final = ("run.json", "cases.csv")

Identity = tuple[int, int | str]


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


def holds_our_results(folder: Path) -> bool:
    """Whether a folder is what an earlier run left; its label maps are no CTs."""
    return all((folder / name).is_file() for name in _OUR_RESULTS)


def _skipped(folder: Path) -> Said:
    return said("{}: the results of an earlier run were skipped", file_name(folder))


_PACKED: Final = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
_LISTED: Final = "the DICOMDIR lists {} that {} missing: the copy of the disc is incomplete"


@dataclass(frozen=True)
class Listing:
    """The files of one place, not looked at yet.

    Parameters
    ----------
    path : the folder, the single file, or the zip archive.
    files : what to look at, in byte order of their paths, names that begin with a dot and DICOMDIR left out;
        none of an archive.
    notes : what was skipped and why.
    warnings : what the user should look at in each case of this place.
    closed : folders that cannot be opened.
    directories : files called DICOMDIR.
    unopened : names of archives within this archive.
    is_archive : `path` is a zip file.
    named_by_file : an image here is named after its file, not after the place.
    """

    path: Path
    files: tuple[Path, ...] = ()
    notes: tuple[Said, ...] = ()
    warnings: tuple[Said, ...] = ()
    closed: tuple[Path, ...] = ()
    directories: tuple[Path, ...] = ()
    unopened: tuple[str, ...] = ()
    is_archive: bool = False
    named_by_file: bool = False


def walk(folder: Path, *, above: frozenset[Identity] = frozenset()) -> Listing:
    """Every file below a folder; links to folders are followed, each folder once.

    Parameters
    ----------
    folder : where to begin.
    above : folders that a link may not lead back to.
    """
    files: list[Path] = []
    directories: list[Path] = []
    notes: list[Said] = []
    closed: list[Path] = []
    seen = set(above)

    def visit(folder: Path) -> None:
        try:
            here = disk_place(folder)
            found = children(folder)
        except OSError:
            closed.append(folder)
            return
        if here in seen:
            template = "{}: a link to a folder that was already searched was skipped"
            notes.append(said(template, file_name(folder)))
            return
        seen.add(here)
        if holds_our_results(folder):
            notes.append(_skipped(folder))
            return
        for path in found:
            if path.is_dir():
                visit(path)
            elif is_directory_file(path):
                directories.append(path)
            elif path.is_file() or (path.is_symlink() and not os.path.exists(path)):  # noqa: PTH110 (loops too)
                files.append(path)

    visit(folder)
    return Listing(folder, tuple(files), tuple(notes), closed=tuple(closed), directories=tuple(directories))


def list_places(source: Path) -> list[Listing]:
    """The places of an input: its own files first, then its sub-folders by name; an archive is its own place.

    Raises
    ------
    InputError : a folder cannot be opened, or no file that a DICOMDIR lists is there.
    """
    if not source.is_dir():
        return [_of_file(source)]
    try:
        entries, here = children(source), disk_place(source)
    except OSError as error:
        raise InputError(
            source, said("it cannot be opened ({})", os_reason(error)), "check its permissions"
        ) from error
    own = Listing(source, named_by_file=True)
    folders: list[Listing] = []
    files: list[Path] = []
    directories: list[Path] = []
    for entry in entries:
        if entry.is_dir():
            if holds_our_results(entry):
                own = replace(own, notes=(*own.notes, _skipped(entry)))
                continue
            folders += _parted(walk(entry, above=frozenset({here})))
        elif is_directory_file(entry):
            directories.append(entry)
        elif entry.is_file() or (entry.is_symlink() and not entry.exists()):
            files.append(entry)
    mine = _parted(replace(own, files=tuple(files)))
    warnings = _incomplete(directories)
    return [replace(one, warnings=(*one.warnings, *warnings)) for one in (*mine, *folders)]


def walk_inside(listing: Listing, folder: Path) -> Listing:
    """The files of an archive that was unpacked to a folder."""
    below = walk(folder)
    nested = [file for file in below.files if _is_archive(file)]
    template = "{}: a zip archive within {} was not opened"
    notes = [said(template, file_name(file), file_name(listing.path)) for file in nested]
    return replace(
        listing,
        files=tuple(file for file in below.files if file not in nested),
        notes=(*listing.notes, *below.notes, *notes),
        warnings=(*listing.warnings, *_incomplete(below.directories)),
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
        template = "{}: it cannot be read as a DICOMDIR, so every file in its folder was searched"
        note = said(template, file_name(source))
        return replace(below, notes=(note, *below.notes))
    if not medium.files:
        raise InputError(
            source, said("none of the {} files that it lists exists", medium.missing), "copy the whole disc"
        )
    return Listing(folder, medium.files, warnings=_missing(medium))


def _parted(listing: Listing) -> Iterator[Listing]:
    """A place without the zip archives among its files, and one more for each of these."""
    archives = [file for file in listing.files if _is_archive(file)]
    rest = tuple(file for file in listing.files if file not in set(archives))
    packed = [file for file in rest if file.name.lower().endswith(_PACKED)]
    notes = [said("{}: an archive of this kind is not opened; unpack it", file_name(f)) for f in packed]
    warnings = _incomplete(listing.directories)
    yield replace(
        listing, files=rest, warnings=(*listing.warnings, *warnings), notes=(*listing.notes, *notes)
    )
    for archive in archives:
        yield Listing(archive, is_archive=True)


def _is_archive(file: Path) -> bool:
    return file.name.lower().endswith(".zip") and file.is_file()


def _incomplete(directories: Sequence[Path]) -> tuple[Said, ...]:
    """What to warn of where files that a DICOMDIR lists are missing."""
    warnings: list[Said] = []
    for directory in directories:
        with suppress(InputError):  # the files are found without it
            warnings += _missing(read_directory(directory))
    return tuple(warnings)


def _missing(medium: Medium) -> tuple[Said, ...]:
    if not medium.missing:
        return ()
    count = medium.missing
    return (said(_LISTED, counted(count, "file"), ours("is" if count == 1 else "are")),)


# The DICOMDIR of a disc or folder: which files it lists, and which of them are there (PS3.3 F.3).


_TAGS: Final = ["DirectoryRecordSequence", "ReferencedFileID"]


class Medium(NamedTuple):
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

    @cache
    def entries(folder: Path) -> dict[str, Path]:
        try:
            every = sorted(folder.iterdir(), reverse=True)
        except OSError:
            every = []
        return {entry.name.lower().removesuffix("."): entry for entry in every}

    def find(parts: Sequence[str]) -> Path | None:
        here = path.parent
        for part in parts:
            below = entries(here).get(part.lower().removesuffix("."))
            if below is None:
                return None
            here = below
        return here if here.is_file() else None

    found = list(map(find, names))
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


# What lies in one place of the input: the source itself, one sub-folder of it, or a zip archive.


@dataclass(frozen=True)
class Broken:
    """A file that should be an image and is none."""

    path: Path
    problem: str
    remedy: str


@dataclass(frozen=True)
class Place(Listing):
    """The files of one place, by what they are.

    Parameters
    ----------
    images : files that are a volume each, with the name of their format.
    scan : headers of the DICOM files; its damaged ones include those that are DICOM by name only.
    broken : other files that are an image by name only, or cannot be opened.
    unwanted : images of a format that was not asked for.
    ignored : files that are no image.
    """

    images: tuple[tuple[Path, str], ...] = ()
    scan: Scan = field(default_factory=Scan)
    broken: tuple[Broken, ...] = ()
    unwanted: int = 0
    ignored: int = 0

    @property
    def is_empty(self) -> bool:
        """Nothing here is, or claims to be, an image that was asked for."""
        return not (self.images or self.broken or self.has_dicom)

    @property
    def has_dicom(self) -> bool:
        """Something here is, or claims to be, DICOM."""
        return bool(self.scan.frames or self.scan.others or self.scan.damaged)


def survey(listing: Listing, wanted: frozenset[str], on_file: Callable[[], None] = lambda: None) -> Place:
    """Sort the files of a place by their content; each is opened once, for its header alone."""
    scan, any_dicom, unwanted, ignored = Scan(), False, 0, 0
    images: list[tuple[Path, str]] = []
    broken: list[Broken] = []
    locked: list[Path] = []
    empty: list[Path] = []
    for head in read_heads(listing.files):
        kind, promised = kind_of(head), claimed(head.path)
        if kind is None and promised is None:
            ignored += 1
            if head.error is not None:
                locked.append(head.path)
            elif not head.content and not head.path.suffix:
                empty.append(head.path)
        elif (kind or promised) not in wanted:
            unwanted += 1
        elif kind == "dicom":
            any_dicom = True
            scan.add(head)
        elif kind is not None:
            images.append((head.path, kind))
        elif promised == "dicom":
            scan.damaged.append(head.path)
        else:
            broken.append(Broken(head.path, _problem(head), "copy the file again, or remove it"))
        on_file()
    if any_dicom:  # a slice often has no name that says so
        scan.damaged += [*locked, *empty]
    notes = [said("{}: it cannot be read and was left out", file_name(f)) for f in locked]
    return Place(
        **{**vars(listing), "files": (), "notes": (*listing.notes, *notes)},
        images=tuple(images),
        scan=scan,
        broken=tuple(broken),
        unwanted=unwanted,
        ignored=ignored,
    )


def moved(place: Place, old: Path, new: Path) -> Place:
    """The same place with its paths below another folder: out of a temporary one, into an archive's own."""

    def there(path: Path) -> Path:
        return new / path.relative_to(old)

    found = place.scan
    return replace(
        place,
        images=tuple((there(path), kind) for path, kind in place.images),
        scan=Scan(
            [replace(frame, path=there(frame.path)) for frame in found.frames],
            [replace(other, path=there(other.path)) for other in found.others],
            list(map(there, found.damaged)),
            list(map(there, found.directories)),
        ),
        broken=tuple(replace(broken, path=there(broken.path)) for broken in place.broken),
        closed=tuple(map(there, place.closed)),
    )


def _problem(head: Head) -> str:
    if head.error is not None:
        return said("it cannot be read ({})", os_reason(head.error, "input/output error"))
    return "it contains no image, although its name suggests one"
