"""Whose CT each case is: the rule of `--id-from`, one patient's places, and which CT counts.

Places of one patient are the sub-folders of one study, and the parts of a series that was split. Two patients
are never put together, nor are copies of a series: they are cases of their own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, Literal, NamedTuple

from aiene.errors import (
    InputError,
    ProblemError,
    UsageError,
    case_name,
    counted,
    file_name,
    joined,
    library_reason,
    ours,
    said,
)
from aiene.ingest.case import Case, Refusal, iso_date
from aiene.ingest.case_id import safe
from aiene.ingest.dicom.header import Frame, Scan, StudyKey
from aiene.ingest.dicom.stack import group, lay_out
from aiene.ingest.discovery import Place

Timepoint = Literal["auto", "first", "latest"]

_NO_ID: Final = "no-id-"
"""Beginning of what stands for a PatientID that is not there (`dicom.header`)."""

_DATE: Final = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)")
_VISIT: Final = re.compile(
    r"ses-[a-z0-9]+|(?:visit|session|timepoint|tp|fu|follow-?up|week)[-_ ]?\d+|baseline|follow-?up", re.I
)
"""What tells visits of one patient apart; `ses-` is BIDS's."""
_SUBJECT: Final = re.compile(r"(?:^|.*[_\-. ])sub-[a-zA-Z0-9]+(?=_|$)")
"""An id up to BIDS's subject; a word before it may be a site's."""
_SEPARATORS: Final = "_-. "


@dataclass(frozen=True)
class IdRule:
    """How a case is named.

    Parameters
    ----------
    how : `place` after its path (`docs/decisions/0006-case-ids.md`), `folder` after one folder of it, `regex`
        after what an expression finds in it, `PatientID` after DICOM's.
    level : for `folder`, which one below the input: 1 is the first, -1 the one that holds the CT.
    pattern : for `regex`.
    """

    how: Literal["place", "folder", "regex", "PatientID"] = "place"
    level: int = 0
    pattern: re.Pattern[str] | None = None


def parse_id_rule(words: str | None) -> IdRule:
    """The rule that `--id-from` names; None is the usual one.

    Raises
    ------
    UsageError : it is neither `PatientID`, `folder:N` nor a regular expression.
    """
    if words is None:
        return IdRule()
    if words.casefold() == "patientid":
        return IdRule("PatientID")
    folder = re.fullmatch(r"folder:(-?\d+)", words.strip())
    if folder:
        level = int(folder.group(1))
        if level == 0:
            raise UsageError(
                "--id-from folder:0: folders are counted from 1 (below INPUT) or -1 (next to the CT)."
            )
        return IdRule("folder", level)
    try:
        return IdRule("regex", pattern=re.compile(words))
    except re.error as error:
        template = "--id-from {}: neither PatientID, folder:N nor a regular expression ({})."
        raise UsageError(said(template, words, library_reason(error))) from error


def named_by_rule(items: Sequence[Case | Refusal], rule: IdRule) -> list[Case | Refusal]:
    """The cases under the ids of a rule, the patient with it; what the rule does not fit becomes a refusal.

    Cases of one id are told apart by their dates where each has another one.
    """
    if rule.how == "place":
        return list(items)
    named = [_named(item, rule) for item in items]
    alike: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(named):
        alike[item.case_id.casefold()].append(number)
    for numbers in alike.values():
        dates = {named[n].date for n in numbers}
        if len(numbers) > 1 and "" not in dates and len(dates) == len(numbers):
            for n in numbers:
                named[n] = replace(named[n], case_id=f"{named[n].case_id}_{named[n].date}")
    return named


def _named(item: Case | Refusal, rule: IdRule) -> Case | Refusal:
    try:
        patient, name = _names(item, rule)
    except ProblemError as error:
        if isinstance(item, Refusal):
            return item  # it has a reason of its own
        kept = {name: getattr(item, name) for name in ("notes", "aside", "source", "study")}
        return Refusal(item.case_id, error.told, **kept)
    return replace(item, case_id=safe(name), patient=safe(patient))


def _names(item: Case | Refusal, rule: IdRule) -> tuple[str, str]:
    """Patient and case id by the rule, as they stand in the input.

    Raises
    ------
    ProblemError : the rule does not fit.
    """
    if rule.how == "PatientID":
        known = item.dicom_patient
        if not known or known.startswith(_NO_ID):
            what = ours("its DICOM header has no PatientID" if item.study else "it is not a DICOM series")
            raise ProblemError(said("--id-from PatientID: {}", what), "use another rule, or an input list")
        return known, known
    if rule.pattern is not None:
        found = rule.pattern.search(item.source)
        groups = found.groupdict() if found else {}
        name = groups.get("patient") or (
            found.group(1) if found and found.groups() else found and found.group()
        )
        if not name:
            raise ProblemError(
                said("--id-from finds nothing in {}", case_name(item.source)), "correct the expression"
            )
        return name, groups.get("case") or name
    folders = PurePosixPath(item.source).parts
    if isinstance(item, Refusal) or item.kind != "dicom":
        folders = folders[:-1]
    place = rule.level - 1 if rule.level > 0 else rule.level
    if not -len(folders) <= place < len(folders):
        raise ProblemError(
            said("--id-from folder:{}: it is in {} below INPUT", rule.level, counted(len(folders), "folder")),
            "use another rule, or an input list",
        )
    return folders[place], folders[place]


# Patients: who a case is of, as far as that can be told without guessing.


def patient_of_id(case_id: str) -> str:
    """The part of an id that stays the same at each of a patient's visits; empty where nothing tells.

    BIDS's subject, or the id without a date or visit. What remains must hold a digit: `HN_19600101` and
    `HN_19550505` may be two patients and their dates of birth, so `HN` is nobody.
    """
    subject = _SUBJECT.match(case_id)
    if subject:
        return subject.group()
    rest = _DATE.sub("\0", case_id)
    parts = re.split(rf"([{re.escape(_SEPARATORS)}])", rest)
    rest = _without_visits(rest if len(parts) == 1 else "".join(parts))
    rest = re.sub(rf"[{re.escape(_SEPARATORS)}]*\0[{re.escape(_SEPARATORS)}]*", "_", rest).strip(_SEPARATORS)
    if rest == case_id or not re.search(r"\d", rest):
        return ""
    return rest


def _without_visits(text: str) -> str:
    bounded = (
        rf"(?:(?<=^)|(?<=[{re.escape(_SEPARATORS)}\0]))(?:{_VISIT.pattern})(?=$|[{re.escape(_SEPARATORS)}\0])"
    )
    return re.sub(bounded, "\0", text, flags=re.I)


def date_in_id(case_id: str) -> str:
    """The date that stands in an id, YYYY-MM-DD; empty where there is none, or more than one."""
    found = {"-".join((m[1], m[3], m[4])) for m in _DATE.finditer(case_id)}
    return iso_date(found.pop()) if len(found) == 1 else ""


def group_by_patient(items: Sequence[Case | Refusal], timepoint: Timepoint) -> list[Case | Refusal]:
    """Every case with its patient and date, and whether it is the CT of that patient that counts.

    Cases are of one patient where the input list or `--id-from` says so, where their DICOM headers do
    (PatientID, or name and birth date), or where their ids differ by a date or visit alone. By `first` the
    earliest CT counts, by `latest` the last; `auto` takes the last that is not after the treatment, where the
    input list tells its date, else the earliest: a CT after the treatment shows other nodes. A patient with
    several CTs is told in the warnings of the one that counts.
    """
    known = [
        replace(item, date=item.date or ("" if item.study else date_in_id(item.case_id))) for item in items
    ]
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, item in enumerate(known):
        groups[_key(item)].append(number)
    taken = {item.case_id.casefold() for item in known}
    for numbers in groups.values():
        name = _name([known[n] for n in numbers], taken)
        taken.add(name.casefold())
        chosen, why = _that_counts({n: known[n] for n in numbers}, timepoint)
        for n in numbers:
            known[n] = replace(known[n], patient=name, counts=n == chosen)
        item = known[chosen]
        if len(numbers) > 1 and isinstance(item, Case):
            others = joined(", ", [case_name(known[n].case_id) for n in numbers if n != chosen])
            told = said("{} of {} CTs of one patient counts; the others: {}", ours(why), len(numbers), others)
            known[chosen] = replace(item, warnings=(*item.warnings, told))
    return known


def _key(item: Case | Refusal) -> tuple[str, str]:
    if item.patient:
        return "said", item.patient
    if item.dicom_patient:
        return "dicom", item.dicom_patient
    base = patient_of_id(item.case_id)
    return ("id", base.casefold()) if base else ("case", item.case_id)


def _name(group: Sequence[Case | Refusal], taken: set[str]) -> str:
    """What a patient is called: as was said, else by what the ids share; the first id where that is taken."""
    if group[0].patient:
        return group[0].patient
    own = {item.case_id.casefold() for item in group}
    for name in sorted({patient_of_id(item.case_id) for item in group} - {""}):
        if name.casefold() not in taken - own:
            return name
    return min(item.case_id for item in group)


def _that_counts(group: dict[int, Case | Refusal], timepoint: Timepoint) -> tuple[int, str]:
    usable = {n: item for n, item in group.items() if isinstance(item, Case)} or group
    order = sorted(usable, key=lambda n: (usable[n].date == "", usable[n].date, usable[n].case_id))
    dated = [n for n in order if usable[n].date]
    if len(dated) < len(order):
        undated = "the first by name (not every date is known)"
        return (
            (order[-1], "the last by name (not every date is known)")
            if timepoint == "latest"
            else (min(usable, key=lambda n: usable[n].case_id), undated)
        )
    if timepoint == "latest":
        return order[-1], "the latest"
    treatment = min((usable[n].treatment for n in order if usable[n].treatment), default="")
    before = [n for n in order if usable[n].date <= treatment]
    if timepoint == "auto" and before:
        return before[-1], "the latest before treatment"
    return order[0], "the earliest" if not treatment else "the earliest (all are after treatment)"


# Places of one patient: joined before their files become cases.


_Series = tuple[StudyKey, str]
_How = Literal["copies", "split", "apart"]
APART: Final = said(
    "another part of one of its series is in another folder and does not fit: the CT may be incomplete"
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
    return [together, *(replace(p, scan=Scan()) if p in with_dicom else p for p in places)]


def _union(*scans: Scan) -> Scan:
    return Scan(
        [f for s in scans for f in s.frames],
        [o for s in scans for o in s.others],
        [d for s in scans for d in s.damaged],
        [d for s in scans for d in s.directories],
    )


def _shared_series(source: Path, places: Sequence[Place]) -> dict[_Series, _Shared]:
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
    moving, staying = (
        Scan(
            [f for f in origin.scan.frames if (f.study_key == study) is moves],
            [o for o in origin.scan.others if (o.study_key == study) is moves],
        )
        for moves in (True, False)
    )
    if not moving.frames and not moving.others:  # it went with another series of the study
        return to, origin
    staying.damaged, staying.directories = origin.scan.damaged, origin.scan.directories
    template = "{}: its part of a series was joined with that of {}"
    note = said(template, file_name(origin.path), file_name(to.path))
    return (
        replace(to, scan=_union(to.scan, moving)),
        replace(origin, scan=staying, notes=(*origin.notes, note)),
    )
