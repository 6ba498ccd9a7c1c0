"""What a DICOM file says of itself, without its pixels: one frame for each image of a study."""

from __future__ import annotations

import hashlib
import logging
import math
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from aiene.errors import InputError
from aiene.ingest.file_head import Head, HeadTooShort, read_heads

StudyKey = tuple[str, str]


@dataclass(frozen=True)
class Words:
    """What a series says of itself in words; for choosing only, never shown: they could name a person.

    `delay_seconds` is the time from the start of the contrast medium to that of the slice; None if not said.
    """

    kernel: str = ""
    contrast_agent: str = ""
    description: str = field(default="", repr=False)
    body_part: str = field(default="", repr=False)
    delay_seconds: float | None = None


@dataclass(frozen=True)
class Frame:
    """One CT slice, or one frame of a multi-frame CT.

    Parameters
    ----------
    path, index : the file, and which of its frames (from 0).
    study : date, patient and study, only to keep them apart; never shown.
    orientation : ImageOrientationPatient: unit vectors (LPS) along a row, then along a column; None if
        absent.
    position : ImagePositionPatient: LPS mm of the centre of the first pixel; None if absent.
    pixel_spacing : mm between rows, then between columns; None if absent.
    slope, intercept : from stored values to HU; None where the file does not say.
    frames : how many frames the file holds.
    phase : TemporalPositionIdentifier; empty if absent.
    seconds : AcquisitionTime since midnight; None if absent.
    """

    path: Path
    index: int
    sop_class: str
    sop_uid: str
    study: tuple[str, str, str] = field(repr=False)
    series_uid: str
    series_number: int
    acquisition: str
    frame_of_reference: str
    image_type: tuple[str, ...]
    rows: int
    columns: int
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    slope: float | None
    intercept: float | None
    words: Words = field(repr=False)
    frames: int = 1
    phase: str = ""
    seconds: float | None = None

    @property
    def study_key(self) -> StudyKey:
        """What tells studies apart: patient and study; the date too where the study has no UID."""
        return study_key(self.study)


def study_key(study: tuple[str, str, str]) -> StudyKey:
    """Patient and study UID; files of one study may differ in their date, or lack it."""
    date, patient, study_uid = study
    return patient, study_uid or f"date {date}"


# How pydicom fails on broken files, and how it is kept from talking about odd ones.


DAMAGED: Final = (
    InvalidDicomError, BytesLengthException, EOFError, OSError, struct.error, zlib.error, ValueError,
    TypeError, KeyError, IndexError, AttributeError, NotImplementedError, RuntimeError, OverflowError,
)  # fmt: skip
"""What pydicom and its decoders raise on files that are no sound DICOM (by cutting and garbling)."""

ODD_VALUE: Final = (BytesLengthException, ValueError, TypeError, AttributeError, NotImplementedError)
"""What pydicom raises where one attribute cannot be understood and the rest can."""


_TALKERS: Final = (
    "pydicom", "pydicom.pixels.utils", "pydicom.pixels.decoders.base",
    "pylibjpeg", "pylibjpeg.utils", "openjpeg.utils",
)  # fmt: skip
"""Each on its own: a filter of a logger is not asked about what those below it say."""


class _Silence(logging.Filter):
    """Passes nothing on while any thread asks for silence."""

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.asked = threading.Lock(), 0

    def filter(self, record: logging.LogRecord) -> bool:
        return not self.asked


_silence: Final = _Silence()
for _talker in _TALKERS:
    logging.getLogger(_talker).addFilter(_silence)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and log lines of pydicom and its decoders, which could show a person's name."""
    with _silence.lock:
        _silence.asked += 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        with _silence.lock:
            _silence.asked -= 1


CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT: Final = "1.2.840.10008.5.1.4.1.1.2.1"
CONVERTED_CT: Final = "1.2.840.10008.5.1.4.1.1.2.2"
_DIRECTORY: Final = "1.2.840.10008.1.3.10"
CT_CLASSES: Final = frozenset({CT_IMAGE, ENHANCED_CT, CONVERTED_CT})


_UID: Final = re.compile(r"[0-9][0-9.]{0,63}")
_TIME: Final = re.compile(r"(\d\d):?(\d\d):?(\d\d(?:\.\d*)?)")
_LONGEST_DELAY: Final = 600.0
_MOST_FRAMES: Final = 1000
"""Of a file without functional groups, which is refused anyway: a garbled count may be two milliards."""
_MODALITIES: Final = frozenset(
    {
        *("CT", "MR", "PT", "NM", "US", "CR", "DX", "MG", "XA", "RF", "OT", "SR", "SEG", "REG", "FID", "PR"),
        *("RTSTRUCT", "RTDOSE", "RTPLAN", "RTIMAGE", "RTRECORD", "KO", "DOC"),
    }
)

_TAGS: Final = [
    "SOPClassUID", "SOPInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID",
    "StudyDate", "SeriesInstanceUID", "SeriesNumber", "AcquisitionNumber", "TemporalPositionIdentifier",
    "FrameOfReferenceUID", "Modality", "ImageType", "Rows", "Columns", "NumberOfFrames",
    "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
    "ConvolutionKernel", "ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusStartTime",
    "AcquisitionTime", "SeriesDescription", "ProtocolName", "BodyPartExamined", "StudyDescription",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
"""What a search reads of each file."""


@dataclass(frozen=True)
class Other:
    """A DICOM object that is no CT slice: structure set, dose, another modality, a screenshot."""

    path: Path
    study: tuple[str, str, str] = field(repr=False)
    series_uid: str
    kind: str

    @property
    def study_key(self) -> StudyKey:
        """As for a `Frame`."""
        return study_key(self.study)


@dataclass(frozen=True)
class Directory:
    """A DICOMDIR of any name: it lists images and is none."""

    path: Path


def read_dataset(head: Head, keywords: list[str]) -> Dataset:
    """Some attributes of a DICOM file's header; its first bytes are enough unless the header is long.

    Raises
    ------
    damage.DAMAGED : the file is no sound DICOM.
    """
    with quiet():
        try:
            return pydicom.dcmread(head.open(), force=True, stop_before_pixels=True, specific_tags=keywords)
        except HeadTooShort:
            return pydicom.dcmread(head.path, force=True, stop_before_pixels=True, specific_tags=keywords)


def lies_in_head(head: Head) -> bool:
    """Whether the first bytes of a DICOM file say all that a search reads of it."""
    with quiet():
        try:
            pydicom.dcmread(head.open(), force=True, stop_before_pixels=True, specific_tags=_TAGS)
        except HeadTooShort:
            return False
        except DAMAGED:
            return False  # it may be sound as a whole
    return True


def read_header(head: Head) -> list[Frame] | Other | Directory:
    """The CT frames that a DICOM file holds, or what else it is.

    Raises
    ------
    damage.DAMAGED : the file is no sound DICOM.
    """
    path, dataset = head.path, read_dataset(head, _TAGS)
    with quiet():
        sop_class, modality = text(dataset, "SOPClassUID"), text(dataset, "Modality").upper()
        if not sop_class and text(dataset.file_meta, "MediaStorageSOPClassUID") == _DIRECTORY:
            return Directory(path)
        if not sop_class:
            raise ValueError("no SOP class")
        if sop_class not in CT_CLASSES or modality not in ("", "CT"):
            return Other(path, _study(dataset), uid(dataset, "SeriesInstanceUID"), _kind(sop_class, modality))
        return _frames(path, dataset)


def whole_header(path: Path) -> Dataset:
    """Everything that a DICOM file says before its pixels.

    Raises
    ------
    InputError : it cannot be read.
    """
    with quiet():
        try:
            return pydicom.dcmread(path, force=True, stop_before_pixels=True)
        except DAMAGED as error:
            raise InputError(path, "the file can no longer be read as DICOM", "copy it again") from error


def is_directory(head: Head) -> bool:
    """Whether a file is a DICOMDIR, whatever its name."""
    if head.content[128:132] != b"DICM":
        return False
    with quiet():
        try:
            meta = read_dataset(head, ["SOPClassUID"]).file_meta
        except DAMAGED:
            return False
        return text(meta, "MediaStorageSOPClassUID") == _DIRECTORY


def text(dataset: Dataset, keyword: str) -> str:
    """An attribute as a word without blanks at its ends; empty where absent or unreadable."""
    try:
        value = dataset.get(keyword)
    except ODD_VALUE:
        return ""
    return "" if value is None else str(value).strip()


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """An attribute of `count` finite numbers; None where absent or anything else."""
    try:
        value = dataset.get(keyword)
        values = tuple(float(v) for v in (value if isinstance(value, Sequence) else [value]))
    except ODD_VALUE:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def uid(dataset: Dataset, keyword: str) -> str:
    """A UID; where the attribute holds none, a stand-in that keeps values apart and shows nothing."""
    value = text(dataset, keyword)
    if not value or _UID.fullmatch(value):
        return value
    return f"no-uid-{hashlib.sha256(value.encode()).hexdigest()[:12]}"


def _kind(sop_class: str, modality: str) -> str:
    """What an object is, in words that cannot come from a garbled header."""
    known = pydicom.uid.UID(sop_class)
    name = "" if known.name == sop_class else known.name
    if "Secondary Capture" in name:
        return "secondary capture"
    if modality in _MODALITIES:
        return modality
    return name.removesuffix(" Storage") or "unknown DICOM object"


def _study(dataset: Dataset) -> tuple[str, str, str]:
    return text(dataset, "StudyDate"), _patient(dataset), uid(dataset, "StudyInstanceUID")


def _patient(dataset: Dataset) -> str:
    """Who it is, to keep people apart; without an id name and birth date, however they are spelled."""
    known = text(dataset, "PatientID")
    if known:
        return known
    name = " ".join(re.split(r"[\W_]+", text(dataset, "PatientName").casefold())).strip()
    said = f"{name} {text(dataset, 'PatientBirthDate')}".strip()
    return f"no-id-{hashlib.sha256(said.encode()).hexdigest()[:12]}" if said else ""


def _whole(dataset: Dataset, keyword: str, default: int) -> int:
    values = numbers(dataset, keyword, 1)
    return default if values is None else int(values[0])


def _one(dataset: Dataset, keyword: str) -> float | None:
    values = numbers(dataset, keyword, 1)
    return None if values is None else values[0]


def _frames(path: Path, dataset: Dataset) -> list[Frame]:
    if min(_whole(dataset, "Rows", 0), _whole(dataset, "Columns", 0)) < 1:
        raise ValueError("an image without a size: the file ends within its header")
    count = max(_whole(dataset, "NumberOfFrames", 1), 1)  # some writers say 0 of a single image
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame: Sequence[Dataset] = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if not per_frame and shared is None:
        # A plain CT class with several frames has one position at most: the stacking refuses it.
        return [_frame(path, dataset, index, [dataset], count) for index in range(min(count, _MOST_FRAMES))]
    if len(per_frame) != count:
        raise ValueError("the functional groups do not match the number of frames")
    return [
        _frame(path, dataset, index, [*_groups(own), *_groups(shared), dataset], count)
        for index, own in enumerate(per_frame)
    ]


def _groups(functional: Dataset | None) -> list[Dataset]:
    """The first item of each functional group: macros have one item only."""
    if functional is None:
        return []
    return [element.value[0] for element in functional if element.VR == "SQ" and element.value]


def _first(dataset: Dataset, keyword: str) -> Dataset | None:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else None


def _lookup(sources: list[Dataset], keyword: str) -> Dataset:
    """The first of the sources that has the attribute: the frame's own, then the shared, then the file's."""
    return next((source for source in sources if keyword in source), sources[-1])


def _frame(path: Path, dataset: Dataset, index: int, sources: list[Dataset], count: int) -> Frame:
    alone = count == 1 or len(sources) > 1
    return Frame(
        path=path,
        index=index,
        sop_class=text(dataset, "SOPClassUID"),
        sop_uid=uid(dataset, "SOPInstanceUID"),
        study=_study(dataset),
        series_uid=uid(dataset, "SeriesInstanceUID"),
        series_number=_whole(dataset, "SeriesNumber", 0),
        acquisition=text(_lookup(sources, "AcquisitionNumber"), "AcquisitionNumber"),
        frame_of_reference=uid(dataset, "FrameOfReferenceUID"),
        image_type=_image_type(sources),
        rows=_whole(dataset, "Rows", 0),
        columns=_whole(dataset, "Columns", 0),
        orientation=numbers(_lookup(sources, "ImageOrientationPatient"), "ImageOrientationPatient", 6),
        position=numbers(_lookup(sources, "ImagePositionPatient"), "ImagePositionPatient", 3)
        if alone
        else None,
        pixel_spacing=numbers(_lookup(sources, "PixelSpacing"), "PixelSpacing", 2),
        slope=_one(_lookup(sources, "RescaleSlope"), "RescaleSlope"),
        intercept=_one(_lookup(sources, "RescaleIntercept"), "RescaleIntercept"),
        words=_words(dataset, sources),
        frames=count,
        phase=text(_lookup(sources, "TemporalPositionIdentifier"), "TemporalPositionIdentifier"),
        seconds=_seconds(text(dataset, "AcquisitionTime")),
    )


def _image_type(sources: list[Dataset]) -> tuple[str, ...]:
    for keyword in ("FrameType", "ImageType"):
        value: Any = _lookup(sources, keyword).get(keyword)
        if value:
            return tuple(str(word).strip().upper() for word in ([value] if isinstance(value, str) else value))
    return ()


def _words(dataset: Dataset, sources: list[Dataset]) -> Words:
    agent = text(dataset, "ContrastBolusAgent")
    if not agent and dataset.get("ContrastBolusAgentSequence"):
        agent = "agent"
    return Words(
        kernel=text(_lookup(sources, "ConvolutionKernel"), "ConvolutionKernel"),
        contrast_agent=agent,
        description=f"{text(dataset, 'SeriesDescription')} {text(dataset, 'ProtocolName')}",
        body_part=f"{text(dataset, 'BodyPartExamined')} {text(dataset, 'StudyDescription')}",
        delay_seconds=_delay(text(dataset, "ContrastBolusStartTime"), text(dataset, "AcquisitionTime")),
    )


def _delay(start: str, scan: str) -> float | None:
    """Seconds between two times of day (HHMMSS.F); None unless both are there, within ten minutes."""
    begun, scanned = _seconds(start), _seconds(scan)
    if begun is None or scanned is None:
        return None
    return scanned - begun if 0 < scanned - begun <= _LONGEST_DELAY else None


def _seconds(said: str) -> float | None:
    """A time of day (HHMMSS.F) since midnight; None where it is none."""
    found = _TIME.fullmatch(said)
    return None if found is None else int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


# The headers of many files, sorted into CT slices, other objects and damaged files.


@dataclass
class Scan:
    """What lies in a heap of DICOM files; filled file by file.

    Parameters
    ----------
    frames : every CT slice, localizers included, in the order of the files.
    others : objects that are no CT slice.
    damaged : files that are DICOM but cannot be read.
    directories : DICOMDIRs under another name.
    """

    frames: list[Frame] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)

    @property
    def studies(self) -> set[StudyKey]:
        """Patient and study of everything that was read; never shown."""
        return {f.study_key for f in self.frames} | {o.study_key for o in self.others}

    @property
    def series(self) -> set[str]:
        """SeriesInstanceUID of everything that was read."""
        return {f.series_uid for f in self.frames} | {o.series_uid for o in self.others}

    def add(self, head: Head) -> None:
        """Sort in one file."""
        try:
            found = read_header(head)
        except DAMAGED:
            self.damaged.append(head.path)
            return
        if isinstance(found, Other):
            self.others.append(found)
        elif isinstance(found, Directory):
            self.directories.append(found.path)
        else:
            self.frames += found


def scan(files: Iterable[Path]) -> Scan:
    """The headers of DICOM files; pixels are not read."""
    result = Scan()
    for head in read_heads(files):
        if head.error is not None:
            result.damaged.append(head.path)
        else:
            result.add(head)
    return result
