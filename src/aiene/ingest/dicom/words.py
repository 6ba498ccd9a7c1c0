"""What the words of a header mean for the choice of a series: kernel, contrast phase, part of the body."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

from aiene.ingest.dicom.header import Words


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
    for said in (words.description, words.body_part):
        if _NECK.search(said):
            return Region.NECK
        if _ELSEWHERE.search(said):
            return Region.ELSEWHERE
    return Region.UNKNOWN


def _is_sharp_number(name: str) -> bool:
    """Siemens counts from 10 (smooth) to 90; Canon's FC30s are bone, FC50s and FC80 on lung."""
    siemens, canon = _SIEMENS.match(name), _CANON.match(name)
    if canon:
        number = int(canon[1])
        return 30 <= number < 40 or 50 <= number < 60 or number >= 80
    return siemens is not None and int(siemens[1]) >= 60
