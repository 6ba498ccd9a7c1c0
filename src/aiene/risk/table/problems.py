"""What is wrong with the values of a table, told in one sentence that names column, value and rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from aiene.errors import InputError

_SHOWN = 5


def listed(items: Sequence[object], *, shown: int = _SHOWN) -> str:
    """Items for a sentence: the first few, and how many more."""
    head = ", ".join(str(item) for item in items[:shown])
    more = len(items) - shown
    return f"{head} and {more} more" if more > 0 else head


def rows_of(mask: pd.Series | np.ndarray) -> str:
    """The rows where a mask holds, counted from 1 below the header: "row 3" or "rows 3, 8 and 2 more"."""
    rows = (np.flatnonzero(np.asarray(mask, dtype=bool)) + 1).tolist()
    return f"row{'s' * (len(rows) != 1)} {listed(rows)}"


@dataclass
class Findings:
    """Collects what is found in one table; the only mutable thing on the road of a table.

    Parameters
    ----------
    name : file that is spoken of.
    lenient : turn a value that cannot be right into a missing one with a warning, instead of refusing.
    default_site : site of every patient where the table tells none.
    """

    name: str
    lenient: bool = False
    default_site: str | None = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def refuse(self, problem: str, remedy: str) -> InputError:
        """The error of one sentence that the caller raises."""
        return InputError(Path(self.name), problem, remedy)

    def bad_values(self, problem: str, remedy: str) -> None:
        """Values that cannot be right: an error, or a warning where lenient.

        Raises
        ------
        InputError : unless lenient.
        """
        if not self.lenient:
            raise self.refuse(problem, f"{remedy}, or give --lenient to count them as missing")
        self.dropped.append(f"{problem}; counted as missing")

    def warn(self, sentence: str) -> None:
        """Something that the user should look at."""
        self.warnings.append(sentence)

    def note(self, sentence: str) -> None:
        """Something that was understood or derived."""
        self.notes.append(sentence)

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """Warnings and dropped values."""
        return (*self.dropped, *self.warnings)
