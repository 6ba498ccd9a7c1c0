"""The columns of the canonical table: one row per patient, missing is missing and never a number."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources
from typing import Literal

Kind = Literal["text", "category", "float", "count", "event", "bool"]

DAYS_PER_YEAR = 365.25
"""Length of the year that all times are counted in."""


@dataclass(frozen=True)
class Column:
    """One column of the canonical table.

    Parameters
    ----------
    name : of the column.
    kind : `category` takes one of `words`; `event` is 0 or 1; `count` a whole number.
    meaning : one line for people, with the unit.
    words : the values of a category.
    high : the largest value that can be right, for numbers; the least is 0.
    """

    name: str
    kind: Kind
    meaning: str
    words: tuple[str, ...] = ()
    high: float = float("inf")

    @property
    def dtype(self) -> str:
        """The pandas type that holds it."""
        return _DTYPES.get(self.kind, "string")


_DTYPES = {"float": "float64", "count": "Int64", "event": "Int64", "bool": "boolean"}


def _columns(table: str) -> tuple[Column, ...]:
    """The columns of `columns.csv` that belong to the canonical table, or to its extras."""
    text = (resources.files("aiene.risk.table") / "columns.csv").read_text(encoding="utf-8")
    return tuple(
        Column(r["name"], r["kind"], r["meaning"], tuple(r["words"].split()), high=float(r["high"] or "inf"))  # type: ignore[arg-type]
        for r in csv.DictReader(text.splitlines())
        if r["table"] == table
    )


COLUMNS = _columns("canonical")
"""The canonical table, in its order.

At most 300 nodes, about as many as there are in a neck: a count beyond is a code for missing, such as 999.
"""

EXTRA_COLUMNS = _columns("extra")
"""Columns that are understood where a table has them."""

BY_NAME: dict[str, Column] = {column.name: column for column in (*COLUMNS, *EXTRA_COLUMNS)}

TIMED = ("os", "dm", "lrf", "dfs")
"""Endpoints that have a time and an event column."""

SITES = BY_NAME["site"].words
