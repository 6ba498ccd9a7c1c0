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
template (its code) with arguments, and those that identify are marked as a `Name`. Shown as it is, it is a
plain `str`; a pseudonymised run renders the same sentence again with a stand-in for each name, without
looking for names in text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from logging import Logger
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


@dataclass(frozen=True)
class _Free:
    """Text of unknown making within a sentence: it may hold names that nobody marked."""

    text: str


_Piece = str | Name | _Free


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

    def without_names(self, stand_in: Callable[[Name], str], scrub: Callable[[str], str]) -> str:
        """The sentence again, with stand-ins.

        Parameters
        ----------
        stand_in : what to show in place of a name.
        scrub : what to show of an argument that was plain text.
        """
        shown = {str: str, Name: stand_in, _Free: lambda piece: scrub(piece.text)}
        return "".join(visible(shown[type(piece)](piece)) for piece in self._pieces)  # type: ignore[operator]

    def before(self, mark: str, more: str) -> Said:
        """With another clause before the first `mark` of its template."""
        for number, piece in enumerate(self._pieces):
            if isinstance(piece, str) and mark in piece:
                head, _, tail = piece.partition(mark)
                return Said.of(
                    (
                        *self._pieces[:number],
                        head,
                        *_pieces_of(more),
                        mark + tail,
                        *self._pieces[number + 1 :],
                    )
                )
        return self


def said(template: str, *arguments: object) -> Said:
    """A sentence from a template with `{}` for each argument.

    Parameters
    ----------
    template : our own words; holds no name.
    arguments : a `Name`, another sentence, a number, or text of unknown making.
    """
    literals = template.split("{}")
    if len(literals) != len(arguments) + 1:
        raise ValueError(f"{len(arguments)} arguments for {template!r}")
    pieces: list[_Piece] = [literals[0]]
    for argument, literal in zip(arguments, literals[1:], strict=True):
        pieces += [*_pieces_of(argument), literal]
    return Said.of(pieces)


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


def _pieces_of(argument: object) -> tuple[_Piece, ...]:
    if isinstance(argument, Said):
        return argument._pieces
    if isinstance(argument, Name):
        return (argument,)
    if isinstance(argument, str):
        return (_Free(argument),)
    return (str(argument),)


def counted(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`; for nouns that take an s."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class AieneError(Exception):
    """Base of every error that is told to the user in one sentence."""

    @property
    def told(self) -> Said:
        """The sentence, with the names in it marked."""
        own = self.args[0] if len(self.args) == 1 else None
        return own if isinstance(own, Said) else said("{}", str(self))


class _FileError(AieneError):
    """A problem with one file or folder.

    Parameters
    ----------
    path : the file or folder; only its name is shown, since the folders above may name a patient.
    problem : what is wrong, without a full stop; `said` where it holds a name.
    remedy : what the user can do, without a full stop.
    """

    def __init__(self, path: Path | str, problem: str, remedy: str) -> None:
        super().__init__(path, problem, remedy)
        self.path, self.problem, self.remedy = Path(path), problem, remedy

    @property
    def told(self) -> Said:
        """The sentence, with the names in it marked."""
        return said("{}: {}; {}.", file_name(self.path), self.problem, self.remedy)

    def __str__(self) -> str:
        return str(self.told)


class InputError(_FileError):
    """A file or folder that was given as input cannot be used as it is."""


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
        return said("{}; {}.", self.problem, self.remedy)

    def __str__(self) -> str:
        return str(self.told)


class CaseError(ProblemError):
    """A CT that was read, but for which no trustworthy result can be given."""


class ProblemsError(AieneError):
    """Input with more than one problem; all of them at once.

    Parameters
    ----------
    problems : one sentence each; `said` where it holds a name.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

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

    def __str__(self) -> str:
        if self.broken:
            said = f"{self.module}, which is installed but cannot be loaded ({self.broken})"
            return f"{self.purpose} needs {said}; reinstall aiene[{self.extra}], all parts from one build."
        return f"{self.purpose} needs {self.module}; install aiene[{self.extra}]."


class UnforeseenError(AieneError):
    """A fault of the program's own; the log has the traceback.

    Parameters
    ----------
    kind : name of the exception's class.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind

    def __str__(self) -> str:
        return f"internal error ({self.kind}), see the log."


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
        raise MissingExtraError(purpose, module, extra, _first_line(error)) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingExtraError(purpose, module, extra, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
