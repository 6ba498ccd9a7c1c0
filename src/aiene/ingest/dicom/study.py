"""The DICOM files of one place to cases: each study of each patient one case, of one series."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from aiene.errors import InputError
from aiene.ingest.case import Case, Refusal
from aiene.ingest.dicom.choose import Candidate, candidates, choose, describe, unusable, why_not
from aiene.ingest.dicom.group import group
from aiene.ingest.dicom.header import Frame
from aiene.ingest.dicom.scan import Scan


def find_in_scan(name: str, where: Path, scan: Scan, series: str | None) -> list[Case | Refusal]:
    """The cases of one place, at least one of either kind.

    Parameters
    ----------
    name : case id of all of them; told apart later.
    where : the folder or file, named in messages.
    scan : its headers.
    series : SeriesInstanceUID to take where it is there, whatever the rule says.
    """
    studies: dict[tuple[str, str, str], list[Frame]] = defaultdict(list)
    for frame in scan.frames:
        studies[frame.study].append(frame)
    found: list[Case | Refusal] = []
    unused: list[str] = []
    for key in sorted(studies):
        every = candidates(group(studies[key]), where)
        pool = [c for c in every if c.uid == series] or [c for c in every if not unusable(c)]
        if pool:
            found.append(_case(name, where, every, choose(pool), series))
        else:
            unused += [_left_aside(c, unusable(c) or "") for c in every]
    if not found:
        return [Refusal(name, str(_no_ct(where, scan, unused)))]
    return _with_rest(found, scan, unused, len(studies))


def _case(
    name: str, where: Path, every: Sequence[Candidate], chosen: Candidate, series: str | None
) -> Case | Refusal:
    if chosen.error is not None:
        return Refusal(name, str(chosen.error))
    others = [c for c in every if c is not chosen]
    how = (
        "as --series asks"
        if series == chosen.uid
        else f"by the rule, of {len(every)}"
        if others
        else "the only one"
    )
    notes = [f"series {chosen.uid} taken ({how}): {describe(chosen)}"]
    notes += [_left_aside(c, why_not(c, chosen)) for c in others]
    return Case(
        case_id=name,
        kind="dicom",
        files=tuple(sorted({frame.path for frame in chosen.group.frames})),
        series_uid=chosen.uid,
        notes=tuple(notes),
        warnings=_warnings(others, chosen),
    )


def _left_aside(candidate: Candidate, why: str) -> str:
    slices = len(candidate.group.frames)
    return f"series {candidate.uid} left aside: {why} ({slices} slice{'s' if slices > 1 else ''})"


def _warnings(others: Sequence[Candidate], chosen: Candidate) -> tuple[str, ...]:
    lost = sum(len(c.group.frames) for c in others if c.uid == chosen.uid and not unusable(c))
    if not lost:
        return ()
    return (f"{lost} axial slices of the series do not fit its stack (matrix, spacing or type): left aside",)


def _with_rest(
    found: list[Case | Refusal], scan: Scan, unused: Sequence[str], studies: int
) -> list[Case | Refusal]:
    """The first case also tells what else lay there."""
    notes = [*unused, *_others(scan)]
    warnings = [_damaged(scan)] if scan.damaged else []
    if studies > 1:
        warnings.append(f"the folder holds {studies} studies: each with a CT is a case of its own")
    result = []
    for number, item in enumerate(found):
        if isinstance(item, Case):
            more = notes if number == 0 else []
            item = Case(
                item.case_id, "dicom", item.files, item.series_uid,
                (*item.notes, *more), (*item.warnings, *warnings),
            )  # fmt: skip
        result.append(item)
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


def _no_ct(where: Path, scan: Scan, unused: Sequence[str]) -> InputError:
    if unused:
        reasons = sorted({note.split(": ", 1)[1].rsplit(" (", 1)[0] for note in unused})
        return InputError(
            where,
            f"it holds no usable CT series ({', '.join(reasons)})",
            "give an axial CT, or name a series by --series",
        )
    kinds = sorted({other.kind for other in scan.others})
    if kinds:
        return InputError(where, f"it holds {' and '.join(kinds)} instead of a CT", "give the CT series")
    return InputError(where, _damaged(scan), "copy the files again")
