"""Cells of the tables that we write: what a spreadsheet or a screen would obey is shown instead.

Every CSV of the package goes through here. A cell of text that begins with `=`, `+`, `-`, `@`, a tab or a
line end is a formula to Excel and LibreOffice (OWASP "CSV injection"); it gets an apostrophe before it.
Numbers stay numbers, also those that are text already.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from aiene.errors import visible

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


def rows_bytes(rows: Iterable[Iterable[Any]], *, delimiter: str = ",") -> bytes:
    """Rows, the header first, as CSV: UTF-8, the same line ends everywhere."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
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
