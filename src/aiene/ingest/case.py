"""What goes in: a case before and after its CT is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiene.geometry import Volume

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

    def __str__(self) -> str:
        return (
            f"series {self.series_uid} left aside: {self.why} ({self.slices} slice{'s' * (self.slices > 1)})"
        )


@dataclass(frozen=True)
class Case:
    """One CT of one patient, found but not read yet.

    Parameters
    ----------
    case_id : unique in its run; the sub-folder's or file's name up to its first dot, told apart by a suffix.
    kind : how the CT is stored.
    files : the files that hold it; for DICOM every slice of the chosen series, in no particular order. Where
        they lie in zip archives, the archives.
    series_uid : DICOM SeriesInstanceUID of the chosen series.
    notes : why this series, what was left aside: facts for the record.
    warnings : what the user should look at.
    members : the files within archives, by paths that continue the archive's own; `ingest.opened` opens them.
    affine : which statement of a NIfTI header counts where two differ; see `find_cases`.
    aside : the other series of the study, and why each was not taken.
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
    """

    case_id: str
    reason: str
    notes: tuple[str, ...] = ()
    aside: tuple[SeriesAside, ...] = ()


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
