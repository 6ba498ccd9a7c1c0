"""The DICOM files of one place to cases: each study of each patient one case, of one series."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aiene.errors import InputError
from aiene.ingest.archive import split
from aiene.ingest.case import Case, Refusal, SeriesAside
from aiene.ingest.dicom.choose import Candidate, candidates, choose, describe, unusable, why_not
from aiene.ingest.dicom.group import Group, group, what_differs
from aiene.ingest.dicom.header import Frame, StudyKey
from aiene.ingest.dicom.read import check_doubles
from aiene.ingest.dicom.scan import Scan
from aiene.ingest.limits import MIN_SLICES
from aiene.ingest.naming import case_id
from aiene.ingest.read import opened

_TOLD_NAMES = 3


def find_in_scan(name: str, where: Path, scan: Scan, series: str | None) -> list[Case | Refusal]:
    """The cases of one place, at least one of either kind unless it holds DICOMDIRs alone.

    Parameters
    ----------
    name : case id of all of them; told apart later. Several patients in folders of their own take the names
        of these.
    where : the folder or file, named in messages.
    scan : its headers.
    series : SeriesInstanceUID to take where it is there, whatever the rule says.
    """
    studies: dict[StudyKey, list[Frame]] = defaultdict(list)
    for frame in scan.frames:
        studies[frame.study_key].append(frame)
    names = _names(name, where, studies)
    found: list[Case | Refusal] = []
    unused: list[SeriesAside] = []
    found += _torn_studies(where, studies, names)
    for key in sorted(studies, key=lambda key: (min(f.study[0] for f in studies[key]), key)):
        every = candidates(group(studies[key]), where)
        pool = [c for c in every if c.uid == series] or [c for c in every if not unusable(c)]
        if pool:
            found.append(_case(names[key[0]], where, every, choose(pool), series))
        else:
            unused += [_left_aside(c, unusable(c) or "") for c in every]
    if not found:
        return [Refusal(name, str(_no_ct(where, scan, unused)), tuple(map(str, unused)), tuple(unused))]
    return _with_rest(found, scan, unused, len(studies))


def _torn_studies(
    where: Path, studies: dict[StudyKey, list[Frame]], names: dict[str, str]
) -> list[Case | Refusal]:
    """One row for slices of which each names a study or patient of its own; they leave `studies`."""
    torn: dict[str, list[StudyKey]] = defaultdict(list)
    for key, frames in studies.items():
        if len(frames) < MIN_SLICES and not any(Group((frame,)).is_localizer for frame in frames):
            torn[names[key[0]]].append(key)
    found: list[Case | Refusal] = []
    for name, keys in torn.items():
        if len(keys) < MIN_SLICES:
            continue
        slices = sum(len(studies.pop(key)) for key in keys)
        patients = len({patient for patient, _ in keys})
        what, uid = (
            (f"{patients} patients", "PatientID")
            if patients > 1
            else (f"{len(keys)} studies", "StudyInstanceUID")
        )
        found.append(Refusal(name, str(_torn(where, slices, what, uid))))
    return found


def _torn(where: Path, slices: int, what: str, uid: str) -> InputError:
    return InputError(
        where,
        f"its {slices} CT slices name {what}, as a faulty anonymisation leaves them",
        f"export the series again with one {uid}",
    )


def _names(name: str, where: Path, studies: dict[StudyKey, list[Frame]]) -> dict[str, str]:
    """Case id by patient: the place's name, or each patient's own folder where there are several of both."""
    folders: dict[str, set[Path]] = defaultdict(set)
    for (patient, _), frames in studies.items():
        folders[patient].update(frame.path.parent for frame in frames)
    tops = {patient: _top(every, where, _others_of(patient, folders)) for patient, every in folders.items()}
    if len(folders) < 2 or None in tops.values():
        return dict.fromkeys(folders, name)
    prefix = f"{name}_" if where.is_file() else ""  # an archive's own name stands before what is in it
    return {patient: prefix + case_id(top) for patient, top in tops.items() if top is not None}


def _others_of(patient: str, folders: dict[str, set[Path]]) -> set[Path]:
    return {folder for other, every in folders.items() if other != patient for folder in every}


def _top(folders: set[Path], where: Path, foreign: set[Path]) -> Path | None:
    """The highest folder below `where` that holds all of these and none of the foreign ones, if any."""

    def holds(top: Path, folder: Path) -> bool:
        return top == folder or top in folder.parents

    first = next(iter(folders))
    chain = [
        top for top in (first, *first.parents) if where in top.parents and all(holds(top, f) for f in folders)
    ]
    free = [top for top in chain if not any(holds(top, folder) for folder in foreign)]
    return free[-1] if free else None


def _case(
    name: str, where: Path, every: Sequence[Candidate], chosen: Candidate, series: str | None
) -> Case | Refusal:
    others = [c for c in every if c is not chosen]
    aside = tuple(_left_aside(c, why_not(c, chosen)) for c in others)
    if len(every) >= MIN_SLICES and all(len(c.group.frames) < MIN_SLICES for c in every):
        slices, series_count = sum(len(c.group.frames) for c in every), len({c.uid for c in every})
        if series_count >= MIN_SLICES:
            error = _torn(where, slices, f"{series_count} series", "SeriesInstanceUID")
            return Refusal(name, str(error), tuple(map(str, aside)), aside)
    if chosen.error is not None:
        return Refusal(name, _with_strays(str(chosen.error), every, chosen), tuple(map(str, aside)), aside)
    how = (
        "as --series asks"
        if series == chosen.uid
        else f"by the rule, of {len(every)}"
        if others
        else "the only one"
    )
    notes = [f"series {chosen.uid} taken ({how}): {describe(chosen)}", *map(str, aside)]
    paths = sorted({frame.path for frame in chosen.group.frames})
    parts = sorted({path.parent.name for path in paths})
    if len({path.parent for path in paths}) > 1:
        notes.append(f"its slices lie in {len({p.parent for p in paths})} folders: {', '.join(parts)}")
    files, members = split(paths)
    case = Case(
        case_id=name,
        kind="dicom",
        files=files,
        series_uid=chosen.uid,
        notes=tuple(notes),
        warnings=_warnings(others, chosen),
        members=members,
        aside=aside,
    )
    problem = _doubles_differ(case, chosen)
    return case if problem is None else Refusal(name, problem, tuple(map(str, aside)), aside)


def _doubles_differ(case: Case, chosen: Candidate) -> str | None:
    """Why a run would refuse slices at one place; their images are read for it, others are not."""
    if chosen.layout is None or all(len(frames) == 1 for frames in chosen.layout.places):
        return None
    try:
        with opened(case) as lying_open:
            check_doubles(lying_open)
    except InputError as error:
        return str(error)
    return None


def _left_aside(candidate: Candidate, why: str) -> SeriesAside:
    return SeriesAside(candidate.uid, len(candidate.group.frames), why)


def _warnings(others: Sequence[Candidate], chosen: Candidate) -> tuple[str, ...]:
    warnings = []
    if chosen.group.is_mixed:
        warnings.append(
            "its slices name different image types or frames of reference, but fit one stack: taken together"
        )
    astray = _strays(others, chosen)
    if astray:
        warnings.append(f"{astray}: left aside")
    lost: Counter[str] = Counter()
    for other in others:
        if other.uid == chosen.uid and not unusable(other):
            lost[what_differs(other.group, chosen.group)] += len(other.group.frames)
    warnings += [
        f"{slices} axial slices of the series do not fit its stack ({why}): left aside"
        for why, slices in sorted(lost.items())
    ]
    return tuple(warnings)


def _strays(every: Sequence[Candidate], chosen: Candidate) -> str:
    """What to say of slices astray in the chosen series; empty where there are none."""
    first = [c.group.first for c in every if c.group.astray and c.uid == chosen.uid]
    names = [f.path.name if f.frames == 1 else f"frame {f.index + 1} of {f.path.name}" for f in first]
    if not names:
        return ""
    told = ", ".join(sorted(names)[:_TOLD_NAMES])
    more = f" and {len(names) - _TOLD_NAMES} more" if len(names) > _TOLD_NAMES else ""
    say = "says" if len(names) == 1 else "say"
    return f"{told}{more} {say} no position, or one where no slice of the series can lie"


def _with_strays(reason: str, every: Sequence[Candidate], chosen: Candidate) -> str:
    astray = _strays(every, chosen)
    return reason.replace(";", f", and {astray};", 1) if astray else reason


def _with_rest(
    found: list[Case | Refusal], scan: Scan, unused: Sequence[SeriesAside], studies: int
) -> list[Case | Refusal]:
    """The first case also tells what else lay there; damaged files are told of everywhere."""
    notes = [*map(str, unused), *_others(scan)]
    warnings = [_damaged(scan)] if scan.damaged else []
    if studies > 1:
        warnings.append(f"the folder holds {studies} studies: each with a CT is a case of its own")
    result: list[Case | Refusal] = []
    for number, item in enumerate(found):
        more = tuple(notes) if number == 0 else ()
        if isinstance(item, Case):
            result.append(replace(item, notes=(*item.notes, *more), warnings=(*item.warnings, *warnings)))
            continue
        reason = item.reason.replace(";", f", and {_damaged(scan)};", 1) if scan.damaged else item.reason
        result.append(replace(item, reason=reason, notes=(*item.notes, *more)))
    return result


def _damaged(scan: Scan) -> str:
    first = min(path.name for path in scan.damaged)
    if len(scan.damaged) == 1:
        return f"the file {first} cannot be read and was left aside"
    return f"{len(scan.damaged)} files cannot be read and were left aside, {first} first"


def _others(scan: Scan) -> list[str]:
    """Objects that are no CT slice, counted by kind."""
    counts = Counter(other.kind for other in scan.others)
    return [f"left aside: {number} x {kind}" for kind, number in sorted(counts.items())]


def _no_ct(where: Path, scan: Scan, unused: Sequence[SeriesAside]) -> InputError:
    if unused:
        reasons = sorted({aside.why for aside in unused})
        return InputError(
            where,
            f"it holds no usable CT series ({', '.join(reasons)})",
            "give an axial CT, or name a series by --series",
        )
    kinds = sorted({other.kind for other in scan.others})
    if kinds:
        return InputError(where, f"it holds {' and '.join(kinds)} instead of a CT", "give the CT series")
    return InputError(where, _damaged(scan), "copy the files again")
