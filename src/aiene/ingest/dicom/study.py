"""The DICOM files of one place to cases: each study of each patient one case, of one series."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiene.errors import InputError, Said, file_name, joined, ours, said, uid_name
from aiene.ingest.archive import opened, split
from aiene.ingest.case import Case, Refusal, SeriesAside, iso_date
from aiene.ingest.case_id import case_id, place_below
from aiene.ingest.checks import MIN_SLICES
from aiene.ingest.dicom.header import Frame, StudyKey
from aiene.ingest.dicom.scan import Scan
from aiene.ingest.dicom.series_selection import (
    Candidate,
    candidates,
    check_doubles,
    choose,
    describe,
    unusable,
    why_not,
)
from aiene.ingest.dicom.stack import Group, group, what_differs

_SERIES_FOLDER: Final = re.compile(r"(?:s|se|ser|serie|series)[ _.-]*\d+|series[ _.-].*", re.I)
_TOLD_NAMES = 3


def find_in_scan(root: Path, where: Path, scan: Scan, series: str | None) -> list[Case | Refusal]:
    """The cases of one place, at least one of either kind unless it holds DICOMDIRs alone.

    Each is named after the folder of its study's slices (`naming.case_id`).

    Parameters
    ----------
    root : the input; or `where`, where that lies elsewhere.
    where : the folder or file, named in messages.
    scan : its headers.
    series : SeriesInstanceUID to take where it is there, whatever the rule says.
    """
    studies: dict[StudyKey, list[Frame]] = defaultdict(list)
    for frame in scan.frames:
        studies[frame.study_key].append(frame)
    found: list[Case | Refusal] = []
    unused: list[SeriesAside] = []
    found += _torn_studies(root, where, studies)
    for key in sorted(studies, key=lambda key: (min(f.study[0] for f in studies[key]), key)):
        every = candidates(group(studies[key]), where)
        pool = [c for c in every if c.uid == series] or [c for c in every if not unusable(c)]
        if pool:
            case = _case(where, every, choose(pool), series)
            found.append(
                _named(case, root, _folder_of(root, where, studies[key]), "\0".join(key), studies[key])
            )
        else:
            unused += [_left_aside(c, unusable(c) or "") for c in every]
    if not found:
        told = tuple(aside.told for aside in unused)
        refusal = Refusal("", _no_ct(where, scan, unused).told, told, tuple(unused))
        return [_named(refusal, root, where)]
    return _with_rest(found, scan, unused, len(studies))


def _named(
    item: Case | Refusal, root: Path, place: Path, study: str = "", frames: Sequence[Frame] = ()
) -> Case | Refusal:
    """Named after its place; the folder of a single series does not count, since the study may get others."""
    nested = place != root and place.parent != root and bool(frames) and _is_of_series(place.name, frames)
    name = case_id(root, place.parent if nested else place, is_file=place.is_file())
    dates = sorted({day for frame in frames if (day := iso_date(frame.study[0]))})
    return replace(
        item, case_id=name, source=place_below(root, place), study=study, date=dates[0] if dates else ""
    )


def _is_of_series(name: str, frames: Sequence[Frame]) -> bool:
    """Whether a folder's name is that of the one series in it: SE000003, its number or its description."""
    first = frames[0]
    if any(frame.series_uid != first.series_uid for frame in frames):
        return False
    plain = _letters(name)
    described = len(plain) > 2 and plain in _letters(first.words.description)
    return described or name == str(first.series_number) or _SERIES_FOLDER.fullmatch(name) is not None


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


def _folder_of(root: Path, where: Path, frames: Sequence[Frame]) -> Path:
    """The folder that holds a place's slices, without parts of a series that were joined to them.

    It is the input itself where that is a single file.
    """
    folders = {frame.path.parent for frame in frames}
    folder = Path(os.path.commonpath({f for f in folders if f.is_relative_to(where)} or folders))
    return folder if folder.is_relative_to(root) else root


def _torn_studies(root: Path, where: Path, studies: dict[StudyKey, list[Frame]]) -> list[Case | Refusal]:
    """One row for slices of which each names a study or patient of its own; they leave `studies`."""
    torn: dict[Path, list[StudyKey]] = defaultdict(list)
    for key, frames in studies.items():
        if len(frames) < MIN_SLICES and not any(Group((frame,)).is_localizer for frame in frames):
            torn[_folder_of(root, where, frames)].append(key)
    found: list[Case | Refusal] = []
    for folder, keys in torn.items():
        if len(keys) < MIN_SLICES:
            continue
        slices = sum(len(studies.pop(key)) for key in keys)
        patients = len({patient for patient, _ in keys})
        what, uid = (
            (said("{} patients", patients), ours("PatientID"))
            if patients > 1
            else (said("{} studies", len(keys)), ours("StudyInstanceUID"))
        )
        found.append(_named(Refusal("", _torn(where, slices, what, uid).told), root, folder))
    return found


def _torn(where: Path, slices: int, what: Said, uid: Said) -> InputError:
    return InputError(
        where,
        said("its {} CT slices name {}, as a faulty anonymisation leaves them", slices, what),
        said("export the series again with one {}", uid),
    )


def _case(where: Path, every: Sequence[Candidate], chosen: Candidate, series: str | None) -> Case | Refusal:
    """The case of one study, not named yet."""
    others = [c for c in every if c is not chosen]
    aside = tuple(_left_aside(c, why_not(c, chosen)) for c in others)
    if len(every) >= MIN_SLICES and all(len(c.group.frames) < MIN_SLICES for c in every):
        slices, series_count = sum(len(c.group.frames) for c in every), len({c.uid for c in every})
        if series_count >= MIN_SLICES:
            error = _torn(where, slices, said("{} series", series_count), ours("SeriesInstanceUID"))
            return Refusal("", error.told, tuple(a.told for a in aside), aside)
    if chosen.error is not None:
        reason = _with_strays(chosen.error.told, every, chosen)
        return Refusal("", reason, tuple(a.told for a in aside), aside)
    how = (
        ours("as --series asks")
        if series == chosen.uid
        else said("by the rule, of {}", len(every))
        if others
        else ours("the only one")
    )
    taken = said("series {} taken ({}): {}", uid_name(chosen.uid), how, describe(chosen))
    notes = [taken, *(a.told for a in aside)]
    paths = sorted({frame.path for frame in chosen.group.frames})
    parts = sorted({path.parent.name for path in paths})
    if len({path.parent for path in paths}) > 1:
        count = len({p.parent for p in paths})
        notes.append(said("its slices are in {} folders: {}", count, joined(", ", map(file_name, parts))))
    files, members = split(paths)
    case = Case(
        case_id="",
        kind="dicom",
        files=files,
        series_uid=chosen.uid,
        notes=tuple(notes),
        warnings=_warnings(others, chosen),
        members=members,
        aside=aside,
    )
    problem = _doubles_differ(case, chosen)
    return case if problem is None else Refusal("", problem, tuple(a.told for a in aside), aside)


def _doubles_differ(case: Case, chosen: Candidate) -> Said | None:
    """Why a run would refuse slices at one place; their images are read for it, others are not."""
    if chosen.layout is None or all(len(frames) == 1 for frames in chosen.layout.places):
        return None
    try:
        with opened(case) as lying_open:
            check_doubles(lying_open)
    except InputError as error:
        return error.told
    return None


def _left_aside(candidate: Candidate, why: str) -> SeriesAside:
    return SeriesAside(candidate.uid, len(candidate.group.frames), why)


def _warnings(others: Sequence[Candidate], chosen: Candidate) -> tuple[Said, ...]:
    warnings = []
    if chosen.group.is_mixed:
        warnings.append(
            said(
                "its slices name different image types or frames of reference, but fit one stack: taken "
                "together"
            )
        )
    astray = _strays(others, chosen)
    if astray:
        warnings.append(said("{}: left out", astray))
    lost: Counter[str] = Counter()
    for other in others:
        if other.uid == chosen.uid and not unusable(other):
            lost[what_differs(other.group, chosen.group)] += len(other.group.frames)
    warnings += [
        said("{} axial slices of the series do not fit its stack ({}): left out", slices, ours(why))
        for why, slices in sorted(lost.items())
    ]
    return tuple(warnings)


def _strays(every: Sequence[Candidate], chosen: Candidate) -> Said | None:
    """What to say of slices astray in the chosen series; None where there are none."""
    first = [c.group.first for c in every if c.group.astray and c.uid == chosen.uid]
    if not first:
        return None
    first.sort(key=lambda f: (f.path.name, f.index))
    names = [
        file_name(f.path) if f.frames == 1 else said("frame {} of {}", f.index + 1, file_name(f.path))
        for f in first[:_TOLD_NAMES]
    ]
    more = said(" and {} more", len(first) - _TOLD_NAMES) if len(first) > _TOLD_NAMES else said("")
    give = ours("gives" if len(first) == 1 else "give")
    where = "{}{} {} no position, or one that cannot belong to the series"
    return said(where, joined(", ", names), more, give)


def _with_strays(reason: Said, every: Sequence[Candidate], chosen: Candidate) -> Said:
    astray = _strays(every, chosen)
    return reason if astray is None else reason.before(";", said(", and {}", astray))


def _with_rest(
    found: list[Case | Refusal], scan: Scan, unused: Sequence[SeriesAside], studies: int
) -> list[Case | Refusal]:
    """The first case also tells what else lay there; damaged files are told of everywhere."""
    notes = [*(aside.told for aside in unused), *_others(scan)]
    warnings: list[Said] = [_damaged(scan)] if scan.damaged else []
    if studies > 1:
        warnings.append(said("the folder holds {} studies: each with a CT is a case of its own", studies))
    result: list[Case | Refusal] = []
    for number, item in enumerate(found):
        more = tuple(notes) if number == 0 else ()
        if isinstance(item, Case):
            result.append(replace(item, notes=(*item.notes, *more), warnings=(*item.warnings, *warnings)))
            continue
        reason = item.reason.before(";", said(", and {}", _damaged(scan))) if scan.damaged else item.reason
        result.append(replace(item, reason=reason, notes=(*item.notes, *more)))
    return result


def _damaged(scan: Scan) -> Said:
    first = file_name(min(path.name for path in scan.damaged))
    if len(scan.damaged) == 1:
        return said("the file {} cannot be read and was left out", first)
    return said("{} files cannot be read and were left out, {} first", len(scan.damaged), first)


def _others(scan: Scan) -> list[Said]:
    """Objects that are no CT slice, counted by kind."""
    counts = Counter(other.kind for other in scan.others)
    return [said("left out: {} x {}", number, ours(kind)) for kind, number in sorted(counts.items())]


def _no_ct(where: Path, scan: Scan, unused: Sequence[SeriesAside]) -> InputError:
    if unused:
        reasons = sorted({aside.why for aside in unused})
        return InputError(
            where,
            said("it contains no usable CT series ({})", joined(", ", map(ours, reasons))),
            "give an axial CT, or choose a series with --series",
        )
    kinds = sorted({other.kind for other in scan.others})
    if kinds:
        return InputError(
            where,
            said("it holds {} instead of a CT", joined(" and ", map(ours, kinds))),
            "give the CT series",
        )
    return InputError(where, _damaged(scan), "copy the files again")
