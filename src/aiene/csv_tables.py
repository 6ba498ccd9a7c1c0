"""CSV tables: cells of those that we write, escaped, and tables that a user writes by hand, read strictly.

Every CSV of the package goes through here. A cell of text that begins with `=`, `+`, `-`, `@`, a tab or a
line end is a formula to Excel and LibreOffice (OWASP "CSV injection"); it gets an apostrophe before it.
Numbers stay numbers, also those that are text already.

A user's table is read strictly since a shifted column would move numbers.
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiene.errors import (
    InputError,
    TableError,
    case_name,
    file_name,
    library_reason,
    ours,
    reading,
    said,
    visible,
)

if TYPE_CHECKING:
    import pandas as pd


_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMERIC: Final = re.compile(
    r"[+-]?(?:\d[\d\s.,%±()\[\]+–-]*(?:(?:to|[eE]|inf)[\d\s.,%±()\[\]+–-]*)*|inf|nan)|[+-]"
)
"""A number, one with its interval ("-0.5 (-0.8 to 0.1)"), or a lone sign, as in a column of findings."""


def cell(value: Any) -> Any:
    """A value as it may stand in a CSV; what is no text stays what it is."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    risky = value.lstrip(" ").startswith(_FORMULA) and not _NUMERIC.fullmatch(value.strip(" "))
    return f"'{shown}" if risky else shown


def probability(value: float | None, marks: Sequence[float] = ()) -> float | None:
    """A probability with four decimals, or more where four would change what it is compared with.

    A table has to say the same as the numbers behind it: 0.30004 is over 0.3, and 0.3000 is not. So a value
    is never rounded onto or across a threshold of at most two decimals, nor one of `marks`.
    """
    if value is None or not math.isfinite(value):
        return value
    for digits in range(4, 17):
        short = round(value, digits)
        onto = 0 < short < 1 and short == round(short, 2)
        if short == value or not (
            onto or any((short > m, short < m) != (value > m, value < m) for m in marks)
        ):
            return short
    return value


def probability_text(value: float | None, marks: Sequence[float] = (), *, missing: str) -> str:
    """`probability` for a page or screen: four decimals at least."""
    short = probability(value, marks)
    if short is None:
        return missing
    text = f"{short:.4f}"
    return text if float(text) == short else format(Decimal(repr(short)), "f")


def rows_bytes(rows: Iterable[Iterable[Any]]) -> bytes:
    """Rows, the header first, as CSV: UTF-8, the same line ends everywhere."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def table_bytes(table: pd.DataFrame, *, delimiter: str = ",") -> bytes:
    """A table without its index as CSV: UTF-8, full float64, the same line ends everywhere."""
    shown = table.copy()
    shown.columns = [cell(str(name)) for name in table.columns]
    for place, kind in enumerate(table.dtypes):
        if str(kind) in ("object", "string", "str", "category"):
            shown.isetitem(place, [cell(value) for value in table.iloc[:, place].astype(object)])
    return bytes(shown.to_csv(index=False, sep=delimiter, lineterminator="\n"), "utf-8")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Parameters
    ----------
    line : of the file, for messages.
    values : by the name of the column, without blanks around them, in Unicode's composed form (NFC).
    """

    line: int
    values: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A CSV table.

    Parameters
    ----------
    file : where it lies.
    columns : their names.
    rows : those that are not blank.
    notes : what was put right, one sentence each.
    """

    file: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def read_table(file: Path, remedy: str) -> Table:
    """A table with commas, or with semicolons as spreadsheets write it where the comma is the decimal sign.

    Parameters
    ----------
    file : CSV in UTF-8, with or without a byte order mark.
    remedy : what the table must hold, for messages.

    Raises
    ------
    InputError : it cannot be read, or has no header, or a column twice.
    TableError : every row with more or fewer cells than the header.
    """
    lines = _cells(file, remedy)
    if not lines:
        raise InputError(file, "it is empty", remedy)
    columns = tuple(cell.strip() for cell in lines[0][1])
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise InputError(file, said("it has the column {} twice", twice[0]), "keep one of them")
    problems = [
        said(
            "{}, line {}: it has {} cells, the header has {}; write decimals "
            "with a point, and quote a cell that holds a comma.",
            file_name(file),
            line,
            len(cells),
            len(columns),
        )
        for line, cells in lines[1:]
        if len(cells) != len(columns)
    ]
    if problems:
        raise TableError(problems)
    rows = tuple(Row(n, dict(zip(columns, map(str.strip, cells), strict=True))) for n, cells in lines[1:])
    trimmed = [line for line, cells in lines[1:] if any(cell != cell.strip() for cell in cells)]
    return Table(file, columns, rows, _trimmed(file, trimmed))


def _cells(file: Path, remedy: str) -> list[tuple[int, list[str]]]:
    try:
        with reading(file, remedy):
            text = unicodedata.normalize("NFC", file.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(file, "it is not text in UTF-8", "save it as CSV in UTF-8") from error
    head = text.lstrip().split("\n", 1)[0]
    delimiter = ";" if ";" in head and "," not in head else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(
            file, said("line {} is not CSV ({})", reader.line_num, library_reason(error)), remedy
        ) from error


def unknown_case(table: Path, line: int, case_id: str, known: set[str]) -> str:
    """In one sentence, that a row names a case of which there is no CT, and which one it may mean."""
    by_lower = {name.lower(): name for name in known}
    near = [by_lower[n] for n in get_close_matches(case_id.lower(), by_lower, n=1, cutoff=0.8)]
    hint = said("did you mean {}?", case_name(near[0])) if near else ours("add the CT, or remove the row.")
    template = "{}, line {}: there is no CT of the case {}; {}"
    return said(template, file_name(table), line, case_name(case_id), hint)


def plain_id(text: str) -> str:
    """A case id as tables and file names write it: composed Unicode, without nnU-Net's `_0000`."""
    return unicodedata.normalize("NFC", text.strip()).removesuffix("_0000")


def _trimmed(file: Path, lines: list[int]) -> tuple[str, ...]:
    if not lines:
        return ()
    which = said("line {}", lines[0])
    if len(lines) > 1:
        which = said("{} lines, {} first", len(lines), lines[0])
    return (said("{}: blanks around the values of {} were taken off.", file_name(file), which),)
