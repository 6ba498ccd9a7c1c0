"""What lies in one place of the input: the source itself, one sub-folder of it, or a zip archive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiene.ingest.case import Format
from aiene.ingest.dicom.scan import Collector, Scan
from aiene.ingest.heads import Head, read_heads
from aiene.ingest.listing import Listing
from aiene.ingest.recognise import claimed, kind_of
from aiene.wording import file_name, said


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
    images : NIfTI and NRRD files with their kind, by name.
    scan : headers of the DICOM files; its damaged ones include those that are DICOM by name only.
    broken : other files that are an image by name only, or cannot be opened.
    unwanted : images of a format that was not asked for.
    ignored : files that are no image.
    closed : folders that cannot be opened.
    notes : what was passed over and why.
    warnings : what the user should look at in each case of this place.
    named_by_file : each image here is a case, whatever it is called.
    is_archive : `path` is a zip archive.
    """

    path: Path
    images: tuple[tuple[Path, Format], ...] = ()
    scan: Scan = field(default_factory=lambda: Scan(()))
    broken: tuple[Broken, ...] = ()
    unwanted: int = 0
    ignored: int = 0
    closed: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
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


def survey(listing: Listing, wanted: frozenset[Format], on_file: Callable[[], None] = lambda: None) -> Place:
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

    def __init__(self, wanted: frozenset[Format]) -> None:
        self._wanted = wanted
        self._images: list[tuple[Path, Format]] = []
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
            self._broken.append(Broken(head.path, _problem(head), "copy the file again, or take it out"))

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
                *(said("{}: it cannot be read and was left aside", file_name(f)) for f in self._locked),
            ),
            warnings=listing.warnings,
            named_by_file=listing.named_by_file,
        )


def _problem(head: Head) -> str:
    if head.error is not None:
        return f"it cannot be read ({head.error.strerror or 'input/output error'})"
    return "it holds no image of the kind that its name promises"
