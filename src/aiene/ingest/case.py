"""What goes in: a case before and after its CT is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiene.geometry import Volume

Format = Literal["dicom", "nifti", "nrrd"]


@dataclass(frozen=True)
class Case:
    """One CT of one patient, found but not read yet.

    Parameters
    ----------
    case_id : unique in its run; the sub-folder's or file's name up to its first dot, told apart by a suffix.
    kind : how the CT is stored.
    files : the files that hold it; for DICOM every slice of the chosen series, in no particular order.
    series_uid : DICOM SeriesInstanceUID of the chosen series.
    notes : why this series, what was left aside: facts for the record.
    warnings : what the user should look at.
    """

    case_id: str
    kind: Format
    files: tuple[Path, ...]
    series_uid: str | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """Something in the input that should have been a case but cannot be one; becomes a failed row.

    Parameters
    ----------
    case_id : as for a `Case`.
    reason : one sentence: file, problem, remedy.
    """

    case_id: str
    reason: str


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
