"""One case to its CT, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from aiene.errors import InputError
from aiene.ingest.case import Case, Format, NativeCt
from aiene.ingest.dicom.read import place, read_dicom
from aiene.ingest.limits import check_size, check_spacing
from aiene.ingest.nifti import read_nifti
from aiene.ingest.nrrd import read_nrrd
from aiene.ingest.plausibility import check_coverage, check_finite, check_hounsfield

_READERS: Final[dict[Format, Callable[[Case], NativeCt]]] = {
    "dicom": read_dicom,
    "nifti": read_nifti,
    "nrrd": read_nrrd,
}


def read_case(case: Case) -> NativeCt:
    """The CT of a case in HU, on its own grid.

    Parameters
    ----------
    case : as `find_cases` gives it.

    Returns
    -------
    The CT; its warnings are those of reading alone, `case.warnings` come on top.

    Raises
    ------
    InputError : a file cannot be read, its geometry cannot be trusted, or its values cannot be HU of a
        patient in air. One sentence: file, problem, remedy.
    """
    where = place(case.files)
    try:
        ct = _READERS[case.kind](case)
    except OSError as error:
        raise InputError(
            where, f"it cannot be read ({error.strerror})", "check that it is there, and its permissions"
        ) from error
    except MemoryError as error:
        raise InputError(
            where, "it is too large for this machine's memory", "crop or resample the CT"
        ) from error
    check_size(where, ct.volume.grid.size)
    check_spacing(where, ct.volume.grid.spacing)
    check_finite(where, ct.volume.array)
    odd = check_hounsfield(where, ct.volume.array)
    return replace(ct, warnings=(*ct.warnings, *odd, *check_coverage(ct.volume)))
