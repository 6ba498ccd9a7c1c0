"""Tables as files: CSV, TSV, Excel and Parquet, read as text so that no reader guesses a type."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiene import csv_tables
from aiene.errors import InputError, OutputError, UsageError, need
from aiene.results.atomic import make_folder, write_bytes

EXCEL = (".xlsx", ".xlsm")
TEXT = (".csv", ".tsv", ".txt", ".tab")
PARQUET = (".parquet", ".pq")
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "<na>", "."})
"""What stands for a missing value, in any case. Not "none": no nodes, no chemotherapy."""

_LONGEST_MISSING = max(map(len, _MISSING))
_IS_TEXT = "is_text"


def read_raw(path: Path, *, sheet: str | None = None) -> pd.DataFrame:
    """A table as text: every cell a stripped `string`, missing ones NA, headers as they stand.

    Parameters
    ----------
    path : `.csv`, `.tsv`, `.txt`, `.xlsx` or `.parquet`; a text table may use comma, semicolon or tab and is
        UTF-8, with or without a byte-order mark, UTF-16 with one, or else Windows-1252.
    sheet : of a workbook; the first one if None.

    Raises
    ------
    InputError : no such file, no table, no rows, or twice the same header.
    MissingExtraError : the reader of this format is not installed.
    """
    if not path.is_file():
        problem = "is a folder, not a table" if path.is_dir() else "no such file"
        raise InputError(path, problem, "name a table (.csv, .tsv, .xlsx or .parquet)")
    ending = path.suffix.lower()
    if ending in EXCEL:
        table = _excel(path, sheet)
    elif ending in PARQUET:
        table = _parquet(path)
    elif ending in TEXT:
        table = _text(path)
    else:
        remedy = "give .csv, .tsv, .xlsx or .parquet"
        raise InputError(path, f"{ending or 'a file without an ending'} is not a known kind of table", remedy)
    headers = [str(name).strip() for name in table.columns]
    twice = sorted({name for name in headers if headers.count(name) > 1})
    if twice:
        problem = f"the header {twice[0] or 'of an unnamed column'} appears twice"
        raise InputError(path, problem, "give every column its own name")
    if table.empty:
        raise InputError(path, "it has a header but no rows", "give one row per patient")
    return as_text(table)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table by the ending of its name: .csv, .tsv, .xlsx or .parquet; whole or not at all.

    What lies there is replaced; `results.ownership.write_with_record` looks whose it is.

    Raises
    ------
    UsageError : another ending.
    OutputError : it cannot be written.
    """
    make_folder(path.parent)
    write_bytes(path, table_bytes(table, path))


def table_bytes(table: pd.DataFrame, path: Path) -> bytes:
    """A table as a file of this name holds it: .csv, .tsv, .xlsx or .parquet.

    Raises
    ------
    UsageError : an ending that no table has.
    OutputError : it is too long for the format.
    """
    ending = path.suffix.lower()
    if ending in EXCEL:
        return _excel_bytes(table, path)
    if ending in PARQUET:
        need("pyarrow", extra="risk", purpose="Writing Parquet")
        stream = io.BytesIO()
        table.to_parquet(stream, index=False)
        return stream.getvalue()
    if ending in TEXT:
        separator = "," if ending == ".csv" else "\t"
        return csv_tables.table_bytes(table, delimiter=separator)
    raise UsageError(f"{path.name}: tables are written as .csv, .tsv, .xlsx or .parquet.")


def _excel_bytes(table: pd.DataFrame, path: Path) -> bytes:
    need("openpyxl", extra="risk", purpose="Writing Excel")
    if len(table) > 1_048_575:
        raise OutputError(path, "Excel holds at most 1,048,575 rows", "write .csv or .parquet instead")
    stream = io.BytesIO()
    table.to_excel(stream, index=False, engine="openpyxl")
    return stream.getvalue()


def _text(path: Path) -> pd.DataFrame:
    content = path.read_bytes()
    if not content.strip():
        raise InputError(path, "the file is empty", "give a table with a header")
    text = _decoded(content)
    separator = _separator(text[: text.find("\n")] if "\n" in text else text)
    try:
        table = pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, na_filter=False,
            skip_blank_lines=True, index_col=False, header=None, low_memory=False,
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        problem = f"it cannot be read as a table ({reason[0].lower()}{reason[1:]})"
        raise InputError(path, problem, "give every row as many cells as the header") from error
    head = table.iloc[0].tolist()
    return table.iloc[1:].set_axis(head, axis=1).reset_index(drop=True)


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _separator(header: str) -> str:
    counts = {separator: header.count(separator) for separator in "\t;,"}
    return max(counts, key=lambda s: counts[s]) if any(counts.values()) else ","


def _excel(path: Path, sheet: str | None) -> pd.DataFrame:
    with _workbook(path) as book:
        names = [str(name) for name in book.sheet_names]
        chosen = names[0] if sheet is None else _sheet_named(path, names, sheet)
        return book.parse(chosen, dtype=object, keep_default_na=False, na_values=[""])


def sheet_names(path: Path) -> tuple[str, ...]:
    """Names of the sheets of a workbook.

    Raises
    ------
    InputError : it is none.
    """
    with _workbook(path) as book:
        return tuple(str(name) for name in book.sheet_names)


@contextmanager
def _workbook(path: Path) -> Iterator[pd.ExcelFile]:
    need("openpyxl", extra="risk", purpose="Reading Excel")
    try:
        with pd.ExcelFile(path, engine="openpyxl") as book:
            yield book
    except (zipfile.BadZipFile, KeyError, OSError, ValueError) as error:
        raise InputError(path, "it is not an Excel workbook", "save it again as .xlsx or .csv") from error


def _sheet_named(path: Path, names: list[str], sheet: str) -> str:
    for name in names:
        if name.strip().casefold() == sheet.strip().casefold():
            return name
    raise InputError(path, f"it has no sheet {sheet}", f"its sheets are {', '.join(names)}")


def _parquet(path: Path) -> pd.DataFrame:
    need("pyarrow", extra="risk", purpose="Reading Parquet")
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(path, "it is not a Parquet file", "write it again, or give .csv") from error


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Every cell as stripped text; whole floats without ".0", so that an id 7.0 of a workbook is 7 again."""
    done = bool(table.attrs.get(_IS_TEXT))
    texts = {
        str(name).strip(): table[name]
        if done and table[name].dtype == "string"
        else _column_text(table[name])
        for name in table.columns
    }
    out = pd.DataFrame(texts).reset_index(drop=True)
    out.attrs[_IS_TEXT] = True
    return out


def _column_text(column: pd.Series) -> pd.Series:
    codes, distinct = pd.factorize(column, use_na_sentinel=True)
    words = [_cell_text(value) for value in np.asarray(distinct, dtype=object)]
    lookup = pd.array([*words, None], dtype="string")
    return pd.Series(lookup.take(codes), index=column.index)  # code -1 is the last one: missing


def _cell_text(value: Any) -> str | None:
    if isinstance(value, str):
        text = value.replace("\xa0", " ").strip()
        return None if len(text) <= _LONGEST_MISSING and text.casefold() in _MISSING else text
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat()
    return _cell_text(str(value))
