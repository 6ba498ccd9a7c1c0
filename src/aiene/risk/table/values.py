"""Values of one column: from text to a type, each distinct value once; errors name column, value and rows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiene.errors import InputError, TableError
from aiene.risk.table.columns import Column

_SHOWN = 5
_WHOLE = re.compile(r"(\d+)\.0+")  # 7.0: what a spreadsheet makes of 7 in a column with gaps

Reader = Callable[[str], Any]
"""Reads one value; None where it makes no sense of it."""

_YES = frozenset({"1", "true", "t", "yes", "y"})
_NO = frozenset({"0", "false", "f", "no", "n"})
_DIED = frozenset({"dead", "died", "deceased", "death"})
_LIVES = frozenset({"alive", "living"})
_SYNONYMS: dict[str, dict[str, str]] = {
    "hpv": {"pos": "positive", "neg": "negative", "+": "positive", "-": "negative",
            "p16+": "positive", "p16-": "negative", "hpv+": "positive", "hpv-": "negative",
            "p16_pos": "positive", "p16_neg": "negative", "p16_positive": "positive",
            "p16_negative": "negative", "hpv_positive": "positive", "hpv_negative": "negative"},
    "sex": {"m": "male", "f": "female", "man": "male", "woman": "female"},
    "pack_years_class": {"<=10": "le10", "≤10": "le10", ">10": "gt10"},
    "smoking_status": {"non_smoker": "never", "never_smoker": "never", "ex_smoker": "former", "ex": "former",
                       "former_smoker": "former", "current_smoker": "current", "smoker": "current"},
}  # fmt: skip

_NOT_KNOWN = frozenset(
    {"unknown", "unk", "ukn", "not known", "n/k", "nk", "not tested", "untested", "not done", "not available",
     "not assessed", "not recorded", "not reported", "not stated", "missing", "?", "-", "--"}
)  # fmt: skip
"""What stands in a cell that nobody could fill. Not as a site, where it may mean an unknown primary."""


def listed(items: Sequence[object], *, shown: int = _SHOWN) -> str:
    """Items for a sentence: the first few, and how many more."""
    head = ", ".join(str(item) for item in items[:shown])
    more = len(items) - shown
    return f"{head} and {more} more" if more > 0 else head


def quoted(texts: pd.Series) -> str:
    """The distinct values of a column for a sentence: the first few in quotation marks, and how many more."""
    return listed([f'"{word}"' for word in pd.unique(texts)])


def rows_of(mask: pd.Series | np.ndarray) -> str:
    """The rows where a mask holds, counted from 1 below the header: "row 3" or "rows 3, 8 and 2 more"."""
    rows = (np.flatnonzero(np.asarray(mask, dtype=bool)) + 1).tolist()
    return f"row{'s' * (len(rows) != 1)} {listed(rows)}"


@dataclass
class Findings:
    """Collects what is found in one table; the only mutable object in the reading of a table.

    Parameters
    ----------
    name : file that is spoken of.
    lenient : turn a value that cannot be right into a missing one with a warning, instead of refusing.
    default_site : site of every patient where the table tells none.
    edition : of T and N where the table does not say it.
    problems : what makes the table unusable, so far.
    flawed : canonical columns with such a problem; what would only follow from it is not told too.
    """

    name: str
    lenient: bool = False
    default_site: str | None = None
    edition: str | None = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    problems: list[InputError] = field(default_factory=list)
    flawed: set[str] = field(default_factory=set)

    def refuse(self, problem: str, remedy: str) -> InputError | TableError:
        """The error that the caller raises where reading cannot go on; it tells all earlier problems too."""
        self.wrong(problem, remedy)
        return self._error()

    def wrong(self, problem: str, remedy: str, *columns: str) -> None:
        """Something that makes the table unusable, while the rest of it can still be looked at."""
        told = InputError(Path(self.name), problem, remedy)
        if str(told) not in map(str, self.problems):
            self.problems.append(told)
        self.flawed.update(columns)

    def bad_values(self, problem: str, remedy: str, *columns: str) -> None:
        """Values that cannot be right, and that the caller takes out: a problem, or told where lenient."""
        if not self.lenient:
            self.wrong(problem, f"{remedy}, or give --lenient to count them as missing", *columns)
        else:
            self.dropped.append(f"{problem}; counted as missing")

    def raise_problems(self) -> None:
        """End here if anything makes the table unusable.

        Raises
        ------
        InputError : one problem.
        TableError : several.
        """
        if self.problems:
            raise self._error()

    def _error(self) -> InputError | TableError:
        return self.problems[0] if len(self.problems) == 1 else TableError([str(p) for p in self.problems])

    def warn(self, sentence: str) -> None:
        """Something that the user should look at."""
        self.warnings.append(sentence)

    def note(self, sentence: str) -> None:
        """Something that was understood or derived."""
        self.notes.append(sentence)


_TOTALS = frozenset(
    {"total", "totals", "grand total", "subtotal", "sum", "mean", "average", "median", "count", "overall"}
)
"""First cells of rows that sum a table up; no patient is called that."""


def without_totals(table: pd.DataFrame, ids: str, findings: Findings) -> pd.DataFrame:
    """The table without rows that sum it up, which are told.

    Parameters
    ----------
    table : text.
    ids : column of the patients' names.
    """
    if ids not in table:
        return table
    words = table[ids].astype("string").str.strip().str.rstrip(":").str.casefold()
    sums = words.isin(_TOTALS).to_numpy(dtype=bool)
    if not sums.any():
        return table
    findings.warn(
        f"{quoted(table[ids][sums])} in {rows_of(sums)} summarises the table and is not a patient; left out"
    )
    return table.loc[~sums].reset_index(drop=True)


def understood(texts: pd.Series, read: Reader) -> tuple[pd.Series, np.ndarray]:
    """Each distinct value read once.

    Returns
    -------
    The values as objects (None where missing or not understood), and where a value was not understood.
    """
    codes, distinct = pd.factorize(texts, use_na_sentinel=True)
    values = np.empty(len(distinct) + 1, dtype=object)
    values[:-1] = [read(str(word)) for word in np.asarray(distinct, dtype=object)]
    bad = np.array([value is None for value in values[:-1]] + [False])
    return pd.Series(values[codes], index=texts.index), bad[codes]


def typed(texts: pd.Series, column: Column, findings: Findings) -> pd.Series:
    """A column of text as its type; values that cannot be right are told once with their rows.

    Parameters
    ----------
    texts : `string`, missing is NA.
    column : what it must be.
    findings : where problems go.

    Raises
    ------
    InputError : a value that is not allowed, unless lenient.
    """
    if column.kind == "float" and pd.api.types.is_float_dtype(texts.dtype):
        return _within(_finite(texts.astype("float64"), column, findings), column, findings)
    reader = _reader(column)
    values, bad = understood(texts, reader)
    if bad.any() and column.name != "site":
        unknown = bad & texts.str.casefold().isin(_NOT_KNOWN).to_numpy(dtype=bool)
        if unknown.any():
            findings.note(f"{column.name}: {quoted(texts[unknown])} read as missing in {rows_of(unknown)}")
        bad &= ~unknown
        texts = texts.mask(unknown)
    if bad.any():
        _tell_bad(texts, bad, column, findings)
    if column.kind == "event":
        _note_words(texts[~bad], column, findings)
    if column.kind == "float":
        return _within(values.astype("float64"), column, findings)
    out = pd.Series(values.to_numpy(), index=values.index, dtype=column.dtype)
    return _within(out, column, findings)


def _finite(values: pd.Series, column: Column, findings: Findings) -> pd.Series:
    endless = np.isinf(values.to_numpy())
    if endless.any():
        problem = f"{column.name} is infinite in {rows_of(endless)}"
        findings.bad_values(problem, "give a number", column.name)
    return values.mask(endless)


def _within(values: pd.Series, column: Column, findings: Findings) -> pd.Series:
    if column.kind not in ("float", "count"):
        return values
    outside = ((values < 0) | (values > column.high)).fillna(False).to_numpy(dtype=bool)
    if not outside.any():
        return values
    shown = listed([f"{v:g}" for v in pd.unique(values[outside].astype("float64"))])
    if column.name.endswith("_time"):
        problem = f"{column.name} is negative ({shown}) in {rows_of(outside)}"
        findings.bad_values(
            problem, "times cannot be before the origin; correct the dates or the origin", column.name
        )
    else:
        limits = f"0 to {column.high:g}" if math.isfinite(column.high) else "0 on"
        problem = f"{column.name} is {shown} in {rows_of(outside)}, but must be from {limits}"
        findings.bad_values(problem, "correct the values or their unit", column.name)
    return values.mask(outside)


def _tell_bad(texts: pd.Series, bad: np.ndarray, column: Column, findings: Findings) -> None:
    problem = f"{column.name} holds {quoted(texts[bad])} in {rows_of(bad)}"
    if column.kind == "event" and set(pd.unique(texts.dropna())) <= {"1", "2"}:
        problem = f"{column.name} is coded 1 and 2, which is ambiguous"
        findings.wrong(problem, _remedy(column), column.name)  # lenient too: what 1 means is as open as 2
        return
    findings.bad_values(problem, _remedy(column), column.name)


def _remedy(column: Column) -> str:
    mapping = f"or explain them under [values.{column.name}] of a mapping file (aiene risk import)"
    if column.kind == "event":
        return f"an event is 0 (censored) or 1 (happened); recode them, {mapping}"
    if column.kind == "category":
        empty = "an empty cell for a site that is not known" if column.name == "site" else "an empty cell"
        return f"allowed are {', '.join(column.words)} and {empty}; recode them, {mapping}"
    if column.kind == "bool":
        return f"give yes or no; recode them, {mapping}"
    return "give a number" if column.kind == "float" else "give a whole number"


def _note_words(texts: pd.Series, column: Column, findings: Findings) -> None:
    words = {str(word).casefold() for word in pd.unique(texts.dropna())} - {"0", "1"}
    if words:
        findings.note(f"{column.name}: {', '.join(sorted(words))} read as 0 (censored) or 1 (happened)")


def _reader(column: Column) -> Reader:
    if column.kind == "category":
        return _category_reader(column)
    if column.kind == "event":
        return _event_reader(column.name)
    plain: dict[str, Reader] = {"text": str, "float": number, "count": whole, "bool": yes_or_no}
    return plain[column.kind]


def _category_reader(column: Column) -> Reader:
    words = {word.casefold(): word for word in column.words}
    words.update(_SYNONYMS.get(column.name, {}))
    letter = column.words[0][0].casefold() if column.name.rstrip("789") in ("t", "n", "m", "pt", "pn") else ""
    suffixed = re.compile(r"^[c]?([tnm]\w+)$")

    def read(text: str) -> str | None:
        whole_number = _WHOLE.fullmatch(text)
        folded = whole_number.group(1) if whole_number else text.casefold()
        plain = suffixed.match(folded) if letter else None
        joined = re.sub(r"[\s-]+", "_", folded)
        for candidate in (folded, plain.group(1) if plain else folded, letter + folded, joined):
            if candidate in words:
                return words[candidate]
        return None

    return read


def _event_reader(name: str) -> Reader:
    died = name == "os_event"

    def read(text: str) -> int | None:
        folded = text.casefold()
        if folded in _YES or (died and folded in _DIED):
            return 1
        if folded in _NO or (died and folded in _LIVES):
            return 0
        value = number(text)
        return int(value) if value in (0.0, 1.0) else None

    return read


def yes_or_no(text: str) -> bool | None:
    """True or False for the usual words, else None."""
    folded = text.casefold()
    return True if folded in _YES else False if folded in _NO else None


def number(text: str) -> float | None:
    """A finite number, with decimal point or comma; else None."""
    try:
        value = float(text)
    except ValueError:
        if not re.fullmatch(r"-?\d+,\d+", text):
            return None
        value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None


def whole(text: str) -> int | None:
    """A whole number that a float holds exactly, else None."""
    value = number(text)
    return int(value) if value is not None and value == int(value) and abs(value) < 2**53 else None
