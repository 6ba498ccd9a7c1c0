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
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from logging import Logger
from pathlib import Path
from typing import TypeVar

from aiene.wording import Said, file_name, said


class AieneError(Exception):
    """Base of every error that is told to the user in one sentence."""

    @property
    def told(self) -> Said:
        """The sentence, with the names in it marked."""
        return said("{}", str(self))


class _FileError(AieneError):
    """A problem with one file or folder.

    Parameters
    ----------
    path : the file or folder; only its name is shown, since the folders above may name a patient.
    problem : what is wrong, without a full stop; `wording.said` where it holds a name.
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
    problems : one sentence each.
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
    """

    def __init__(self, purpose: str, module: str, extra: str) -> None:
        super().__init__(purpose, module, extra)
        self.purpose, self.module, self.extra = purpose, module, extra

    def __str__(self) -> str:
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
