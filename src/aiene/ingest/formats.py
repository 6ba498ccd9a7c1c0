"""The table of volume formats: what a file is by its content, and who reads it.

Each module of `readers` declares one `FORMAT`; finding cases, masks, `--format`, fingerprints and names ask
the table, so that a further format is one further file. The modules are loaded when the table is first asked
for, since they bring their readers' libraries with them.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from aiene.errors import InputError, Said, UsageError, joined, ours, said
from aiene.ingest import readers
from aiene.ingest.file_head import Head

if TYPE_CHECKING:
    from aiene.ingest.case import Case, NativeCt

InputFormat = str
"""A word of `--format`: one of `choices()`."""


@dataclass(frozen=True)
class Format:
    """One way to store a CT.

    Parameters
    ----------
    name : as `Case.kind` and the record say it.
    title, article : as messages say it, such as `NIfTI`, and the article that its sound takes.
    choices : words of `--format` that ask for it.
    endings : of its files, in lower case; a file of such a name that is none is reported as damaged.
    recognises : whether a file's first bytes are of this format.
    read : from a case to its CT.
    other_endings : further endings that are no part of a case's name, but promise nothing.
    single_file : each file is a volume, so it can be a mask too.
    first : asked before the others, since its files may begin like any other.
    detached : whether a file of this name (lower case) may be a header whose voxels lie in other files.
    data_files : the files with the voxels that such a header names; may raise `InputError`.
    """

    name: str
    title: str
    choices: tuple[str, ...]
    endings: tuple[str, ...]
    recognises: Callable[[Head], bool]
    read: Callable[[Case], NativeCt]
    article: str = "a"
    other_endings: tuple[str, ...] = ()
    single_file: bool = True
    first: bool = False
    detached: Callable[[str], bool] = lambda _: False
    data_files: Callable[[Path], tuple[Path, ...]] = lambda _: ()


@cache
def formats() -> tuple[Format, ...]:
    """Every format, in the order in which a file is offered to them."""
    found: list[Format] = [
        import_module(f"{readers.__name__}.{module.name}").FORMAT
        for module in pkgutil.iter_modules(readers.__path__)
    ]
    return tuple(sorted(found, key=lambda entry: (not entry.first, entry.name)))


def format_named(name: str) -> Format:
    """The format of a name.

    Raises
    ------
    KeyError : there is none.
    """
    return {entry.name: entry for entry in formats()}[name]


def choices() -> tuple[InputFormat, ...]:
    """The words of `--format`."""
    return ("auto", *(word for entry in formats() for word in entry.choices))


def wanted(choice: InputFormat) -> frozenset[str]:
    """Names of the formats that a word of `--format` asks for.

    Raises
    ------
    UsageError : there is no such word.
    """
    if choice not in choices():
        raise UsageError(
            said("{}: no such input format; use {}.", choice, joined(", ", map(ours, choices())))
        )
    return frozenset(entry.name for entry in formats() if choice in ("auto", *entry.choices))


def titles() -> Said:
    """`DICOM, NIfTI or NRRD`."""
    *others, last = (entry.title for entry in formats())
    return said("{} or {}", joined(", ", map(ours, others)), ours(last))


def volume_endings() -> tuple[str, ...]:
    """Endings of files that are a volume each: a CT or a mask."""
    return tuple(ending for entry in formats() if entry.single_file for ending in entry.endings)


def name_endings() -> tuple[str, ...]:
    """Every ending that is no part of a case's name."""
    return tuple(ending for entry in formats() for ending in (*entry.endings, *entry.other_endings))


def detached_files(file: Path) -> tuple[Path, ...]:
    """The files with the voxels of a header, by its name and content; none where it is no such header.

    A header that cannot be understood names none here: it is refused when it is read.
    """
    name = file.name.lower()
    found: dict[Path, None] = {}
    for entry in formats():
        if not (name.endswith((*entry.endings, *entry.other_endings)) and entry.detached(name)):
            continue
        try:
            found.update(dict.fromkeys(path for path in entry.data_files(file) if path.is_file()))
        except (InputError, ValueError, TypeError, OSError):
            continue
    return tuple(found)


def kind_of(head: Head) -> str | None:
    """The name of a file's format by its first bytes; None where it is none that we read."""
    return next((entry.name for entry in formats() if entry.recognises(head)), None)


def claimed(path: Path) -> str | None:
    """The name of the format that a file's name promises; None where it promises none."""
    name = path.name.lower()
    return next((entry.name for entry in formats() if name.endswith(entry.endings)), None)


def claimed_volume(path: Path) -> Format:
    """The format that the name of a single-file volume, such as a mask, promises.

    Raises
    ------
    InputError : its name has no ending that we know.
    """
    name = path.name.lower()
    for entry in formats():
        if entry.single_file and name.endswith(entry.endings):
            return entry
    problem = "its extension is not that of a supported format"
    raise InputError(path, problem, said("use {}", joined(", ", map(ours, volume_endings()))))


def is_zip(head: Head) -> bool:
    """Whether a file is a zip archive, empty ones included."""
    return head.content[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def by_name(path: Path) -> bytes:
    """Sort key: the whole path in byte order, the same on every machine and in every language setting."""
    return os.fsencode(path)
