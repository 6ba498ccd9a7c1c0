"""What goes in: a case before and after its CT is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiene.geometry import Volume
from aiene.wording import Said, said, uid_name

Format = Literal["dicom", "nifti", "nrrd"]
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
        plural = "s" * (self.slices > 1)
        template = f"series {{}} left aside: {{}} ({self.slices} slice{plural})"
        return said(template, uid_name(self.series_uid), self.why)


@dataclass(frozen=True)
class Case:
    """One CT of one patient, found but not read yet.

    Parameters
    ----------
    case_id : unique in its run; made from its place below the input by `naming.case_id`.
    kind : how the CT is stored.
    files : the files that hold it; for DICOM every slice of the chosen series, in no particular order. Where
        they lie in zip archives, the archives.
    series_uid : DICOM SeriesInstanceUID of the chosen series.
    notes : why this series, what was left aside: facts for the record.
    warnings : what the user should look at.
    members : the files within archives, by paths that continue the archive's own; `ingest.opened` opens them.
    affine : which statement of a NIfTI header counts where two differ; see `find_cases`.
    aside : the other series of the study, and why each was not taken.
    source : where it lies: path below the input, the input's own name where it is the whole input.
    study : tells studies in one place apart; never shown.
    """

    case_id: str
    kind: Format
    files: tuple[Path, ...]
    series_uid: str | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    members: tuple[Path, ...] = ()
    affine: AffineRule = "auto"
    aside: tuple[SeriesAside, ...] = ()
    source: str = ""
    study: str = field(default="", repr=False)

    @property
    def file_count(self) -> int:
        """How many files hold it, those within archives counted one by one."""
        return len(self.members) + sum(file not in self._archives for file in self.files)

    @property
    def _archives(self) -> set[Path]:
        return {parent for member in self.members for parent in member.parents} & set(self.files)


@dataclass(frozen=True)
class Refusal:
    """Something in the input that should have been a case but cannot be one; becomes a failed row.

    Parameters
    ----------
    case_id : as for a `Case`.
    reason : one sentence: file, problem, remedy.
    notes : what else lay there.
    aside : the series that were found, and why none of them was taken.
    source, study : as for a `Case`.
    """

    case_id: str
    reason: Said
    notes: tuple[str, ...] = ()
    aside: tuple[SeriesAside, ...] = ()
    source: str = ""
    study: str = field(default="", repr=False)


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
    """

    volume: Volume
    pixel_type: int
    source: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
