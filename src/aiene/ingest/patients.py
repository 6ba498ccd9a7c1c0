"""Which places belong to one patient: sub-folders of one study, and the parts of a series that was split.

Two patients are never put together, nor are copies of a series: they are cases of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

from aiene.errors import InputError, file_name, said
from aiene.ingest.dicom.frame import Frame, StudyKey
from aiene.ingest.dicom.scan import Scan
from aiene.ingest.dicom.stack import group, lay_out
from aiene.ingest.discovery import Place

_Series = tuple[StudyKey, str]
_How = Literal["copies", "split", "apart"]
APART: Final = (
    "another part of one of its series lies in another folder and does not fit: the CT may be incomplete"
)


class _Shared(NamedTuple):
    """A series in several places: the numbers of these, and how its parts go together."""

    places: tuple[int, ...]
    how: _How


def gather(source: Path, places: Sequence[Place]) -> list[Place]:
    """The places, with those of one patient taken together.

    Where every place with DICOM belongs to one study and none repeats a series of another, they become one
    place of the source's own name; copies too where slices lie in the source itself. Where a series lies in
    several places and its parts fit one even stack, what these places hold of its study moves to the first of
    them.
    """
    shared = _shared_series(source, places)
    with_dicom = [place for place in places if place.scan.frames or place.scan.others]
    studies = set().union(*(place.scan.studies for place in with_dicom))
    one_study = len(studies) == 1 and not next(iter(studies))[1].startswith("date ")
    is_patient = bool(places[0].scan.frames) and places[0].path == source
    disjoint = all(found.how == "split" for found in shared.values())
    if len(with_dicom) > 1 and one_study and (disjoint or is_patient):
        return _as_one(source, places, with_dicom)
    result = list(places)
    for (study, _), found in shared.items():
        first, *rest = found.places
        for later in rest if found.how == "split" else ():
            result[first], result[later] = _move(study, result[first], result[later])
        for number in found.places if found.how == "apart" else ():
            result[number] = replace(result[number], warnings=(*result[number].warnings, APART))
    return result


def _as_one(source: Path, places: Sequence[Place], with_dicom: Sequence[Place]) -> list[Place]:
    together = Place(
        source,
        scan=_union(*(place.scan for place in with_dicom)),
        warnings=tuple(dict.fromkeys(w for place in with_dicom for w in place.warnings)),
    )
    return [together, *(replace(p, scan=Scan(())) if p in with_dicom else p for p in places)]


def _union(*scans: Scan) -> Scan:
    return Scan(
        tuple(f for s in scans for f in s.frames),
        tuple(o for s in scans for o in s.others),
        tuple(d for s in scans for d in s.damaged),
        tuple(d for s in scans for d in s.directories),
    )


def _shared_series(source: Path, places: Sequence[Place]) -> dict[_Series, _Shared]:
    """The series that lie in more than one place."""
    parts: dict[_Series, dict[int, list[Frame]]] = defaultdict(lambda: defaultdict(list))
    for number, place in enumerate(places):
        for frame in place.scan.frames:
            parts[frame.study_key, frame.series_uid][number].append(frame)
    return {
        key: _Shared(tuple(found), _how(source, list(found.values())))
        for key, found in parts.items()
        if len(found) > 1 and key[1] and not key[1].startswith("no-uid-")
    }


def _how(source: Path, parts: Sequence[list[Frame]]) -> _How:
    """How the parts of a series go together."""
    images = [{(frame.sop_uid, frame.index) for frame in part} for part in parts]
    every = set().union(*images)
    if all(image == every for image in images):
        return "copies"
    whole = max(group(frame for part in parts for frame in part), key=lambda g: len(g.frames))
    try:
        layout = lay_out(whole, source)
    except InputError:
        return "apart"
    single = all(len({(f.sop_uid, f.index) for f in frames}) == 1 for frames in layout.places)
    return "split" if single and len(layout.places) > max(map(len, images)) else "apart"


def _move(study: StudyKey, to: Place, origin: Place) -> tuple[Place, Place]:
    """What one place holds of a study, moved to another."""
    moving = Scan(
        tuple(f for f in origin.scan.frames if f.study_key == study),
        tuple(o for o in origin.scan.others if o.study_key == study),
    )
    if not moving.frames and not moving.others:  # it went with another series of the study
        return to, origin
    staying = replace(
        origin.scan,
        frames=tuple(f for f in origin.scan.frames if f.study_key != study),
        others=tuple(o for o in origin.scan.others if o.study_key != study),
    )
    template = "{}: its part of a series was joined with that of {}"
    note = said(template, file_name(origin.path), file_name(to.path))
    return (
        replace(to, scan=_union(to.scan, moving)),
        replace(origin, scan=staying, notes=(*origin.notes, note)),
    )
