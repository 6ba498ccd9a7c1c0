"""The DICOM files of one place to cases: each study of each patient one case, of one series.

Which of several CT series is taken, and why not the others, says `choose`.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from aiene.errors import InputError, Said, file_name, joined, ours, said, uid_name
from aiene.ingest.case import Case, Refusal, SeriesAside, iso_date, place
from aiene.ingest.case_id import case_id, place_below
from aiene.ingest.checks import MIN_SLICES
from aiene.ingest.dicom.header import Frame, Scan, StudyKey, Words, scan
from aiene.ingest.dicom.pixels import check_rescale, read_stack
from aiene.ingest.dicom.stack import Group, Layout, group, is_axial, lay_out, what_differs
from aiene.ingest.read import opened, split

# What the words of a header mean for the choice of a series: kernel, contrast phase, part of the body.


class Kernel(IntEnum):
    """Reconstruction kernel; the larger, the better for lymph nodes."""

    SHARP = 0
    UNKNOWN = 1
    SOFT = 2

    @property
    def said(self) -> str:
        """In words, for notes."""
        return ("bone or lung kernel", "kernel not said", "soft kernel")[self]


class Contrast(IntEnum):
    """Contrast medium; the larger, the better for lymph nodes."""

    NONE = 0
    UNKNOWN = 1
    ARTERIAL = 2
    PRESENT = 3
    VENOUS = 4

    @property
    def said(self) -> str:
        """In words, for notes."""
        return ("no contrast", "contrast not said", "arterial contrast", "contrast", "venous contrast")[self]


class Region(IntEnum):
    """Part of the body by the header's words; the larger, the more surely the neck."""

    ELSEWHERE = 0
    UNKNOWN = 1
    NECK = 2


_SHARP_WORDS: Final = re.compile(
    r"bone|lung|knochen|lunge|sharp|edge|inner.?ear|\bos\b|osseux|hueso|pulm", re.I
)
_SOFT_WORDS: Final = re.compile(
    r"soft|stand|stnd|std|smooth|weichteil|tissue|mediast|parties molles|blanda", re.I
)
_GE_SOFT: Final = re.compile(r"^(standard|soft|std\+?|stnd|chst)\b", re.I)
_SIEMENS: Final = re.compile(r"^(?:[BHJIUTDAEFS]|[BHQ][a-z])(\d{2})", re.I)
_CANON: Final = re.compile(r"^FC(\d{2})", re.I)
_PHILIPS_SHARP: Final = re.compile(r"^(?:[DEFL]|Y[A-D]?)$", re.I)
_PHILIPS_SOFT: Final = re.compile(r"^(?:[ABC]|U[AB])$", re.I)

_WITHOUT: Final = re.compile(
    r"non.?contrast|without|w/o|unenhanced|nativ|\bnc\b|\bplain\b|\bc-(?!\w)|pre.?contrast|\bsans\b|ohne",
    re.I,
)
_VENOUS: Final = re.compile(r"\bven(?:ous|ös|oes|eux|oso)?\b|portal|\bpv\b|delay|\blate\b|\bsp[äa]t", re.I)
_ARTERIAL: Final = re.compile(r"arter|\bart\b|angio|\bcta\b", re.I)
_WITH: Final = re.compile(r"contrast|\bc\+|\+c\b|\bce\b|\bcect\b|enhanced|\bkm\b|\biv\b", re.I)
_VENOUS_FROM_SECONDS: Final = 40.0
_NO_AGENT: Final = re.compile(r"^(?:no|none|without|n|0|nein)\b", re.I)

_NECK: Final = re.compile(
    r"neck|\bhals|cervi|\bcou\b|cuello|\bcollo\b|\bh ?&? ?n\b|laryn|phary|\bhno\b|\borl\b", re.I
)
_ELSEWHERE: Final = re.compile(
    r"chest|thorax|lung|abdom|pelv|liver|knee|foot|hand\b|heart|cardiac|spine|brain|sinus|colon|leg\b", re.I
)


def kernel(words: Words) -> Kernel:
    """Soft or sharp, by the makers' names of kernels and, failing that, by the description."""
    name = words.kernel.strip("[]' ")
    if _SHARP_WORDS.search(name) or _PHILIPS_SHARP.match(name) or _is_sharp_number(name):
        return Kernel.SHARP
    if _GE_SOFT.match(name) or _PHILIPS_SOFT.match(name) or _SIEMENS.match(name) or _CANON.match(name):
        return Kernel.SOFT
    if _SOFT_WORDS.search(name) or _SOFT_WORDS.search(words.description):
        return Kernel.SOFT
    return Kernel.SHARP if _SHARP_WORDS.search(words.description) else Kernel.UNKNOWN


def contrast(words: Words) -> Contrast:
    """Phase of contrast: by the description, else by the time since the injection, else by the agent's name.

    In a neck the arteries are at their brightest at 20 to 30 seconds and the veins from 40 seconds on.
    """
    agent = words.contrast_agent
    if _WITHOUT.search(words.description) or (agent and _NO_AGENT.match(agent)):
        return Contrast.NONE
    if _VENOUS.search(words.description):
        return Contrast.VENOUS
    if _ARTERIAL.search(words.description):
        return Contrast.ARTERIAL
    if words.delay_seconds is not None:
        return Contrast.VENOUS if words.delay_seconds >= _VENOUS_FROM_SECONDS else Contrast.ARTERIAL
    if agent or _WITH.search(words.description):
        return Contrast.PRESENT
    return Contrast.UNKNOWN


def region(words: Words) -> Region:
    """Neck, elsewhere or not said; the series' own words count before those of the study."""
    for told in (words.description, words.body_part):
        if _NECK.search(told):
            return Region.NECK
        if _ELSEWHERE.search(told):
            return Region.ELSEWHERE
    return Region.UNKNOWN


def _is_sharp_number(name: str) -> bool:
    """Siemens counts from 10 (smooth) to 90; Canon's FC30s are bone, FC50s and FC80 on lung."""
    siemens, canon = _SIEMENS.match(name), _CANON.match(name)
    if canon:
        number = int(canon[1])
        return 30 <= number < 40 or 50 <= number < 60 or number >= 80
    return siemens is not None and int(siemens[1]) >= 60


NECK_MM: Final = 120.0
"""A stack that covers this much from head to foot can hold the neck from skull base to clavicles."""

_REFORMATTED: Final = (
    "MPR", "MIP", "MINIP", "REFORMATTED", "PROJECTION IMAGE", "CSA MPR", "VRT", "SSD", "3D",
)  # fmt: skip
_NO_HU: Final = ("PERFUSION", "IODINE", "EFF_Z", "ELECTRON_DENSITY", "RCBF", "RCBV", "MTT", "TTP", "MATERIAL")


@dataclass(frozen=True)
class Candidate:
    """A group of slices with its lattice, or with the error that says why it has none."""

    group: Group
    layout: Layout | None
    error: InputError | None

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.group.first.series_uid

    @property
    def height_mm(self) -> float:
        """Coverage from head to foot; 0 where there is no lattice."""
        return 0.0 if self.layout is None else self.layout.height_mm

    @property
    def spacing_mm(self) -> float:
        """Distance of neighbouring slices; infinite where there is no lattice."""
        return np.inf if self.layout is None else self.layout.spacing_mm


class _Criterion(NamedTuple):
    """One step of the rule: a rank, larger is better, and what is said of a series that loses by it."""

    rank: Callable[[Candidate], float]
    words: Callable[[Candidate], str]


def _is_derived(candidate: Candidate, kinds: Sequence[str]) -> bool:
    return any(word in kinds for word in candidate.group.first.image_type)


_RULE: Final[tuple[_Criterion, ...]] = (
    _Criterion(lambda c: not c.group.astray, lambda c: "its position cannot belong to its series"),
    _Criterion(lambda c: not c.group.is_localizer, lambda c: "a localizer"),
    _Criterion(lambda c: is_axial(c.group), lambda c: "not axial"),
    _Criterion(lambda c: not _is_derived(c, _NO_HU), lambda c: "a map, not HU"),
    _Criterion(lambda c: c.layout is not None, lambda c: c.error.problem if c.error else "no sound stack"),
    _Criterion(lambda c: not _is_derived(c, _REFORMATTED), lambda c: "reformatted"),
    _Criterion(
        lambda c: region(c.group.first.words) > Region.ELSEWHERE, lambda c: "another part of the body"
    ),
    _Criterion(lambda c: c.height_mm >= NECK_MM, lambda c: said("covers only {:.0f} mm", c.height_mm)),
    _Criterion(lambda c: region(c.group.first.words), lambda c: "not labelled as neck"),
    _Criterion(lambda c: kernel(c.group.first.words), lambda c: kernel(c.group.first.words).said),
    _Criterion(lambda c: contrast(c.group.first.words), lambda c: contrast(c.group.first.words).said),
    _Criterion(lambda c: "SECONDARY" not in c.group.first.image_type, lambda c: "secondary images"),
    _Criterion(lambda c: "ORIGINAL" in c.group.first.image_type, lambda c: "derived images"),
    _Criterion(lambda c: c.layout is not None and not c.layout.tilt_degrees, lambda c: "tilted gantry"),
    _Criterion(
        lambda c: -round(max(c.spacing_mm, 1.0), 1),
        lambda c: said("thicker slices ({:.1f} mm)", c.spacing_mm),
    ),
    _Criterion(lambda c: round(c.height_mm), lambda c: said("covers less ({:.0f} mm)", c.height_mm)),
    _Criterion(lambda c: len(c.group.frames), lambda c: "fewer slices"),
    _Criterion(lambda c: -c.group.first.series_number, lambda c: "a later series number"),
)

_MUST: Final = 4
"""How many of these a series has to fulfil; the others only rank."""


def candidates(groups: Sequence[Group], where: Path) -> list[Candidate]:
    """Each group with its lattice or its problem, in order of series UID."""
    found = [_candidate(group, where) for group in groups]
    return sorted(found, key=lambda c: (c.uid, min(str(f.path) for f in c.group.frames)))


def choose(found: Sequence[Candidate]) -> Candidate:
    """The series to take, by the first of these that tells two apart.

    No slice astray; no localizer; axial (the normal within 45 degrees of the body's axis, so a tilted gantry
    counts); HU and no map; a sound stack (no gap, no uneven spacing, at least four slices, HU known); not
    reformatted; not said to be of another part of the body; covers 120 mm or more; said to be of the neck;
    soft-tissue kernel, then unknown, then bone or lung; venous contrast, then contrast, arterial, unknown,
    none; primary; original; no gantry tilt; thin slices, down to 1 mm; coverage; number of slices; lower
    series number; last, the smaller series UID.
    """
    return min(found, key=lambda c: [-float(criterion.rank(c)) for criterion in _RULE])


def unusable(candidate: Candidate) -> str | None:
    """Why the rule may not take this series unasked: astray, scout, not axial, a map; None where it may."""
    for criterion in _RULE[:_MUST]:
        if not criterion.rank(candidate):
            return criterion.words(candidate)
    return None


def why_not(candidate: Candidate, chosen: Candidate) -> str:
    """The first point of the rule by which a series loses."""
    for criterion in _RULE:
        if criterion.rank(candidate) < criterion.rank(chosen):
            return criterion.words(candidate)
    return "the larger series UID" if candidate.uid != chosen.uid else "other slices of the same series"


def describe(candidate: Candidate) -> Said:
    """A series in a few words, none of them from the header's free text."""
    if candidate.layout is None:
        return said("{} slices", len(candidate.group.frames))
    slices, height = len(candidate.layout.places), candidate.layout.height_mm
    plane = ours("axial" if is_axial(candidate.group) else "not axial")
    return said(
        "{}, {} slices {:.2f} mm apart over {:.0f} mm, {}, {}",
        plane,
        slices,
        candidate.spacing_mm,
        height,
        ours(kernel(candidate.group.first.words).said),
        ours(contrast(candidate.group.first.words).said),
    )


def _candidate(group: Group, where: Path) -> Candidate:
    try:
        layout = lay_out(group, where)
        for frame in group.frames:
            check_rescale(frame)
        return Candidate(group, layout, None)
    except InputError as error:
        return Candidate(group, None, error)


def laid_out(case: Case) -> Layout:
    """The slices of a DICOM case at their places, those of the series that the rule chooses.

    Raises
    ------
    InputError : a file is damaged, there is no CT image among them, or they make no sound stack.
    """
    where = place(case.files)
    found = scan(case.files)
    if found.damaged:
        raise InputError(found.damaged[0], "the file can no longer be read as DICOM", "copy it again")
    groups = [g for g in group(found.frames) if case.series_uid in (None, g.first.series_uid)]
    if not groups:
        raise InputError(where, "it holds no CT image", "give the CT series")
    chosen = choose(candidates(groups, where)).group
    return lay_out(chosen, where)


_SERIES_FOLDER: Final = re.compile(r"(?:s|se|ser|serie|series)[ _.-]*\d+|series[ _.-].*", re.I)
_TOLD_NAMES = 3


def find_in_scan(root: Path, where: Path, scan: Scan, series: str | None) -> list[Case | Refusal]:
    """The cases of one place, at least one of either kind unless it holds DICOMDIRs alone.

    Each is named after the folder of its study's slices (`case_id`).

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
        refusal = Refusal("", _no_ct(where, scan, unused).told, notes=told, aside=tuple(unused))
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
    problem = said("its {} CT slices name {}, as a faulty anonymisation leaves them", slices, what)
    return InputError(where, problem, said("export the series again with one {}", uid))


def _case(where: Path, every: Sequence[Candidate], chosen: Candidate, series: str | None) -> Case | Refusal:
    others = [c for c in every if c is not chosen]
    aside = tuple(_left_aside(c, why_not(c, chosen)) for c in others)
    if len(every) >= MIN_SLICES and all(len(c.group.frames) < MIN_SLICES for c in every):
        slices, series_count = sum(len(c.group.frames) for c in every), len({c.uid for c in every})
        if series_count >= MIN_SLICES:
            error = _torn(where, slices, said("{} series", series_count), ours("SeriesInstanceUID"))
            return Refusal("", error.told, notes=tuple(a.told for a in aside), aside=aside)
    if chosen.error is not None:
        reason = _with_strays(chosen.error.told, every, chosen)
        return Refusal("", reason, notes=tuple(a.told for a in aside), aside=aside)
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
    return case if problem is None else Refusal("", problem, notes=tuple(a.told for a in aside), aside=aside)


def _doubles_differ(case: Case, chosen: Candidate) -> Said | None:
    """Why a run would refuse slices at one place; their images are read for it, others are not."""
    if chosen.layout is None or all(len(frames) == 1 for frames in chosen.layout.places):
        return None
    try:
        with opened(case) as lying_open:
            doubled = [frames for frames in laid_out(lying_open).places if len(frames) > 1]
            if doubled:
                read_stack(doubled)
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
    counts = Counter(other.kind for other in scan.others)
    return [said("left out: {} x {}", number, ours(kind)) for kind, number in sorted(counts.items())]


def _no_ct(where: Path, scan: Scan, unused: Sequence[SeriesAside]) -> InputError:
    if unused:
        reasons = sorted({aside.why for aside in unused})
        problem = said("it contains no usable CT series ({})", joined(", ", map(ours, reasons)))
        return InputError(where, problem, "give an axial CT, or choose a series with --series")
    kinds = sorted({other.kind for other in scan.others})
    if kinds:
        problem = said("it holds {} instead of a CT", joined(" and ", map(ours, kinds)))
        return InputError(where, problem, "give the CT series")
    return InputError(where, _damaged(scan), "copy the files again")
