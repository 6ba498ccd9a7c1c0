"""One case to its CT, checked; files of zip archives from a temporary folder that is gone afterwards.

A file inside an archive is spoken of by a path that continues the archive's own, `study.zip/series/IM1`.
Nothing is ever written under a name that leads out of the temporary folder, nor more than the archive
promises or the disk holds.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final
from zipfile import ZipFile, ZipInfo

from aiene.errors import InputError, ModelError, os_reason, said
from aiene.ingest.case import Case, NativeCt, place
from aiene.ingest.checks import (
    check_coverage,
    check_finite,
    check_hounsfield,
    check_size,
    check_spacing,
    in_ct_range,
)
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.formats import format_named
from aiene.results.atomic import Room, clear_abandoned

MAX_MEMBERS: Final = 200_000
MAX_RATIO: Final = 200
"""CTs shrink two to six times, blank ones more; over a GiB that shrank by this much is a trap."""

_SMALL: Final = 1 << 30
_SPARE: Final = 256 << 20  # bytes left free on the disk of temporary files
_BROKEN: Final = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError,
    struct.error,
)  # fmt: skip
_Member = tuple[ZipInfo, PurePosixPath]


@contextmanager
def unpacked(
    archive: Path, only: Collection[Path] | None = None, *, room: Path | None = None
) -> Iterator[Path]:
    """A temporary folder that holds what is in a zip archive; gone when the context is left.

    Parameters
    ----------
    archive : the zip file.
    only : take these files alone, by their paths that continue the archive's.
    room : where the temporary folder is made, by a caller who clears it after a process that was killed; None
        is the system's place for such, where the next call clears what a killed one left.

    Raises
    ------
    InputError : it is damaged, encrypted or a trap: a name that leads out of it, far more data than its size
        or the disk can hold, too many files. One sentence.
    """
    with _temporary_folder(archive, room) as place:
        folder = place / archive.name
        try:
            folder.mkdir()
            with ZipFile(archive) as file:
                members = _members(archive, file)
                if only is not None:
                    members = [m for m in members if archive / m[1] in only]
                _check_room(archive, members, folder)
                for info, name in members:
                    _unpack(file, info, folder / name)
        except _BROKEN as error:
            raise InputError(
                archive, "it is damaged or no zip archive that can be read", "create or copy it again"
            ) from error
        except OSError as error:
            raise _not_unpacked(archive, error) from error
        yield folder


@contextmanager
def _temporary_folder(archive: Path, room: Path | None) -> Iterator[Path]:
    """A private folder that ends with the context, or is cleared by a later call where this one is killed."""
    with ExitStack() as stack:
        try:
            if room is not None:
                made = tempfile.TemporaryDirectory(prefix="zip-", dir=room, ignore_cleanup_errors=True)
                place = Path(stack.enter_context(made))
            else:
                base = Path(tempfile.gettempdir())
                clear_abandoned(base)
                place = stack.enter_context(Room(base)).path / "in"
                place.mkdir()
        except OSError as error:
            raise _not_unpacked(archive, error) from error
        yield place


def _not_unpacked(archive: Path, error: OSError) -> InputError:
    return InputError(
        archive,
        said("it cannot be unpacked ({})", os_reason(error, "input/output error")),
        "check its permissions and the room for temporary files, or unpack it yourself",
    )


def split(files: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Paths, some of them into archives, as the files that really lie there, and those within archives."""
    holders = {folder: _holder(folder) for folder in {file.parent for file in files}}
    there = {holders[file.parent] or file for file in files}
    inside = sorted(file for file in files if holders[file.parent])
    return tuple(sorted(there)), tuple(inside)


def _holder(folder: Path) -> Path | None:
    """The archive in which a folder lies, if it does."""
    if folder.is_dir():
        return None
    return next((parent for parent in (folder, *folder.parents) if parent.is_file()), None)


def _members(archive: Path, file: ZipFile) -> list[_Member]:
    """Each file with the name under which it may be written."""
    infos = file.infolist()
    if len(infos) > MAX_MEMBERS:
        raise InputError(
            archive, said("it holds {} files", len(infos)), "give a smaller archive, or unpack it yourself"
        )
    members: list[_Member] = []
    taken: set[str] = set()
    for info in infos:
        parts = _parts(archive, info)
        hidden = any(part.startswith(".") for part in parts) or parts[:1] == ["__MACOSX"]
        if not parts or info.is_dir() or hidden or stat.S_ISLNK(info.external_attr >> 16):
            continue
        if info.flag_bits & 0x1:
            raise InputError(archive, "it is encrypted", "unpack it with its password first")
        name = PurePosixPath(*parts)
        while str(name).lower() in taken:  # two files of one name: both count
            name = name.with_name(f"again_{name.name}")
        taken.add(str(name).lower())
        members.append((info, name))
    return members


def _parts(archive: Path, info: ZipInfo) -> list[str]:
    name = info.orig_filename.split("\0")[0].replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or (parts and parts[0][1:2] == ":"):
        problem = "a name in it leads out of the archive, as in an attack"
        raise InputError(archive, problem, "ask whoever made it, or make it again")
    return parts


def _check_room(archive: Path, members: Sequence[_Member], folder: Path) -> None:
    full = sum(info.file_size for info, _ in members)
    packed = sum(info.compress_size for info, _ in members)
    packed = min(packed, archive.stat().st_size)  # members may overlap in the file
    if full > _SMALL and full > MAX_RATIO * max(packed, 1):
        problem = said("it would expand {} times, like a decompression bomb", full // max(packed, 1))
        raise InputError(archive, problem, "unpack it yourself if you trust it")
    free = shutil.disk_usage(folder).free - _SPARE
    if full > free:
        raise InputError(
            archive,
            said(
                "unpacking it needs {:.2f} GiB, and {:.2f} GiB are free", full / 2**30, max(free, 0) / 2**30
            ),
            "free space for temporary files, or unpack it yourself",
        )


def _unpack(file: ZipFile, info: ZipInfo, target: Path) -> None:
    """Write one file that is not there; zipfile itself reads no more than was promised and checks the sum."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open(info) as source, target.open("xb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


# Unpacking the ZIP files of strangers: nothing outside the target, nothing endless.


MOST_ENTRIES = 20_000
MOST_BYTES = 8 * 1024**3
_REMEDY = "unpack it yourself, check it, and name the folder"


def unpack(archive: Path, target: Path, wanted: Iterable[str]) -> None:
    """Unpack the files with a wanted ending, and no other, into a folder.

    Parameters
    ----------
    archive : a ZIP file.
    target : an empty folder.
    wanted : endings of file names, as `.json`.

    Raises
    ------
    ModelError : no ZIP file, a damaged or encrypted one, an entry that is a link or would lie outside the
        target, or more than `MOST_ENTRIES` entries or `MOST_BYTES` bytes.
    """
    endings = tuple(wanted)
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise ModelError(archive, "is far too large for a model", _REMEDY)
            for path, entry in [(_inside(archive, entry), entry) for entry in entries]:
                if entry.filename.endswith(endings):
                    _unpack(opened, entry, target / path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(archive, "is not a ZIP file, or is damaged or encrypted", _REMEDY) from error
    except OSError as error:
        raise ModelError(archive, "cannot be unpacked", _REMEDY) from error


def _inside(archive: Path, entry: ZipInfo) -> PurePosixPath:
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts or ":" in entry.filename
    if outside or stat.S_ISLNK(entry.external_attr >> 16):
        raise ModelError(archive, "holds a link, or a file that would lie outside the folder", _REMEDY)
    return path


@contextmanager
def opened(case: Case, *, room: Path | None = None) -> Iterator[Case]:
    """The case with files that can be opened, those within zip archives from a temporary folder.

    Raises
    ------
    InputError : an archive cannot be unpacked any more, or a file in it has gone.
    """
    if not case.members:
        yield case
        return
    with ExitStack() as stack:
        files: list[Path] = []
        for file in case.files:
            within = {member for member in case.members if file in member.parents}
            if not within:
                files.append(file)
                continue
            wanted = None if _in_parts(case) else within
            folder = stack.enter_context(unpacked(file, wanted, room=room))
            files += [folder / member.relative_to(file) for member in sorted(within)]
        for path in files:
            if not path.exists():
                raise InputError(path, "it no longer exists", "restore the input, or start again")
        yield replace(case, files=tuple(files), members=())


def _in_parts(case: Case) -> bool:
    """The voxels may lie in another file than the header, whose name is known only once it is read."""
    return any(format_named(case.kind).detached(member.name.lower()) for member in case.members)


def read_case(case: Case, *, room: Path | None = None) -> NativeCt:
    """The CT of a case in HU, on its own grid.

    Parameters
    ----------
    case : as `find_cases` gives it.
    room : where zip archives are unpacked; see `unpacked`.

    Returns
    -------
    The CT, its values within the range of CT (`checks.in_ct_range`); its warnings are those of reading alone,
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
        problem = said("it cannot be read ({})", os_reason(error))
        raise InputError(where, problem, "check that it exists, and its permissions") from error
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
