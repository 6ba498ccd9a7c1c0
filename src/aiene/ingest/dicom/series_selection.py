"""Which of several CT series of one study is taken, and why not the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from aiene.errors import InputError, Said, ours, said
from aiene.ingest.case import Case, place
from aiene.ingest.dicom.header import Words
from aiene.ingest.dicom.pixels import check_rescale, read_stack
from aiene.ingest.dicom.scan import scan
from aiene.ingest.dicom.stack import Group, Layout, group, is_axial, lay_out

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
    "MPR",
    "MIP",
    "MINIP",
    "REFORMATTED",
    "PROJECTION IMAGE",
    "CSA MPR",
    "VRT",
    "SSD",
    "3D",
)
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


def check_doubles(case: Case) -> None:
    """Read the slices that lie at one place, which a run takes only where they show the same.

    Raises
    ------
    InputError : two of them differ (names both), or one cannot be read.
    """
    doubled = [frames for frames in laid_out(case).places if len(frames) > 1]
    if doubled:
        read_stack(doubled)


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
