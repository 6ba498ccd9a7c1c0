"""Which files lie where in an input: by folder, DICOMDIR or zip archive; nothing is opened but lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from aiene.errors import InputError, Said, counted, file_name, os_reason, ours, said
from aiene.hashing import disk_place
from aiene.ingest.dicom.header import is_directory
from aiene.ingest.dicom.scan import Collector, Medium, Scan, read_directory
from aiene.ingest.file_head import Head, read_head, read_heads
from aiene.ingest.formats import by_name, claimed, is_zip, kind_of

# Every file below a folder, in one order everywhere, without going round in circles.


_OUR_RESULTS: Final = ("run.json", "cases.csv")

Identity = tuple[int, int | str]


@dataclass
class Walk:
    """What was found so far; filled while walking.

    Parameters
    ----------
    files : in byte order of their paths, names that begin with a dot and DICOMDIR left out.
    directories : files called DICOMDIR.
    notes : what was skipped and why.
    closed : folders that cannot be opened.
    """

    files: list[Path] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)
    notes: list[Said] = field(default_factory=list)
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


def holds_our_results(folder: Path) -> bool:
    """Whether a folder is what an earlier run left; its label maps are no CTs."""
    return all((folder / name).is_file() for name in _OUR_RESULTS)


def _visit(folder: Path, seen: set[Identity], result: Walk) -> None:
    try:
        here = disk_place(folder)
        found = children(folder)
    except OSError:
        result.closed.append(folder)
        return
    if here in seen:
        template = "{}: a link to a folder that was already searched was skipped"
        result.notes.append(said(template, file_name(folder)))
        return
    seen.add(here)
    if holds_our_results(folder):
        result.notes.append(said("{}: the results of an earlier run were skipped", file_name(folder)))
        return
    for path in found:
        if path.is_dir():
            _visit(path, seen, result)
        elif is_directory_file(path):
            result.directories.append(path)
        elif path.is_file() or (path.is_symlink() and not os.path.exists(path)):  # noqa: PTH110 (loops too)
            result.files.append(path)


_PACKED: Final = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
_LISTED: Final = "the DICOMDIR lists {} that {} missing: the copy of the disc is incomplete"


@dataclass(frozen=True)
class Listing:
    """The files of one place, not looked at yet.

    Parameters
    ----------
    path : the folder, the single file, or the zip archive.
    files : what to look at; none of an archive.
    notes : what was skipped and why.
    warnings : what the user should look at in each case of this place.
    closed : folders that cannot be opened.
    unopened : names of archives within this archive.
    is_archive : `path` is a zip file.
    named_by_file : an image here is named after its file, not after the place.
    """

    path: Path
    files: tuple[Path, ...] = ()
    notes: tuple[Said, ...] = ()
    warnings: tuple[Said, ...] = ()
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
                note = said("{}: the results of an earlier run were skipped", file_name(entry))
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
        template = "{}: it cannot be read as a DICOMDIR, so every file in its folder was searched"
        note = said(template, file_name(source))
        return Listing(folder, tuple(below.files), notes=(note, *below.notes), closed=tuple(below.closed))
    if not medium.files:
        raise InputError(
            source, said("none of the {} files that it lists exists", medium.missing), "copy the whole disc"
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


def _incomplete(directory: Path) -> Said | None:
    """What to warn of where files that a DICOMDIR lists are missing; None where all is well."""
    try:
        return _missing(read_directory(directory))
    except InputError:
        return None  # the files are found without it


def _missing(medium: Medium) -> Said | None:
    if not medium.missing:
        return None
    count = medium.missing
    return said(_LISTED, counted(count, "file"), ours("is" if count == 1 else "are"))


# What lies in one place of the input: the source itself, one sub-folder of it, or a zip archive.


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
    path : the folder, the single file or the zip archive.
    images : files that are a volume each, with the name of their format.
    scan : headers of the DICOM files; its damaged ones include those that are DICOM by name only.
    broken : other files that are an image by name only, or cannot be opened.
    unwanted : images of a format that was not asked for.
    ignored : files that are no image.
    closed : folders that cannot be opened.
    notes : what was skipped and why.
    warnings : what the user should look at in each case of this place.
    named_by_file : each image here is a case, whatever it is called.
    is_archive : `path` is a zip archive.
    """

    path: Path
    images: tuple[tuple[Path, str], ...] = ()
    scan: Scan = field(default_factory=lambda: Scan(()))
    broken: tuple[Broken, ...] = ()
    unwanted: int = 0
    ignored: int = 0
    closed: tuple[Path, ...] = ()
    notes: tuple[Said, ...] = ()
    warnings: tuple[Said, ...] = ()
    named_by_file: bool = False
    is_archive: bool = False

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
    sorting = _Sorting(wanted)
    for head in read_heads(listing.files):
        sorting.add(head)
        on_file()
    return sorting.place(listing)


def moved(place: Place, old: Path, new: Path) -> Place:
    """The same place with its paths below another folder: out of a temporary one, into an archive's own."""

    def there(path: Path) -> Path:
        return new / path.relative_to(old)

    found = place.scan
    return replace(
        place,
        images=tuple((there(path), kind) for path, kind in place.images),
        scan=Scan(
            tuple(replace(frame, path=there(frame.path)) for frame in found.frames),
            tuple(replace(other, path=there(other.path)) for other in found.others),
            tuple(map(there, found.damaged)),
            tuple(map(there, found.directories)),
        ),
        broken=tuple(replace(broken, path=there(broken.path)) for broken in place.broken),
        closed=tuple(map(there, place.closed)),
    )


class _Sorting:
    """Files on their way into a `Place`."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._images: list[tuple[Path, str]] = []
        self._dicom = Collector()
        self._any_dicom = False
        self._broken: list[Broken] = []
        self._locked: list[Path] = []
        self._empty: list[Path] = []
        self._unwanted = self._ignored = 0

    def add(self, head: Head) -> None:
        kind, promised = kind_of(head), claimed(head.path)
        if kind is None and promised is None:
            self._ignored += 1
            if head.error is not None:
                self._locked.append(head.path)
            elif not head.content and not head.path.suffix:
                self._empty.append(head.path)
        elif (kind or promised) not in self._wanted:
            self._unwanted += 1
        elif kind == "dicom":
            self._any_dicom = True
            self._dicom.add(head)
        elif kind is not None:
            self._images.append((head.path, kind))
        elif promised == "dicom":
            self._dicom.add_damaged([head.path])
        else:
            self._broken.append(Broken(head.path, _problem(head), "copy the file again, or remove it"))

    def place(self, listing: Listing) -> Place:
        if self._any_dicom:  # a slice often has no name that says so
            self._dicom.add_damaged([*self._locked, *self._empty])
        return Place(
            path=listing.path,
            images=tuple(self._images),
            scan=self._dicom.scan(),
            broken=tuple(self._broken),
            unwanted=self._unwanted,
            ignored=self._ignored,
            closed=listing.closed,
            notes=(
                *listing.notes,
                *(said("{}: it cannot be read and was left out", file_name(f)) for f in self._locked),
            ),
            warnings=listing.warnings,
            named_by_file=listing.named_by_file,
        )


def _problem(head: Head) -> str:
    if head.error is not None:
        return said("it cannot be read ({})", os_reason(head.error, "input/output error"))
    return "it contains no image, although its name suggests one"
