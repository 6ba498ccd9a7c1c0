"""The table of nodes whose pathology is known: `nodes.csv` of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from aiene.errors import InputError, TrainingDataError
from aiene.training.table import plain_id, read_table

POINTS: Final = (("centroid_x_mm", "centroid_y_mm", "centroid_z_mm"), ("x_mm", "y_mm", "z_mm"))
"""Columns that say where a node is, in LPS mm on the CT; the first are those of a run's `nodes.csv`."""

_REMEDY: Final = "give case_id, name or point, pos, ene"


@dataclass(frozen=True)
class NodeRow:
    """One node of the table.

    Parameters
    ----------
    line : of the file, for messages.
    case_id : without `_0000` at its end.
    name : `GTVn_01`, ... as `aiene run --masks` names it; empty where a point is given.
    point_lps_mm : a point in or near the node, (x, y, z); None where a name is given.
    pos, ene : 1, 0, or None where unknown.
    """

    line: int
    case_id: str
    name: str
    point_lps_mm: tuple[float, float, float] | None
    pos: int | None
    ene: int | None


def read_nodes(file: Path) -> list[NodeRow]:
    """The rows of a table with `case_id`, `pos`, `ene`, and a point (LPS mm) or the node's `name`.

    A run's own `nodes.csv` will do, once its `pos` and `ene` are replaced by what pathology says.

    Raises
    ------
    InputError : no such table, or a column that is missing.
    TrainingDataError : every value that is not 0, 1 or empty, every row without a case or place, a place
        that stands in two rows, ENE in a node that is not positive; and, over all rows, a single class only.
    """
    table = read_table(file, _REMEDY)
    columns = next((names for names in POINTS if set(names) <= set(table.columns)), None)
    missing = [name for name in ("case_id", "pos", "ene") if name not in table.columns]
    if missing or (columns is None and "name" not in table.columns):
        what = missing[0] if missing else "name (or x_mm, y_mm, z_mm)"
        raise InputError(file, f"the column {what} is missing", _REMEDY)
    problems: list[str] = []
    rows = []
    for record in table.rows:
        row, problem = _row(record.line, record.values, columns)
        problems += [f"{file.name}, line {record.line}: {problem}"] if problem else []
        rows.append(row)
    problems = [*problems, *_doubled(file, rows)] or _single_class(file, rows)
    if problems:
        raise TrainingDataError(problems)
    return rows


def _row(line: int, record: dict[str, str], columns: tuple[str, ...] | None) -> tuple[NodeRow, str]:
    problem = ""
    point = None
    given = [record[c] for c in columns] if columns else []
    if all(given) and given:
        try:
            x, y, z = (float(v) for v in given)
            point = (x, y, z)
            if not np.isfinite(point).all():
                problem = "its point is not finite."
        except ValueError:
            comma = any("," in value for value in given)
            problem = f"its point is no three numbers in mm{'; write decimals with a point' * comma}."
    elif not record.get("name"):
        problem = "neither a point nor a name says which node it is."
    case_id = plain_id(record["case_id"])
    if not case_id:
        problem = "case_id is empty."
    values: list[int | None] = []
    for column in ("pos", "ene"):
        text = record[column]
        if text not in ("", "0", "1", "0.0", "1.0"):
            problem = f"{column} is {text!r}; it must be 0, 1 or empty (unknown)."
        values.append(int(text[0]) if text[:1] in ("0", "1") and not problem else None)
    pos, ene = values
    if ene == 1 and pos == 0:
        problem = "ene is 1 but pos is 0; a node without tumour has no extension."
    name = "" if point is not None else record.get("name", "")
    return NodeRow(line, case_id, name, point, pos, ene), problem


def _doubled(file: Path, rows: list[NodeRow]) -> list[str]:
    """Rows that name one place twice; those that only lie in the same node are found once it is split."""
    first: dict[tuple[object, ...], int] = {}
    problems = []
    for row in rows:
        if not row.name and row.point_lps_mm is None:
            continue
        place = (row.case_id, row.name, row.point_lps_mm)
        if place in first:
            problems.append(
                f"{file.name}, line {row.line}: the node stands in line {first[place]} already; keep one row."
            )
        first.setdefault(place, row.line)
    return problems


def _single_class(file: Path, rows: list[NodeRow]) -> list[str]:
    known = {row.ene for row in rows} - {None}
    if known == {0, 1}:
        return []
    what = "no node has ene 0 or 1" if not known else f"ene is {known.pop()} in every node where it is known"
    return [f"{file.name}: {what}; both classes are needed to learn from."]
