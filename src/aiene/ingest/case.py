"""What goes in: a case before and after its CT is read."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from aiene.errors import Said, counted, ours, said, uid_name
from aiene.geometry.grid import Volume

AffineRule = Literal["auto", "sform", "qform"]


@dataclass(frozen=True)
class SeriesAside:
    """A series that was found beside the one that is taken.

    Parameters
    ----------
    series_uid : its SeriesInstanceUID.
    slices : how many there are.
    why : the point of the rule by which it lost.
    """

    series_uid: str
    slices: int
    why: str

    @property
    def told(self) -> Said:
        """The same as a sentence."""
        slices = counted(self.slices, "slice")
        return said("series {} left out: {} ({})", uid_name(self.series_uid), ours(self.why), slices)


@dataclass(frozen=True)
class _Found:
    """What was found at a place of the input, and whose it is.

    Parameters
    ----------
    case_id : unique in its run; made from its place below the input by `case_id.case_id`.
    notes : why this series, what was left out: facts for the record.
    aside : the other series of the study, and why each was not taken.
    source : where it lies: path below the input, the input's own name where it is the whole input.
    study : DICOM patient and study, to tell studies in one place apart; never shown.
    patient : what its patient is called; `identity.group_by_patient` sets it where nobody said.
    date : of the CT, YYYY-MM-DD; empty where unknown.
    counts : it is the CT of its patient that counts.
    treatment : date of the patient's treatment, YYYY-MM-DD; empty where unknown.
    """

    case_id: str
    _: KW_ONLY
    notes: tuple[Said, ...] = ()
    aside: tuple[SeriesAside, ...] = ()
    source: str = ""
    study: str = field(default="", repr=False)
    patient: str = ""
    date: str = ""
    counts: bool = True
    treatment: str = ""

    @property
    def dicom_patient(self) -> str:
        """Who it is by the DICOM header, to keep people apart; empty where it does not say."""
        return self.study.partition("\0")[0]


@dataclass(frozen=True)
class Case(_Found):
    """One CT of one patient, found but not read yet.

    Parameters
    ----------
    kind : how the CT is stored, as the name of a `Format`.
    files : the files that hold it; for DICOM every slice of the chosen series, in no particular order. Where
        they lie in zip archives, the archives.
    series_uid : DICOM SeriesInstanceUID of the chosen series.
    warnings : what the user should look at.
    members : the files within archives, by paths that continue the archive's own; see `read.opened`.
    affine : which statement of a NIfTI header counts where two differ; see `find_cases`.
    mask : its own mask, where an input list names one.
    """

    kind: str
    files: tuple[Path, ...]
    series_uid: str | None = None
    warnings: tuple[Said, ...] = ()
    members: tuple[Path, ...] = ()
    affine: AffineRule = "auto"
    mask: Path | None = None

    @property
    def file_count(self) -> int:
        """How many files hold it, those within archives counted one by one."""
        archives = {parent for member in self.members for parent in member.parents} & set(self.files)
        return len(self.members) + sum(file not in archives for file in self.files)


@dataclass(frozen=True)
class Refusal(_Found):
    """Something in the input that should have been a case but cannot be one; becomes a failed row.

    Parameters
    ----------
    reason : one sentence: file, problem, remedy.
    """

    reason: Said


@dataclass(frozen=True, eq=False)
class NativeCt:
    """A CT as it lies in its file, in HU.

    Parameters
    ----------
    volume : float32 or int16 HU on the native grid. Where the file's own lattice is not rectangular (gantry
        tilt, shear), the nearest rectangular grid.
    pixel_type : SimpleITK's number of the pixel type as the published code would have read it (int16 is 2):
        the published resampling fills with this number.
    source : facts for `case.json`: series and frame-of-reference UID, tilt, affine rule; JSON values only.
    warnings : what the user should look at.
    notes : facts for the record: what of the headers DICOM objects will not repeat.
    """

    volume: Volume
    pixel_type: int
    source: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Said, ...] = ()
    notes: tuple[Said, ...] = ()


def place(files: tuple[Path, ...]) -> Path:
    """What to name in a message about a series: its only file, or the folder of its first slice."""
    return files[0] if len(files) == 1 else files[0].parent


def iso_date(text: str) -> str:
    """A date as YYYY-MM-DD; `YYYYMMDD`, as DICOM has it, is one too; empty where it is none."""
    plain = re.fullmatch(r"(\d{4})-?(\d\d)-?(\d\d)", text.strip())
    try:
        return date(*map(int, plain.groups())).isoformat() if plain else ""
    except ValueError:
        return ""
