"""One image of a DICOM study, as its header describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

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
