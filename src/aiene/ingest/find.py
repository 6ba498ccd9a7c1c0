"""What would be processed: the cases of a file or folder, found by content and headers alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from aiene.errors import InputError, UsageError
from aiene.ingest.archive import split, unpacked
from aiene.ingest.case import AffineRule, Case, Format, Refusal
from aiene.ingest.dicom.study import find_in_scan
from aiene.ingest.gather import gather
from aiene.ingest.listing import Listing, list_places, walk_inside
from aiene.ingest.naming import case_id, distinct
from aiene.ingest.recognise import by_name
from aiene.ingest.survey import Broken, Place, moved, survey

InputFormat = Literal["auto", "dicom", "nrrd", "nii", "nii.gz"]
OnProgress = Callable[[int, int], None]
"""Told how many files were looked at, and of how many; called often, so it has to be quick."""

_WANTED: Final[dict[InputFormat, frozenset[Format]]] = {
    "auto": frozenset({"dicom", "nifti", "nrrd"}),
    "dicom": frozenset({"dicom"}),
    "nrrd": frozenset({"nrrd"}),
    "nii": frozenset({"nifti"}),
    "nii.gz": frozenset({"nifti"}),
}
_GIVE: Final = "give a folder or file with a CT as DICOM, NIfTI or NRRD"


_Image = tuple[Path, Format | Broken]


def find_cases(
    source: Path,
    *,
    format: InputFormat = "auto",  # noqa: A002 (the option's name)
    series: str | None = None,
    affine: AffineRule = "auto",
    on_progress: OnProgress = lambda done, total: None,
    room: Path | None = None,
) -> tuple[list[Case | Refusal], list[str]]:
    """The cases that lie in a file or folder; headers only, each file opened once.

    What a file is, its content says. DICOM files that lie in `source` itself are one case, named after it;
    each sub-folder with DICOM files at any depth is a patient, and each study of it with a CT a case of one
    series (`dicom.choose.choose` states the rule). Where a sub-folder holds several patients in folders of
    their own, cases are named after these. Where all sub-folders hold different series of one and the
    same study, `source` itself is the patient; a series that was split over sub-folders is joined. Each NIfTI
    or NRRD file is a case named after the file; in a sub-folder it is named after the sub-folder where it is
    the only one there, or the only one called ct. A zip archive counts as a sub-folder of its own name. A
    DICOMDIR as `source` stands for the files that it lists; elsewhere it only tells what is missing. Names
    that begin with a dot and the results of earlier runs are passed over; links are followed, each folder
    once.

    Parameters
    ----------
    source : a CT, a folder of CTs, a zip archive of either, or a DICOMDIR.
    format : take only this format; `nii` and `nii.gz` both take both endings. With them all .nii come first.
    series : SeriesInstanceUID to take in its study, whatever the rule says.
    affine : which statement of a NIfTI header counts; `auto` takes the sform and refuses a conflict.
    on_progress : see `OnProgress`.
    room : where zip archives are unpacked while they are looked at; see `archive.unpacked`.

    Returns
    -------
    The cases in a fixed order, with what cannot be one as a `Refusal`; and notes of what was left aside.

    Raises
    ------
    InputError : `source` is not there, cannot be opened, or holds nothing that is an image.
    UsageError : `series` is nowhere in the input.
    """
    if not source.exists():
        raise InputError(source, "it does not exist", _GIVE)
    surveyed = _survey_all(list_places(source), _WANTED[format], on_progress, room)
    places = gather(source, surveyed)
    if series is not None and not any(series in place.scan.series for place in places):
        raise UsageError(f"--series {series}: the input holds no CT series with this UID.")
    found: list[Case | Refusal] = []
    for place in places:
        found += _cases(place, format, series)
    if not found:
        raise _nothing(source, surveyed, format)
    cases = [replace(c, affine=affine) if isinstance(c, Case) else c for c in distinct(found)]
    return cases, _notes(source, cases, surveyed, places)


def _survey_all(
    listings: Sequence[Listing], wanted: frozenset[Format], on_progress: OnProgress, room: Path | None
) -> list[Place]:
    """Every place, with the files counted; those of an archive from when it is opened."""
    done, total = 0, sum(len(listing.files) for listing in listings)

    def tick() -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    places = []
    for listing in listings:
        if not listing.is_archive:
            places.append(survey(listing, wanted, tick))
            continue
        try:
            with unpacked(listing.path, room=room) as folder:
                inside = walk_inside(listing, folder)
                total += len(inside.files)
                place = moved(survey(inside, wanted, tick), folder, listing.path)
                places.append(_nested(place, inside.unopened) if place.is_empty else place)
        except InputError as error:
            places.append(Place(listing.path, broken=(Broken(listing.path, error.problem, error.remedy),)))
    return places


def _nested(place: Place, unopened: Sequence[str]) -> Place:
    """An archive of nothing but archives: a patient would be missed, so it is a row of its own."""
    if not unopened:
        return place
    more = "" if len(unopened) == 1 else f" and {len(unopened) - 1} more"
    problem = f"what it holds is again an archive ({unopened[0]}{more}), which is not opened"
    return replace(place, broken=(Broken(place.path, problem, "unpack it and give what is in it"),))


def _cases(place: Place, format: InputFormat, series: str | None) -> list[Case | Refusal]:  # noqa: A002
    name = case_id(place.path)
    cases: list[Case | Refusal] = []
    if place.has_dicom:
        cases += find_in_scan(name, place.path, place.scan, series)
    cases += _image_cases(place, format)
    cases += [
        Refusal(case_id(folder), str(InputError(folder, "it cannot be opened", "check its permissions")))
        for folder in place.closed
    ]
    return [_warned(case, place.warnings) for case in cases]


def _warned(item: Case | Refusal, warnings: tuple[str, ...]) -> Case | Refusal:
    if isinstance(item, Refusal):
        return replace(item, notes=(*item.notes, *warnings))
    return replace(item, warnings=(*item.warnings, *warnings))


def _image_cases(place: Place, format: InputFormat) -> list[Case | Refusal]:  # noqa: A002
    zipped_last = format in ("nii", "nii.gz")
    every: list[_Image] = sorted(
        [*place.images, *((broken.path, broken) for broken in place.broken)],
        key=lambda image: (zipped_last and image[0].name.lower().endswith(".gz"), by_name(image[0])),
    )
    if place.named_by_file:
        return [_image_case(image, case_id(image[0])) for image in every]
    called_ct = [image for image in every if _is_called_ct(image[0])]
    taken = called_ct if len(called_ct) == 1 else every
    if len(taken) == 1:
        aside = [image[0].name for image in every if image not in taken]
        return [_image_case(taken[0], case_id(place.path), _aside(aside))]
    return [_image_case(image, case_id(image[0])) for image in taken]


def _image_case(image: _Image, name: str, notes: tuple[str, ...] = ()) -> Case | Refusal:
    path, kind = image
    if isinstance(kind, Broken):
        return Refusal(name, str(InputError(path, kind.problem, kind.remedy)))
    files, members = split([path])
    return Case(name, kind, files, notes=notes, members=members)


def _aside(names: Sequence[str]) -> tuple[str, ...]:
    return (f"taken because it is called ct; left aside: {', '.join(names)}",) if names else ()


def _is_called_ct(path: Path) -> bool:
    """`ct.nii.gz`, `CT.nrrd`, `sub-01_ct.nii.gz`."""
    return "ct" in path.name.lower().split(".")[0].replace("-", "_").split("_")


def _nothing(source: Path, places: Sequence[Place], format: InputFormat) -> InputError:  # noqa: A002
    unwanted, ignored = sum(p.unwanted for p in places), sum(p.ignored for p in places)
    if unwanted:
        return InputError(
            source,
            f"it holds no {format} image but {unwanted} of another format",
            "leave --format out, or correct it",
        )
    missing = [warning for place in places for warning in place.warnings]
    if missing:
        return InputError(source, f"it holds no image, and {missing[0]}", _GIVE)
    if ignored and not (source.is_file() and places[0].named_by_file):
        none = "its only file is no" if ignored == 1 else f"none of its {ignored} files is an"
        return InputError(source, f"{none} image that can be read", _GIVE)
    return InputError(
        source, "it holds no image" if source.is_dir() else "it is no image that can be read", _GIVE
    )


def _notes(
    source: Path, cases: Sequence[Case | Refusal], surveyed: Sequence[Place], places: Sequence[Place]
) -> list[str]:
    notes = [f"{case.case_id}: {note}" for case in cases for note in case.notes]
    notes += [note for place in places for note in place.notes]
    holders = {parent for place in surveyed for parent in place.path.parents}  # of archives
    notes += [
        f"{place.path.name}: no image found"
        for place in surveyed
        if place.path != source and place.is_empty and not place.closed and place.path not in holders
    ]
    unwanted, ignored = sum(p.unwanted for p in surveyed), sum(p.ignored for p in surveyed)
    if unwanted:
        notes.append(f"{unwanted} images of another format left aside")
    if ignored:
        notes.append(f"{ignored} files that are no image left aside")
    return notes
