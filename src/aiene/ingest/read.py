"""One case to its CT, checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from aiene.errors import InputError, os_reason, said
from aiene.ingest.archive import opened
from aiene.ingest.case import Case, NativeCt, place
from aiene.ingest.checks import check_coverage, check_finite, check_hounsfield, check_size, check_spacing
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.formats import format_named
from aiene.ingest.hu_range import in_ct_range


def read_case(case: Case, *, room: Path | None = None) -> NativeCt:
    """The CT of a case in HU, on its own grid.

    Parameters
    ----------
    case : as `find_cases` gives it.
    room : where zip archives are unpacked; see `archive.unpacked`.

    Returns
    -------
    The CT, its values within the range of CT (`hu_range`); its warnings are those of reading alone,
    `case.warnings` come on top.

    Raises
    ------
    InputError : a file cannot be read, its geometry cannot be trusted, or its values cannot be HU of a
        patient in air. One sentence: file, problem, remedy.
    """
    where = place(case.files)
    try:
        with opened(case, room=room) as lying_open:
            ct = format_named(case.kind).read(lying_open)
            if case.members:
                ct = replace(ct, source={**ct.source, **_within(case, lying_open)})
    except OSError as error:
        raise InputError(
            where,
            said("it cannot be read ({})", os_reason(error)),
            "check that it exists, and its permissions",
        ) from error
    except UnicodeEncodeError as error:  # of a library that takes text alone for a name
        raise InputError(where, "its name or a folder's is not UTF-8", "rename it") from error
    except MemoryError as error:
        raise InputError(
            where, "it is too large for this machine's memory", "crop or resample the CT"
        ) from error
    return checked(where, ct)


def checked(where: Path, ct: NativeCt) -> NativeCt:
    """A CT whose size, spacing and values can be those of a patient in air, its values within CT's range.

    Parameters
    ----------
    where : named in the error.
    ct : as its reader gives it.

    Raises
    ------
    InputError : they cannot.
    """
    check_size(where, ct.volume.grid.size)
    check_spacing(where, ct.volume.grid.spacing)
    check_finite(where, ct.volume.array)
    odd = check_hounsfield(where, ct.volume.array)  # of the values as they came: padding is no air there
    inside = in_ct_range(where, ct.volume.array)
    return replace(
        ct,
        volume=ct.volume.with_array(inside.array),
        source={**ct.source, **inside.record},
        warnings=(*ct.warnings, *inside.warnings, *odd, *check_coverage(ct.volume)),
    )


def _within(case: Case, lying_open: Case) -> dict[str, Any]:
    """What the record says of files in archives: a hash of the CT's own, whatever else the archives hold."""
    return {
        "files": len(lying_open.files),
        "sha256": content_sha256(lying_open.files),
        "archives": [file.name for file in case.files if file not in lying_open.files],
    }
