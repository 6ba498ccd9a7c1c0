"""CSV tables that a user writes by hand: read strictly, since a shifted column would move numbers."""

from __future__ import annotations

import csv
import io
import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from aiene.errors import InputError, TableError, case_name, file_name, said


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
        raise InputError(file, f"it has the column {twice[0]} twice", "keep one of them")
    problems = [
        said(
            f"{{}}, line {line}: it has {len(cells)} cells, the header has {len(columns)}; write decimals "
            "with a point, and quote a cell that holds a comma.",
            file_name(file),
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
    """Every line that is not blank, with its number."""
    try:
        text = unicodedata.normalize("NFC", file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(file, f"it cannot be read ({error.strerror})", remedy) from error
    except UnicodeDecodeError as error:
        raise InputError(file, "it is not text in UTF-8", "save it as CSV in UTF-8") from error
    head = text.lstrip().split("\n", 1)[0]
    delimiter = ";" if ";" in head and "," not in head else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(file, f"line {reader.line_num} is not CSV ({error})", remedy) from error


def unknown_case(table: Path, line: int, case_id: str, known: set[str]) -> str:
    """In one sentence, that a row names a case of which there is no CT, and which one it may mean."""
    by_lower = {name.lower(): name for name in known}
    near = [by_lower[n] for n in get_close_matches(case_id.lower(), by_lower, n=1, cutoff=0.8)]
    names = [file_name(table), case_name(case_id), *map(case_name, near)]
    hint = "did you mean {}?" if near else "add the CT, or remove the row."
    return said(f"{{}}, line {line}: there is no CT of the case {{}}; {hint}", *names)


def plain_id(text: str) -> str:
    """A case id as tables and file names write it: composed Unicode, without nnU-Net's `_0000`."""
    return unicodedata.normalize("NFC", text.strip()).removesuffix("_0000")


def _trimmed(file: Path, lines: list[int]) -> tuple[str, ...]:
    if not lines:
        return ()
    which = f"line {lines[0]}" if len(lines) == 1 else f"{len(lines)} lines, {lines[0]} first"
    return (said(f"{{}}: blanks around the values of {which} were taken off.", file_name(file)),)
