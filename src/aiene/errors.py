"""The errors that a user can meet, by what the user can do about them.

    AieneError
    ├── InputError      a file or folder cannot be used as it is: mend or leave out that input
    ├── ProblemsError   every problem of a table, or of the pairs for a training, in one list
    ├── ModelError      a model bundle (or an asset to import) cannot be used: get it again
    ├── OutputError     results cannot be written: another place, more room, other permissions
    ├── CaseError       the CT was read, but no trustworthy result can be given for it
    ├── UsageError      the command's words do not fit together
    └── MissingExtraError  an optional part of the installation is not there: install it

Each is one sentence: which file, what is wrong, what to do. All survive pickling, since cases are prepared in
other processes.

Names of files, case ids and UIDs may say who a patient is. A note, a warning or an error is therefore a
template (its code) with arguments, made by `said`. Shown as it is, it is a plain `str`; a pseudonymised run
renders the same sentence again: numbers and words of ours as they are, a stand-in for each `Name`, and of
everything else, such as what a library or a header says, nothing. No text is searched for names.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from logging import Logger
from numbers import Number
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, Self, TypeVar

Kind = Literal["file", "case", "uid"]

_INVISIBLE: Final = frozenset("\u061c\u200b\u200e\u200f\u2028\u2029\u2060\ufeff") | frozenset(
    chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
)
"""Marks that reorder or break text on the screen (Unicode TR36), so that a name shows as what it is not."""

_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def is_hidden(char: str) -> bool:
    """Whether a character does something on a screen instead of showing: control, bidi, half of a pair."""
    return unicodedata.category(char) in ("Cc", "Cs") or char in _INVISIBLE


def visible(text: str, *, keep: str = "") -> str:
    """The text with every control character as an escape that can be read, `\\n` or `\\x1b`.

    Bytes of a file name that is not UTF-8 (Python's surrogate escapes) become `\\xe9`, so the result can
    always be encoded.

    Parameters
    ----------
    keep : characters that stay, such as the line ends of a text of our own.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if c not in keep and is_hidden(c) else c for c in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as Python carries it
        code -= 0xDC00
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


@dataclass(frozen=True)
class Name:
    """A word that may say who a patient is.

    Parameters
    ----------
    kind : name of a file or folder, case id or DICOM UID.
    text : as it is in the input.
    """

    kind: Kind
    text: str


NOT_SHOWN: Final = "[not shown]"
"""Stands for text of unknown making in a sentence without names."""


@dataclass(frozen=True)
class Foreign:
    """Text that is not ours, such as a library's or a header's: it may hold names.

    Parameters
    ----------
    text : as it came.
    instead : what to show where names are hidden.
    """

    text: str
    instead: str = NOT_SHOWN


_Piece = str | Name | Foreign


class Said(str):
    """A sentence as shown with its names; made by `said`."""

    __slots__ = ("_pieces",)
    _pieces: tuple[_Piece, ...]

    @classmethod
    def of(cls, pieces: Iterable[_Piece]) -> Self:
        """From template text, names, and text of unknown making."""
        parts = tuple(pieces)
        sentence = super().__new__(cls, "".join(visible(p if isinstance(p, str) else p.text) for p in parts))
        sentence._pieces = parts
        return sentence

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[tuple[_Piece, ...]]]:
        return type(self).of, (self._pieces,)

    def without_names(self, stand_in: Callable[[Name], str]) -> str:
        """The sentence again, with stand-ins for names and without text that is not ours.

        Parameters
        ----------
        stand_in : what to show in place of a name.
        """
        shown = (
            stand_in(p) if isinstance(p, Name) else p.instead if isinstance(p, Foreign) else p
            for p in self._pieces
        )
        return "".join(map(visible, shown))

    def before(self, mark: str, more: Said) -> Said:
        """With another clause before the first part of its template that begins with `mark`."""
        parts = self._pieces
        for number, piece in enumerate(parts):
            if isinstance(piece, str) and piece.startswith(mark):
                return Said.of((*parts[:number], *more._pieces, *parts[number:]))
        return self


_SLOT: Final = re.compile(r"\{(![rs])?(:[^{}]*)?\}")


def said(template: str, *arguments: object) -> Said:
    """A sentence from a template with `{}` for each argument; `{:.1f}` and `{!r}` as in `str.format`.

    Parameters
    ----------
    template : our own words, a literal or a constant; holds no name.
    arguments : a number, a `Name`, another sentence, a word in `ours`; all else is not shown without names.
    """
    slots = list(_SLOT.finditer(template))
    if len(slots) != len(arguments):
        raise ValueError(f"{len(arguments)} arguments for {template!r}")
    pieces: list[_Piece] = []
    end = 0
    for slot, argument in zip(slots, arguments, strict=True):
        pieces += [template[end : slot.start()], *_pieces_of(argument, slot[1] == "!r", (slot[2] or ":")[1:])]
        end = slot.end()
    return Said.of((*pieces, template[end:]))


def ours(words: str) -> Said:
    """Words of our own that are no literal in place, such as the name of an option, a format or a unit."""
    return words if isinstance(words, Said) else Said.of((words,))


def os_reason(error: OSError, otherwise: str | None = None) -> Foreign:
    """Why the system could not do something, as an argument; without names, what its number stands for.

    Parameters
    ----------
    otherwise : where the system does not say why.
    """
    text = error.strerror or otherwise or str(error.strerror)
    return Foreign(text, os.strerror(error.errno) if error.errno else type(error).__name__)


def library_reason(error: BaseException, text: str | None = None) -> Foreign:
    """What a library says of a failure, as an argument; without names, its kind alone.

    Parameters
    ----------
    text : the part of its words that matters; None: all of them.
    """
    return Foreign(str(error) if text is None else text, type(error).__name__)


def joined(separator: str, parts: Iterable[object]) -> Said:
    """Several arguments with a separator between them."""
    every = list(parts)
    return said(separator.join(["{}"] * len(every)), *every) if every else said("")


def file_name(path: Path | str) -> Name:
    """The last part of a path, as an argument; the folders above may name a patient too."""
    return Name("file", Path(path).name or str(path))


def case_name(case_id: str) -> Name:
    """A case id, as an argument."""
    return Name("case", case_id)


def uid_name(uid: str) -> Name:
    """A DICOM UID, as an argument."""
    return Name("uid", uid)


def _pieces_of(argument: object, as_repr: bool, spec: str) -> tuple[_Piece, ...]:
    if isinstance(argument, Said):
        return argument._pieces
    if isinstance(argument, Name | Foreign):
        return (argument,)
    text = format(repr(argument) if as_repr else argument, spec)
    return (text if _is_numeric(argument) else Foreign(text),)


def _is_numeric(argument: object) -> bool:
    """Whether it is a number, or several: a size, a spacing."""
    if isinstance(argument, list | tuple):
        return all(map(_is_numeric, argument))
    return argument is None or isinstance(argument, Number)


def counted(number: int, noun: str) -> Said:
    """`1 node`, `2 nodes`; for nouns that take an s."""
    return said("{} {}{}", number, ours(noun), ours("" if number == 1 else "s"))


class AieneError(Exception):
    """Base of every error that is told to the user in one sentence.

    Its words are literals, or `said` where anything is put in (`tests/test_messages.py` holds it).
    """

    @property
    def told(self) -> Said:
        """The sentence, with the names in it marked."""
        own = self.args[0] if len(self.args) == 1 else None
        return ours(own) if isinstance(own, str) else said("{}", super().__str__())

    def __str__(self) -> str:
        return str(self.told)


class _FileError(AieneError):
    """A problem with one file or folder.

    Parameters
    ----------
    path : the file or folder; only its name is shown, since the folders above may name a patient.
    problem : what is wrong, without a full stop; `said` where anything is put in.
    remedy : what the user can do, without a full stop.
    """

    def __init__(self, path: Path | str, problem: str, remedy: str) -> None:
        super().__init__(path, problem, remedy)
        self.path, self.problem, self.remedy = Path(path), problem, remedy

    @property
    def told(self) -> Said:
        """The sentence, with the names in it marked."""
        return said("{}: {}; {}.", file_name(self.path), ours(self.problem), ours(self.remedy))


class InputError(_FileError):
    """A file or folder that was given as input cannot be used as it is."""


@contextmanager
def reading(path: Path | str, remedy: str = "check its permissions") -> Iterator[None]:
    """Turn the system's errors on reading `path` into one sentence.

    Raises
    ------
    InputError : it cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise InputError(path, said("it cannot be read ({})", os_reason(error)), remedy) from error


class ModelError(_FileError):
    """A model bundle, or an asset that should become one, cannot be used."""


class OutputError(_FileError):
    """A result cannot be written."""


class ProblemError(AieneError):
    """A problem that lies in no single file.

    Parameters
    ----------
    problem : what was found, without a full stop.
    remedy : what the user can do, without a full stop.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    @property
    def told(self) -> Said:
        """The sentence, with the names in it marked."""
        return said("{}; {}.", ours(self.problem), ours(self.remedy))


class CaseError(ProblemError):
    """A CT that was read, but for which no trustworthy result can be given."""


class ProblemsError(AieneError):
    """Input with more than one problem; all of them at once.

    Parameters
    ----------
    problems : one sentence each, made by `said`; a plain one is not shown without names.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    @property
    def told(self) -> Said:
        """All of them, with the names in them marked."""
        if len(self.problems) == 1:
            return said("{}", self.problems[0])
        return said("{} problems:\n  {}", len(self.problems), joined("\n  ", self.problems))

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        return "\n  ".join([f"{len(self.problems)} problems:", *self.problems])


class TableError(ProblemsError):
    """Rows of a table that cannot be used."""


class TrainingDataError(ProblemsError):
    """Images, labels or tables for a training that cannot be used."""


class UsageError(AieneError):
    """The command's words do not fit together."""


class MissingExtraError(AieneError):
    """An optional part of the installation is not there.

    Parameters
    ----------
    purpose : what needs it, as the subject of a sentence.
    module : the module that is missing.
    extra : the extra of this package that brings it.
    broken : why it cannot be loaded although it is installed; empty where it is not there.
    """

    def __init__(self, purpose: str, module: str, extra: str, broken: str = "") -> None:
        super().__init__(purpose, module, extra, broken)
        self.purpose, self.module, self.extra, self.broken = purpose, module, extra, broken

    @property
    def told(self) -> Said:
        """The sentence, with the loader's words marked as not ours."""
        purpose, module, extra = map(ours, (self.purpose, self.module, self.extra))
        if self.broken:
            template = (
                "{} needs {}, which is installed but cannot be loaded ({}); reinstall aiene[{}], all parts "
                "from one build."
            )
            return said(template, purpose, module, self.broken, extra)
        return said("{} needs {}; install aiene[{}].", purpose, module, extra)


class UnforeseenError(AieneError):
    """A fault of the program's own; the log has the traceback.

    Parameters
    ----------
    kind : name of the exception's class.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind

    @property
    def told(self) -> Said:
        """The sentence."""
        return said("internal error ({}), see the log.", ours(self.kind))


Outcome = TypeVar("Outcome")


def attempt(
    work: Callable[[], Outcome],
    failed: Callable[[AieneError], Outcome],
    *,
    log: Logger,
    what: str,
    shown: Callable[[Exception], Exception] = lambda error: error,
    remedy: str = "try --jobs 1 or a machine with more memory",
) -> Outcome:
    """What comes of one case's work, whatever happens: the only broad handler of the package.

    Parameters
    ----------
    failed : makes a row of the failure; may raise it again where nothing can go on.
    log, what : who writes down a fault of our own, and as what; never the id, which may be the patient's.
    shown : an unforeseen error as it may stand in the log.
    remedy : against a lack of memory.
    """
    try:
        return work()
    except AieneError as error:
        return failed(error)
    except MemoryError:
        return failed(CaseError("not enough memory for this CT", remedy))
    except Exception as error:
        log.exception(what, exc_info=shown(error))
        return failed(UnforeseenError(type(error).__name__))


def need(module: str, *, extra: str, purpose: str) -> ModuleType:
    """A module of an optional extra.

    Parameters
    ----------
    module : name to import.
    extra : the extra of this package that brings it.
    purpose : what needs it, as the subject of a sentence: "Stratifying".

    Raises
    ------
    MissingExtraError : it is not installed, or is there but does not load: binaries of two builds side by
        side (torchvision of another torch) raise RuntimeError or OSError on import.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == module.split(".")[0]:
            raise MissingExtraError(purpose, module, extra) from error
        raise MissingExtraError(purpose, module, extra, first_line(error)) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingExtraError(purpose, module, extra, first_line(error)) from error


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
