"""Which header values of the source images an object may repeat: those that the standard allows."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any, Final

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from aiene.errors import Said, joined, ours, said
from aiene.ingest.dicom.header import ODD_VALUE, quiet

_ROWS: Final = tuple(
    csv.DictReader((resources.files("aiene.ingest.dicom") / "identity.csv").read_text("utf-8").splitlines())
)
IDENTITY: Final = tuple(row["keyword"] for row in _ROWS)
"""What an object repeats of a source image's patient and study, where it is there and allowed."""

TYPE_2: Final = tuple(row["keyword"] for row in _ROWS if row["always"])
"""What every object must have, empty where the source does not say (PS3.3 C.7.1.1, C.7.2.1)."""

NEEDED_UIDS: Final = {
    "StudyInstanceUID": "study UID",
    "SeriesInstanceUID": "series UID",
    "SOPInstanceUID": "image UID",
    "FrameOfReferenceUID": "frame of reference UID",
}

LATIN_1: Final = "ISO_IR 100"
"""What is declared where the source uses letters beyond ASCII and declares no known character set."""

_LENGTH: Final = {"LO": 64, "SH": 16, "ST": 1024, "LT": 10240}
_FORM: Final = {
    "AE": r"[\x20-\x5b\x5d-\x7e]{0,16}",
    "AS": r"\d{3}[DWMY]",
    "CS": r"[A-Z0-9 _]{0,16}",
    "DS": r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *",
    "IS": r" *[+-]?\d{1,11} *",
    "TM": r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?",
    "UI": r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*",
}
_WHOLE: Final = {"US": (0, 2**16 - 1), "SS": (-(2**15), 2**15 - 1), "UL": (0, 2**32 - 1)}
_LINES: Final = frozenset("\r\n\f\t")
"""Control characters that long text may hold."""

_YES_NO: Final = frozenset({"YES", "NO"})
_ALLOWED: Final[dict[str, frozenset[str]]] = {
    "PatientSex": frozenset({"M", "F", "O"}),
    "PatientSexNeutered": frozenset({"ALTERED", "UNALTERED"}),
    "PatientIdentityRemoved": _YES_NO,
    "QualityControlSubject": _YES_NO,
    "SmokingStatus": _YES_NO | {"UNKNOWN"},
    "PregnancyStatus": frozenset("1234"),
    "LongitudinalTemporalInformationModified": frozenset({"UNMODIFIED", "MODIFIED", "REMOVED"}),
    "LossyImageCompression": frozenset({"00", "01"}),
}
"""Enumerated values (PS3.3)."""

_TRIAL: Final = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID")
_TRIAL_SUBJECT: Final = ("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID")
_TRIAL_OFTEN_EMPTY: Final = ("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName")
_ZONE: Final = r"[+-](0\d|1[0-4])[0-5]\d"


@dataclass(frozen=True)
class Headers:
    """What of some attributes can be copied.

    Parameters
    ----------
    elements : by keyword, ready to be put into another data set; an empty one where the source's is empty.
    refused : keywords of those that the standard does not allow, in the order asked for.
    guessed_characters : the source declares no known character set; `ISO_IR 100` is among the elements.
    """

    elements: dict[str, DataElement]
    refused: tuple[str, ...]
    guessed_characters: bool


def headers_of(source: Dataset, keywords: Iterable[str]) -> Headers:
    """The attributes that an object may repeat, each as it is or not at all: nothing is mended.

    An attribute is refused whose value representation, number of values, length, form, characters or
    enumerated value PS3.3, PS3.5 and PS3.6 do not allow; a sequence with such an item, or with one that lacks
    what it needs; and one that stands only with others that are missing (`PatientIdentityRemoved` YES without
    a method, the clinical trial without sponsor, protocol and subject).
    """
    with quiet():
        found: dict[str, DataElement] = {}
        refused: list[str] = []
        for keyword in keywords:
            try:
                element = deepcopy(source[keyword]) if keyword in source else None
                fits = element is None or _fits(keyword, element)
            except ODD_VALUE:
                element, fits = None, False
            if not fits:
                refused.append(keyword)
            elif element is not None and not (element.VR == "SQ" and not element.value):
                found[keyword] = element
        guessed = _settle_characters(found, refused)
        _settle_groups(found, refused)
    return Headers(found, tuple(dict.fromkeys(refused)), guessed)


def odd_headers(source: Dataset) -> list[Said]:
    """What the objects do not repeat of a source image, since the standard does not allow it; tells no value.

    Parameters
    ----------
    source : the header of the image whose patient and study every object takes.
    """
    found = identity_of(source)
    empty = [keyword for keyword in found.refused if keyword in TYPE_2]
    out = [keyword for keyword in found.refused if keyword not in TYPE_2]
    uids = [keyword for keyword in NEEDED_UIDS if source.get(keyword) and not is_uid(source.get(keyword))]
    why = [
        (empty, "not allowed by the standard: DICOM objects leave it empty"),
        (out, "not allowed by the standard, alone or without what it needs: DICOM objects leave it out"),
        (uids, "no valid UID: DICOM objects must refer to it and repeat it; strict readers may mind"),
    ]
    warnings = [
        said("source header: {}: {}", joined(", ", map(ours, words)), ours(what))
        for words, what in why
        if words
    ]
    if found.guessed_characters:
        warnings.append(
            said(
                "source header: letters beyond ASCII without a known character set: DICOM objects declare {}",
                ours(LATIN_1),
            )
        )
    return warnings


def identity_of(source: Dataset) -> Headers:
    """Patient and study of a source image, as far as an object may repeat them."""
    return headers_of(source, IDENTITY)


def value_of(source: Dataset, keyword: str) -> Any:
    """One attribute's value where the standard allows it; None where it does not, or it is empty."""
    element = headers_of(source, [keyword]).elements.get(keyword)
    return None if element is None or element.is_empty else element.value


def is_uid(value: object) -> bool:
    """Whether a value is a UID by PS3.5: up to 64 characters, numbers without leading zeros between dots."""
    return len(str(value)) <= 64 and re.fullmatch(_FORM["UI"], str(value)) is not None


def _fits(keyword: str, element: DataElement) -> bool:
    wanted = dictionary_VR(keyword)
    if element.VR not in wanted.split(" or "):
        return False
    if element.VR == "SQ":
        return all(_item_fits(keyword, item) for item in element.value)
    values = [] if element.is_empty else list(element.value) if element.VM > 1 else [element.value]
    if len(values) > 1 and dictionary_VM(keyword) == "1":
        return False
    return all(_value_fits(keyword, element.VR, value) for value in values)


def _item_fits(keyword: str, item: Dataset) -> bool:
    if not len(item) or not all(e.keyword and _fits(e.keyword, e) for e in item):
        return False
    if any(not _readable(text) for text in _texts(item)):
        return False
    if "CodeSequence" in keyword:
        value = item.get("CodeValue") or item.get("LongCodeValue")
        coded = (value and item.get("CodingSchemeDesignator")) or item.get("URNCodeValue")
        return bool(coded and item.get("CodeMeaning"))
    if keyword == "OtherPatientIDsSequence":
        return bool(item.get("PatientID") and item.get("TypeOfPatientID"))
    if keyword.startswith("IssuerOf") and not keyword.endswith("QualifiersSequence"):
        universal = item.get("UniversalEntityID") and item.get("UniversalEntityIDType")
        return bool(item.get("LocalNamespaceEntityID") or universal)
    return True


def _value_fits(keyword: str, vr: str, value: Any) -> bool:
    if vr in _WHOLE:
        low, high = _WHOLE[vr]
        fits = isinstance(value, int) and low <= value <= high
    elif vr == "PN":
        fits = _name_fits(str(value))
    elif vr in ("LT", "ST", "UT"):
        fits = len(str(value)) <= _LENGTH.get(vr, 2**32) and not _controls(str(value), _LINES)
    elif vr == "DA":
        fits = _is_date(str(value))
    else:
        text = str(value.original_string) if getattr(value, "original_string", None) else str(value)
        longest = {"DS": 16, "IS": 12, "UI": 64}.get(vr, _LENGTH.get(vr, 2**32))
        form = _ZONE if keyword == "TimezoneOffsetFromUTC" else _FORM.get(vr)
        fits = len(text) <= longest and not _controls(text) and "\\" not in text
        fits = fits and (form is None or re.fullmatch(form, text) is not None)
    if keyword == "SpecificCharacterSet":
        return fits and str(value) in python_encoding
    return fits and (keyword not in _ALLOWED or str(value) in _ALLOWED[keyword])


def _name_fits(name: str) -> bool:
    groups = name.split("=")
    short = all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    return len(groups) <= 3 and short and not _controls(name) and "\\" not in name


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"\d{8}", text):
        return False
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return True


def _controls(text: str, allowed: frozenset[str] = frozenset()) -> bool:
    return any(unicodedata.category(c) == "Cc" and c not in allowed for c in text)


def _readable(text: str) -> bool:
    """Whether its bytes could be read in the character set of the source."""
    return "\ufffd" not in text


def _settle_characters(found: dict[str, DataElement], refused: list[str]) -> bool:
    """Take away what cannot be written; declare Latin 1 where letters need a character set and none is known.

    Latin 1 keeps the bytes as they are, and most readers assume it anyway.
    """
    declared = found.get("SpecificCharacterSet")
    values: Sequence[str] = []
    if declared is not None and not declared.is_empty:
        values = list(declared.value) if declared.VM > 1 else [declared.value]
    known = any(value not in ("", "ISO_IR 6", "ISO 2022 IR 6") for value in values)
    guessed = False
    for keyword, element in list(found.items()):
        single = Dataset()
        single.add(element)
        texts = list(_texts(single))
        beyond = any(not text.isascii() for text in texts)
        in_latin = all(c < "\x80" or "\xa0" <= c <= "\xff" for text in texts for c in text)
        if not all(map(_readable, texts)) or (beyond and not known and not in_latin):
            del found[keyword]
            refused.append(keyword)
        elif beyond and not known:
            guessed = True
    if guessed:
        found["SpecificCharacterSet"] = DataElement("SpecificCharacterSet", "CS", LATIN_1)
    return guessed


def _texts(dataset: Dataset) -> Iterable[str]:
    """Every text of a data set, those in sequences too."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in ("LO", "SH", "PN", "ST", "LT", "UT", "UC") and not element.is_empty:
            yield from map(str, element.value if element.VM > 1 else [element.value])


def _settle_groups(found: dict[str, DataElement], refused: list[str]) -> None:
    """Take away what stands only with others, and those are missing."""
    removed = found.get("PatientIdentityRemoved")
    methods = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
    if removed is not None and removed.value == "YES" and not _filled(found, methods, any):
        del found["PatientIdentityRemoved"]
        refused.append("PatientIdentityRemoved")
    subject = (*_TRIAL, *_TRIAL_OFTEN_EMPTY, *_TRIAL_SUBJECT)
    if not any(keyword in found for keyword in subject):
        return
    if _filled(found, _TRIAL, all) and _filled(found, _TRIAL_SUBJECT, any):
        for keyword in _TRIAL_OFTEN_EMPTY:
            found.setdefault(keyword, DataElement(keyword, dictionary_VR(keyword), ""))
        return
    for keyword in subject:
        if found.pop(keyword, None) is not None:
            refused.append(keyword)


def _filled(found: dict[str, DataElement], keywords: Sequence[str], how: Any) -> bool:
    return bool(how(keyword in found and not found[keyword].is_empty for keyword in keywords))
