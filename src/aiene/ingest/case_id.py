"""Case ids: made from the place of an input below INPUT alone, so that other inputs cannot move one.

The rule, and why, stands in `docs/decisions/0006-case-ids.md`.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiene.errors import case_name, is_hidden, said
from aiene.ingest.case import Case, Refusal
from aiene.ingest.formats import name_endings

MAX_BYTES: Final = 160
"""Of an id in UTF-8: names made from one, `.ID_0000.nii.gz.PID.partial`, must fit the 255 of a file name."""

_CHANNEL: Final = "_0000"
_SAYS_NOTHING: Final = frozenset({
    "ct", "cts", "ctimage", "ctscan", "image", "images", "img", "imgs", "imagestr", "imagests", "scan",
    "scans", "volume", "volumes", "vol", "dicom", "dicoms", "dcm", "dicomdir", "nifti", "nii", "nrrd", "data",
    "input", "inputs", "series", "serie", "ser", "se", "s", "study", "studies", "st", "acquisition", "slices",
})  # fmt: skip
"""Words of a name that stand in every data set and tell no two patients apart."""

_UID: Final = re.compile(r"\d+(?:\.\d+){3,}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.I)
_TCIA_SERIES: Final = re.compile(r"\d+\.\d{6}-.*-\d{5}")
"""Folder of a series as The Cancer Imaging Archive names it: number, description, end of the UID."""

_UNSAFE: Final = frozenset('<>:"/\\|?*')
_RESERVED: Final = re.compile(
    r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)\s*(?:\..*)?", re.I
)
"""Names that Windows keeps for devices, with any ending."""

_HASH_LETTERS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_HASH_LENGTH: Final = 6


def stem(name: str) -> str:
    """A file's name without the endings that we know and without nnU-Net's channel `_0000`."""
    lower = name.lower()
    ending = next((e for e in (*name_endings(), ".zip") if lower.endswith(e) and len(lower) > len(e)), "")
    plain = name[: len(name) - len(ending)]
    return plain.removesuffix(_CHANNEL) or plain


def says_nothing(part: str) -> bool:
    """Whether a name tells no two patients apart: `ct`, `CT images`, a UID."""
    if _UID.fullmatch(part) or _UUID.fullmatch(part) or _TCIA_SERIES.fullmatch(part):
        return True
    words = re.split(r"[\s!-/:-@\[-`{-~]+", part.casefold())  # at blanks and ASCII punctuation
    return all(word in _SAYS_NOTHING for word in words if word)


def case_id(source: Path, place: Path, *, is_file: bool) -> str:
    """The id of what lies at a place of an input.

    The parts of the path below the input, joined by `_`; left out are those that say nothing, and a folder
    whose name the next part repeats. Where no part says anything, the first one that is no mere word (a UID)
    counts, and failing that the name of the input's own folder.

    Parameters
    ----------
    source : the input.
    place : a folder or file in it, or the input itself.
    is_file : the last part is a file's (or an archive's) name, whose known endings do not count.
    """
    return safe(_joined(_parts(source, place, is_file)))


def place_below(source: Path, place: Path) -> str:
    """Where something lies: its path below the input, or the input's own name."""
    if place == source:
        return source.name or source.resolve().name
    return place.relative_to(source).as_posix()


def _parts(source: Path, place: Path, is_file: bool) -> list[str]:
    below = list(place.relative_to(source).parts) if place != source else []
    if not below:
        return [_own_name(source, is_file)]
    parts = [stem(part) if _is_archive(part) else part for part in below[:-1]]
    parts.append(stem(below[-1]) if is_file or _is_archive(below[-1]) else below[-1])
    telling = [part for part in parts if not says_nothing(part)]
    if not telling:
        uids = [part for part in parts if re.search(r"\d", part)]
        return uids[:1] or [_own_name(source, is_file=False)]
    if all(_is_numbered_word(part) for part in telling):  # ct_2: two of the same folder
        return [_own_name(source, is_file=False), *telling]
    return telling


def _is_archive(part: str) -> bool:
    return part.lower().endswith(".zip")


def _is_numbered_word(part: str) -> bool:
    """`ct_2`, `scan01`: a word that says nothing with a number; a number alone may be a patient's."""
    return re.search(r"[^\W\d]", part) is not None and says_nothing(re.sub(r"\d+", " ", part))


def _own_name(source: Path, is_file: bool) -> str:
    """The name of an input; of the nearest folder above it that says something, where its own does not."""
    path = source.resolve() if source.name in ("", ".", "..") else source
    own = stem(path.name) if is_file or _is_archive(path.name) else path.name
    if not says_nothing(own):
        return own
    above = source.resolve().parents
    return next(
        (folder.name for folder in above if folder.name and not says_nothing(folder.name)), own or "case"
    )


def _joined(parts: Sequence[str]) -> str:
    """The parts, without those that the last one repeats: `sub-01/ses-1/sub-01_ses-1_ct`."""
    *folders, last = parts
    kept: list[str] = []
    rest = last
    for part in folders:
        if _begins(rest, part):
            rest = rest[len(part) :].lstrip("_-. ")
        elif part != (kept or [last])[-1]:
            kept.append(part)
    return "_".join([*kept, last])


def _begins(text: str, part: str) -> bool:
    """Whether a text begins with a part as a whole word."""
    return text.startswith(part) and not text[len(part) : len(part) + 1].isalnum()


def safe(name: str) -> str:
    """A name as an id: a file name on every system, and a cell that no spreadsheet runs.

    What had to be changed for that gets a hash of the name after a `~`, so that two names never become one.
    """
    whole = unicodedata.normalize("NFC", name)
    shown = "".join("_" if c in _UNSAFE or is_hidden(c) else c for c in whole.lstrip("."))
    shown = shown.strip().rstrip(". ")
    if shown[:1] and (shown[0] in "=+-@~'" or _RESERVED.fullmatch(shown)):
        shown = f"_{shown}"
    room = MAX_BYTES - _HASH_LENGTH - 1
    if len(shown.encode()) > MAX_BYTES:
        shown = shown.encode()[:room].decode("utf-8", "ignore").rstrip(". ")
    if shown == whole.lstrip("."):
        return shown or "case"
    return f"{shown or 'case'}~{_hash(name)}"


def distinct(found: Iterable[Case | Refusal]) -> list[Case | Refusal]:
    """The same cases in the same order, ids of one spelling told apart by a hash of their place and study.

    Two ids are of one spelling where a file system may take them for the same: upper and lower case, accents.
    All of them get a hash, so that it does not matter which came first.
    """
    listed = list(found)
    spellings = Counter(_spelling(item.case_id) for item in listed)
    result: list[Case | Refusal] = []
    used: set[str] = {_spelling(i.case_id) for i in listed if spellings[_spelling(i.case_id)] == 1}
    for item in listed:
        if spellings[_spelling(item.case_id)] == 1:
            result.append(item)
            continue
        result.append(_told_apart(item, used))
        used.add(_spelling(result[-1].case_id))
    return result


def _told_apart(item: Case | Refusal, used: set[str]) -> Case | Refusal:
    basis = f"{item.case_id}\0{item.source}\0{item.study}"
    room = MAX_BYTES - _HASH_LENGTH - 1
    stump = item.case_id.encode()[:room].decode("utf-8", "ignore")
    name = f"{stump}~{_hash(basis)}"
    while _spelling(name) in used:  # of one place and study, or by chance (30 bits)
        basis += "+"
        name = f"{stump}~{_hash(basis)}"
    if isinstance(item, Refusal):
        return replace(item, case_id=name)
    warning = said(
        "another input would be called {} too, so this one is called {}",
        case_name(item.case_id),
        case_name(name),
    )
    return replace(item, case_id=name, warnings=(*item.warnings, warning))


def _spelling(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _hash(text: str) -> str:
    number = int.from_bytes(hashlib.sha256(os.fsencode(text)).digest()[:8], "big")
    return "".join(_HASH_LETTERS[number >> 5 * place & 31] for place in range(_HASH_LENGTH))
