"""What would be processed: the cases of a file or folder, by content and headers alone, or of a list.

An input list is a CSV table that names the CTs of a run, whose they are, and their masks.

| column | what |
| --- | --- |
| `image` | a CT: a file, folder or archive; its path from the folder of the list, or from the root |
| `case_id` (or `case`) | what the case is called; empty: by the usual rule |
| `patient_id` (or `patient`) | whose CT it is |
| `date` | of the CT, YYYY-MM-DD; empty: as the DICOM header says |
| `treatment` | first day of the patient's treatment, YYYY-MM-DD |
| `mask` | its own label map, as in the folder of `--masks` |
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from aiene.csv_tables import Row, Table, plain_id, read_table
from aiene.errors import (
    InputError,
    Name,
    Said,
    TableError,
    UsageError,
    case_name,
    counted,
    file_name,
    joined,
    ours,
    said,
    uid_name,
)
from aiene.ingest.case import AffineRule, Case, Refusal, iso_date
from aiene.ingest.case_id import case_id, distinct, place_below, safe, stem
from aiene.ingest.dicom.study import find_in_scan
from aiene.ingest.discovery import Broken, Listing, Place, list_places, moved, survey, walk_inside
from aiene.ingest.formats import InputFormat, by_name, titles, wanted
from aiene.ingest.identity import APART, IdRule, Timepoint, gather, group_by_patient, named_by_rule
from aiene.ingest.read import split, unpacked

_REMEDY: Final = "give a CSV with a column image and, optionally, case_id, patient_id, date, treatment, mask"
_OTHER_NAMES: Final = {"case": "case_id", "patient": "patient_id"}
_COLUMNS: Final = ("image", "case_id", "patient_id", "date", "treatment", "mask")


@dataclass(frozen=True)
class Entry:
    """One row of an input list.

    Parameters
    ----------
    line : of the file, for messages.
    image : where the CT lies.
    shown : the same, as it is written in the list.
    case_id, patient : empty where the list does not say.
    date, treatment : YYYY-MM-DD; empty where the list does not say.
    mask : None where the list names none.
    """

    line: int
    image: Path
    shown: str
    case_id: str = ""
    patient: str = ""
    date: str = ""
    treatment: str = ""
    mask: Path | None = None


def is_input_list(source: Path) -> bool:
    """Whether an input is a list of CTs, by its name."""
    return source.suffix.lower() in (".csv", ".tsv") and source.is_file()


def read_input_list(source: Path) -> list[Entry]:
    """The rows of an input list.

    Raises
    ------
    InputError : it cannot be read, has no column `image` or no row, or a column that is none of a list's.
    TableError : every row that cannot be used, all at once: no image, a date that is none, an id or an image
        twice, a mask in some rows only.
    """
    table = read_table(source, _REMEDY)
    columns = {_OTHER_NAMES.get(name.casefold(), name.casefold()): name for name in table.columns if name}
    if "image" not in columns:
        raise InputError(source, "the column image is missing", _REMEDY)
    if len(columns) < len([name for name in table.columns if name]):
        raise InputError(source, "two of its columns mean the same", "keep case_id, or case; not both")
    if not table.rows:
        raise InputError(source, "it has no rows", _REMEDY)
    problems: list[Said] = []
    entries = [_entry(table, row, columns, problems) for row in table.rows]
    problems += _twice(source, entries)
    without = [entry.line for entry in entries if entry.mask is None]
    if without and len(without) < len(entries):
        which = joined(", ", [*without[:5], *([ours("...")] if len(without) > 5 else [])])
        problems.append(
            said("{}: no mask in line {}; give a mask for every case, or for none.", file_name(source), which)
        )
    if problems:
        raise TableError(problems)
    return entries


def _entry(table: Table, row: Row, columns: dict[str, str], problems: list[Said]) -> Entry:
    values = {name: row.values[columns[name]] for name in _COLUMNS if name in columns}
    here = said("{}, line {}", file_name(table.file), row.line)
    if not values["image"]:
        problems.append(said("{}: image is empty; name the CT, or remove the row.", here))
    days = {}
    for name in ("date", "treatment"):
        written = values.get(name, "")
        days[name] = iso_date(written)
        if written and not days[name]:
            template = "{}: {} is '{}'; write it as YYYY-MM-DD."
            problems.append(said(template, here, ours(name), case_name(written)))
    folder = table.file.resolve().parent
    mask = values.get("mask", "")
    return Entry(
        row.line,
        folder / values["image"],
        values["image"],
        plain_id(values.get("case_id", "")),
        values.get("patient_id", ""),
        days["date"],
        days["treatment"],
        folder / mask if mask else None,
    )


def _twice(source: Path, entries: list[Entry]) -> list[Said]:
    """Ids and images that stand in two rows: which of them is meant, nobody can say."""
    problems: list[Said] = []
    first: dict[tuple[str, str], int] = {}
    for entry in entries:
        for what, value in (("case_id", entry.case_id.casefold()), ("image", str(entry.image))):
            if not value or (what == "image" and not entry.shown):
                continue
            before = first.setdefault((what, value), entry.line)
            if before != entry.line:
                written = entry.case_id if what == "case_id" else entry.shown
                here = said(
                    "{}, line {}: the {} {}", file_name(source), entry.line, ours(what), Name("file", written)
                )
                problems.append(said("{} is already in line {}.", here, before))
    return problems


def listed_case(source: Path, entry: Entry, found: list[Case | Refusal] | InputError) -> Case | Refusal:
    """The case of a row, from what was found at its image: one CT, or a reason why there is none."""
    item: Case | Refusal
    if isinstance(found, InputError):
        item = Refusal(safe(entry.image.name), found.told)
    elif len(found) > 1:
        names = joined(", ", [file_name(item.source) for item in found[:3]])
        more = said("") if len(found) <= 3 else said(" and {} more", len(found) - 3)
        told = said(
            "{}, line {}: {} holds {} CTs ({}{}); list one per row.",
            file_name(source),
            entry.line,
            file_name(entry.image),
            len(found),
            names,
            more,
        )
        item = Refusal(found[0].case_id, told)
    else:
        item = found[0]
        if entry.image.is_relative_to(source.resolve().parent):  # as a folder of the same files would name it
            place = case_id(source.resolve().parent, entry.image, is_file=entry.image.is_file())
            item = replace(item, case_id=place)
    named = replace(
        item,
        case_id=safe(entry.case_id) if entry.case_id else item.case_id,
        patient=safe(entry.patient) if entry.patient else "",
        source=entry.shown,
        date=entry.date or item.date,
        treatment=entry.treatment,
    )
    return replace(named, mask=entry.mask) if isinstance(named, Case) else named


OnProgress = Callable[[int, int], None]
"""Told how many files were looked at, and of how many; called often, so it has to be quick."""

_GZIPPED_LAST: Final = ("nii", "nii.gz")
"""Words of `--format` with which the published code listed every .nii before the first .nii.gz."""

BY_PLACE: Final = IdRule()

_Image = tuple[Path, str | Broken]


def find_cases(
    source: Path,
    *,
    format: InputFormat = "auto",  # noqa: A002 (the option's name)
    series: str | None = None,
    affine: AffineRule = "auto",
    on_progress: OnProgress = lambda done, total: None,
    room: Path | None = None,
    id_rule: IdRule = BY_PLACE,
    timepoint: Timepoint = "auto",
) -> tuple[list[Case | Refusal], list[Said]]:
    """The cases that lie in a file or folder, or that a list names; headers only, each file opened once.

    What a file is, its content says. Each study with a CT is a case of one series (`dicom.study.choose`
    states the rule); `case_id.case_id` names it after its folder. Where all sub-folders hold different series
    of one and the same study, `source` itself is the patient; a series that was split over sub-folders is
    joined. Each file of another format is a case named after its place; in a folder below `source` where one
    alone is called ct, the others are left out. A zip archive counts as a sub-folder of its own name. A
    DICOMDIR as `source` stands for the files that it lists; elsewhere it only tells what is missing. Names
    that begin with a dot and the results of earlier runs are passed over; links are followed, each folder
    once.

    Parameters
    ----------
    source : a CT, a folder of CTs, a zip archive of either, a DICOMDIR, or an input list (`input_list`).
    format : take only this format; `nii` and `nii.gz` both take both endings. With them all .nii come first.
    series : SeriesInstanceUID to take in its study, whatever the rule says.
    affine : which statement of a NIfTI header counts; `auto` takes the sform and refuses a conflict.
    on_progress : see `OnProgress`.
    room : where zip archives are unpacked while they are looked at; see `read.unpacked`.
    id_rule : what the cases are called; see `identity.IdRule`.
    timepoint : which CT of a patient counts; see `identity.group_by_patient`.

    Returns
    -------
    The cases in a fixed order, with what cannot be one as a `Refusal`; and notes of what was left out.

    Raises
    ------
    InputError : `source` is not there, cannot be opened, or holds nothing that is an image.
    TableError : rows of an input list cannot be used.
    UsageError : `series` is nowhere in the input, or there is no such format.
    """
    if not source.exists():
        raise InputError(source, "it does not exist", _give())
    search = _Search(format, series, room, on_progress)
    found, notes = search.listed(source) if is_input_list(source) else search.found(source)
    named = _copies_told(distinct(named_by_rule(found, id_rule)))
    cases = [replace(c, affine=affine) if isinstance(c, Case) else c for c in named]
    cases = group_by_patient(cases, timepoint)
    return cases, [*(said("{}: {}", case_name(c.case_id), note) for c in cases for note in c.notes), *notes]


@dataclass(frozen=True)
class _Search:
    format: InputFormat
    series: str | None
    room: Path | None
    on_progress: OnProgress

    def listed(self, source: Path) -> tuple[list[Case | Refusal], list[Said]]:
        """A case for each row of an input list."""
        entries = read_input_list(source)
        alone = replace(self, on_progress=lambda _done, _total: None)
        found: list[Case | Refusal] = []
        notes: list[Said] = []
        for number, entry in enumerate(entries, 1):
            try:
                if is_input_list(entry.image):
                    raise InputError(entry.image, "it is a list again", "name a CT")
                if not entry.image.exists():
                    raise InputError(
                        entry.image, "it does not exist", said("correct line {} of the list", entry.line)
                    )
                there, told = alone.found(entry.image)
                notes += told
                found.append(listed_case(source, entry, there))
            except InputError as error:
                found.append(listed_case(source, entry, error))
            self.on_progress(number, len(entries))
        return found, notes

    def found(self, source: Path) -> tuple[list[Case | Refusal], list[Said]]:
        """The cases of a file or folder, named after their places, and what was left out."""
        surveyed = self._survey(list_places(source))
        places = gather(source, surveyed)
        if self.series is not None and not any(self.series in place.scan.series for place in places):
            raise UsageError(
                said("--series {}: the input holds no CT series with this UID.", uid_name(self.series))
            )
        found = [case for place in places for case in self._cases(source, place)]
        if not found:
            raise self._nothing(source, surveyed)
        return found, _notes(source, surveyed, places)

    def _survey(self, listings: Sequence[Listing]) -> list[Place]:
        """Every place, with the files counted; those of an archive from when it is opened."""
        asked = wanted(self.format)
        done, total = 0, sum(len(listing.files) for listing in listings)

        def tick() -> None:
            nonlocal done
            done += 1
            self.on_progress(done, total)

        places = []
        for listing in listings:
            if not listing.is_archive:
                places.append(survey(listing, asked, tick))
                continue
            try:
                with unpacked(listing.path, room=self.room) as folder:
                    inside = walk_inside(listing, folder)
                    total += len(inside.files)
                    place = moved(survey(inside, asked, tick), folder, listing.path)
                    places.append(_nested(place) if place.is_empty and place.unopened else place)
            except InputError as error:
                broken = Broken(listing.path, error.problem, error.remedy)
                places.append(Place(listing.path, broken=(broken,), is_archive=True))
        return places

    def _cases(self, source: Path, place: Place) -> list[Case | Refusal]:
        root = _root(source, place)
        cases = find_in_scan(root, place.path, place.scan, self.series) if place.has_dicom else []
        cases += self._image_cases(root, place)
        cases += [
            Refusal(
                case_id(root, folder, is_file=False),
                InputError(folder, "it cannot be opened", "check its permissions").told,
                source=place_below(root, folder),
            )
            for folder in place.closed
        ]
        return [
            replace(case, notes=(*case.notes, *place.warnings))
            if isinstance(case, Refusal)
            else replace(case, warnings=(*case.warnings, *place.warnings))
            for case in cases
        ]

    def _image_cases(self, root: Path, place: Place) -> list[Case | Refusal]:
        zipped_last = self.format in _GZIPPED_LAST
        every: list[_Image] = sorted(
            [*place.images, *((broken.path, broken) for broken in place.broken)],
            key=lambda image: (zipped_last and image[0].name.lower().endswith(".gz"), by_name(image[0])),
        )
        aside = {} if place.named_by_file else _beside_ct([path for path, _ in every])
        left = {path for paths in aside.values() for path in paths}
        return [_image_case(image, root, aside.get(image[0], [])) for image in every if image[0] not in left]

    def _nothing(self, source: Path, places: Sequence[Place]) -> InputError:
        unwanted, ignored = sum(p.unwanted for p in places), sum(p.ignored for p in places)
        if unwanted:
            template = "it holds no {} image, but {} of another format"
            return InputError(
                source, said(template, ours(self.format), unwanted), "leave --format out, or correct it"
            )
        missing = [warning for place in places for warning in place.warnings]
        if missing:
            return InputError(source, said("it contains no image, and {}", missing[0]), _give())
        if ignored and not (source.is_file() and places[0].named_by_file):
            none = (
                ours("its only file is not an")
                if ignored == 1
                else said("none of its {} files is an", ignored)
            )
            return InputError(source, said("{} image that can be read", none), _give())
        return InputError(
            source,
            "it contains no image" if source.is_dir() else "it is not an image that can be read",
            _give(),
        )


def _nested(place: Place) -> Place:
    """An archive of nothing but archives: a patient would be missed, so it is a row of its own."""
    first, others = place.unopened[0], len(place.unopened) - 1
    more = said(" and {} more", others) if others else said("")
    problem = said("it contains another archive ({}{}), which is not opened", file_name(first), more)
    return replace(place, broken=(Broken(place.path, problem, "unpack it and give what is in it"),))


def _root(source: Path, place: Place) -> Path:
    """Below which folder a place is named: an archive's own name counts, a DICOMDIR stands for its folder."""
    if not place.path.is_relative_to(source):
        return place.path
    return source.parent if place.is_archive and place.path == source else source


def _beside_ct(paths: Sequence[Path]) -> dict[Path, list[Path]]:
    """In each folder with a single image called ct, that image and the others of the folder."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        folders[path.parent].append(path)
    found: dict[Path, list[Path]] = {}
    for files in folders.values():
        called_ct = [path for path in files if _is_called_ct(path)]
        if len(called_ct) == 1:
            found[called_ct[0]] = [path for path in files if path != called_ct[0]]
    return found


def _image_case(image: _Image, root: Path, aside: Sequence[Path]) -> Case | Refusal:
    path, kind = image
    name, source = case_id(root, path, is_file=True), place_below(root, path)
    if isinstance(kind, Broken):
        return Refusal(name, InputError(path, kind.problem, kind.remedy).told, source=source)
    left_out = joined(", ", map(file_name, aside))
    notes = (said("used because it is called ct; left out: {}", left_out),) if aside else ()
    files, members = split([path])
    return Case(name, kind, files, notes=notes, members=members, source=source)


def _is_called_ct(path: Path) -> bool:
    """`ct.nii.gz`, `CT.nrrd`, `sub-01_ct.nii.gz`, `HN.001_ct.nii`."""
    return "ct" in re.split(r"[\W_]+", stem(path.name).lower())


def _copies_told(cases: Sequence[Case | Refusal]) -> list[Case | Refusal]:
    """Cases of one and the same series, each with a warning that names the others."""
    same: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case in cases:
        if isinstance(case, Case) and case.series_uid:
            same[case.study, case.series_uid].append(case.case_id)
    result: list[Case | Refusal] = []
    for case in cases:
        twins = same.get((case.study, case.series_uid or ""), []) if isinstance(case, Case) else []
        others = [name for name in twins if name != case.case_id]
        if isinstance(case, Case) and others and APART not in case.warnings:
            told = said(
                "the same series is also the case {}: a duplicate", joined(" and ", map(case_name, others))
            )
            case = replace(case, warnings=(*case.warnings, told))
        result.append(case)
    return result


def _give() -> Said:
    return said("give a folder or file with a CT as {}", titles())


def _notes(source: Path, surveyed: Sequence[Place], places: Sequence[Place]) -> list[Said]:
    notes: list[Said] = [note for place in places for note in place.notes]
    holders = {parent for place in surveyed for parent in place.path.parents}  # of archives
    notes += [
        said("{}: no image found", file_name(place.path))
        for place in surveyed
        if place.path != source and place.is_empty and not place.closed and place.path not in holders
    ]
    unwanted, ignored = sum(p.unwanted for p in surveyed), sum(p.ignored for p in surveyed)
    if unwanted:
        notes.append(said("{} of another format left out", counted(unwanted, "image")))
    if ignored:
        notes.append(said("{} left out: not an image", counted(ignored, "file")))
    return notes


@contextmanager
def source_files(source: Path) -> Iterator[tuple[Path, ...]]:
    """The files of a folder, a single file, a DICOMDIR, a zip archive or an input list, as for `find_cases`.

    Those of archives lie in temporary folders that are gone when the context is left; an archive that cannot
    be opened is passed over.

    Raises
    ------
    InputError : `source` is not there or cannot be opened.
    """
    if not source.exists():
        raise InputError(source, "it does not exist", "give a folder or file with a CT")
    listed = [e.image for e in read_input_list(source)] if is_input_list(source) else [source]
    with ExitStack() as stack:
        files: list[Path] = []
        for listing in [place for image in listed if image.exists() for place in list_places(image)]:
            files += listing.files
            if not listing.is_archive:
                continue
            try:
                folder = stack.enter_context(unpacked(listing.path))
            except InputError:
                if listing.path == source:
                    raise
                continue
            files += walk_inside(listing, folder).files
        yield tuple(files)
