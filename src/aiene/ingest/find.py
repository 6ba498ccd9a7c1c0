"""What would be processed: the cases of a file or folder, found by content and headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from aiene.errors import InputError, UsageError
from aiene.ingest.case import Case, Format, Refusal
from aiene.ingest.dicom.scan import Scan, scan
from aiene.ingest.dicom.study import find_in_scan
from aiene.ingest.naming import case_id, distinct
from aiene.ingest.recognise import by_name
from aiene.ingest.survey import Broken, Place, survey
from aiene.ingest.walk import children, holds_our_results, identity, walk

InputFormat = Literal["auto", "dicom", "nrrd", "nii", "nii.gz"]

_WANTED: Final[dict[InputFormat, frozenset[Format]]] = {
    "auto": frozenset({"dicom", "nifti", "nrrd"}),
    "dicom": frozenset({"dicom"}),
    "nrrd": frozenset({"nrrd"}),
    "nii": frozenset({"nifti"}),
    "nii.gz": frozenset({"nifti"}),
}
_GIVE: Final = "give a folder or file with a CT as DICOM, NIfTI or NRRD"


_Image = tuple[Path, Format | Broken]


class _Scanned(NamedTuple):
    place: Place
    scan: Scan


def find_cases(
    source: Path,
    *,
    format: InputFormat = "auto",  # noqa: A002 (the option's name)
    series: str | None = None,
) -> tuple[list[Case | Refusal], list[str]]:
    """The cases that lie in a file or folder; headers only.

    What a file is, its content says. DICOM files that lie in `source` itself are one case, named after it;
    each sub-folder with DICOM files at any depth is a patient, and each study of it with a CT a case of one
    series (`dicom.choose.choose` states the rule). Where all sub-folders hold different series of one and the
    same study, `source` itself is the patient. Each NIfTI or NRRD file is a case named after the file; in a
    sub-folder it is named after the sub-folder where it is the only one there, or the only one called ct.
    Names that begin with a dot, DICOMDIR and the results of earlier runs are passed over; links are followed,
    each folder once.

    Parameters
    ----------
    source : a CT, or a folder of CTs.
    format : take only this format; `nii` and `nii.gz` both take both endings. With them all .nii come first.
    series : SeriesInstanceUID to take in its study, whatever the rule says.

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
    places = _places(source, _WANTED[format])
    scanned = [_Scanned(place, _scan(place)) for place in places]
    if series is not None and not any(f.series_uid == series for s in scanned for f in s.scan.frames):
        raise UsageError(f"--series {series}: the input holds no CT series with this UID.")
    found: list[Case | Refusal] = []
    for one in _as_one_patient(source, scanned):
        found += _cases(source, one, format, series)
    if not found:
        raise _nothing(source, places, format)
    cases = distinct(found)
    return cases, _notes(cases, places)


def _places(source: Path, wanted: frozenset[Format]) -> list[Place]:
    """The source's own files first, then its sub-folders by name."""
    if not source.is_dir():
        return [survey(source, [source], wanted)]
    try:
        entries, here = children(source), identity(source)
    except OSError as error:
        raise InputError(
            source, f"it cannot be opened ({error.strerror})", "check its permissions"
        ) from error
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if entry.is_file() or (entry.is_symlink() and not entry.exists())]
    places = [survey(source, files, wanted)]
    for folder in folders:
        if holds_our_results(folder):
            places[0] = _noting(places[0], f"{folder.name}: the results of an earlier run were passed over")
            continue
        below = walk(folder, above=frozenset({here}))
        places.append(survey(folder, below.files, wanted, notes=below.notes, closed=below.closed))
    return places


def _noting(place: Place, note: str) -> Place:
    return Place(**{**place.__dict__, "notes": (*place.notes, note)})


def _scan(place: Place) -> Scan:
    found = scan(place.dicom)
    return Scan(found.frames, found.others, (*found.damaged, *place.broken_dicom))


def _as_one_patient(source: Path, scanned: list[_Scanned]) -> list[_Scanned]:
    """Sub-folders that hold different series of one study, taken together under the source's own name.

    Two sub-folders with the same series are copies for two cases, not parts of one patient.
    """
    with_dicom = [s for s in scanned if s.scan.frames or s.scan.others]
    studies = set().union(*(s.scan.studies for s in with_dicom))
    uids = [s.scan.series for s in with_dicom]
    apart = sum(len(part) for part in uids) == len(set().union(*uids))
    if len(with_dicom) < 2 or len(studies) > 1 or not next(iter(studies))[2] or not apart:
        return scanned
    together = Scan(
        tuple(f for s in with_dicom for f in s.scan.frames),
        tuple(o for s in with_dicom for o in s.scan.others),
        tuple(d for s in with_dicom for d in s.scan.damaged),
    )
    rest = [_Scanned(_without_dicom(s.place), Scan(())) if s in with_dicom else s for s in scanned]
    return [_Scanned(Place(source, dicom=tuple(f.path for f in together.frames)), together), *rest]


def _without_dicom(place: Place) -> Place:
    return Place(**{**place.__dict__, "dicom": (), "broken_dicom": ()})


def _cases(source: Path, one: _Scanned, format: InputFormat, series: str | None) -> list[Case | Refusal]:  # noqa: A002
    place, found = one.place, one.scan
    name = case_id(place.path)
    cases: list[Case | Refusal] = []
    if found.frames or found.others or found.damaged:
        cases += find_in_scan(name, place.path, found, series)
    cases += _image_cases(source, place, format)
    cases += [
        Refusal(case_id(folder), str(InputError(folder, "it cannot be opened", "check its permissions")))
        for folder in place.closed
    ]
    return cases


def _image_cases(source: Path, place: Place, format: InputFormat) -> list[Case | Refusal]:  # noqa: A002
    zipped_last = format in ("nii", "nii.gz")
    every: list[_Image] = sorted(
        [*place.images, *((broken.path, broken) for broken in place.broken)],
        key=lambda image: (zipped_last and image[0].name.lower().endswith(".gz"), by_name(image[0])),
    )
    if place.path == source:
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
    return Case(name, kind, (path,), notes=notes)


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
    if ignored:
        return InputError(source, f"none of its {ignored} files is an image that can be read", _GIVE)
    return InputError(
        source, "it holds no image" if source.is_dir() else "it is no image that can be read", _GIVE
    )


def _notes(cases: Sequence[Case | Refusal], places: Sequence[Place]) -> list[str]:
    notes = [f"{case.case_id}: {note}" for case in cases if isinstance(case, Case) for note in case.notes]
    notes += [note for place in places for note in place.notes]
    notes += [
        f"{place.path.name}: no image found" for place in places[1:] if place.is_empty and not place.closed
    ]
    unwanted, ignored = sum(p.unwanted for p in places), sum(p.ignored for p in places)
    if unwanted:
        notes.append(f"{unwanted} images of another format left aside")
    if ignored:
        notes.append(f"{ignored} files that are no image left aside")
    return notes
