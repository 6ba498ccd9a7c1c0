"""The table of nodes whose pathology is known: `nodes.csv` of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from aiene.errors import InputError, TrainingDataError

POINTS: Final = (("centroid_x_mm", "centroid_y_mm", "centroid_z_mm"), ("x_mm", "y_mm", "z_mm"))
"""Columns that say where a node is, in LPS mm on the CT; the first are those of a run's `nodes.csv`."""


@dataclass(frozen=True)
class NodeRow:
    """One node of the table.

    Parameters
    ----------
    line : of the file, for messages.
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
    TrainingDataError : every value that is not 0, 1 or empty, every row without a place, ENE in a node that
        is not positive; and, over all rows, a single class only.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(
            file, "it cannot be read as a CSV table", "give case_id, name or point, pos, ene"
        ) from error
    columns = next((names for names in POINTS if set(names) <= set(table)), None)
    missing = [name for name in ("case_id", "pos", "ene") if name not in table]
    if missing or (columns is None and "name" not in table):
        what = missing[0] if missing else "name (or x_mm, y_mm, z_mm)"
        raise InputError(file, f"the column {what} is missing", "give case_id, name or point, pos, ene")
    problems: list[str] = []
    rows = []
    for number, record in enumerate(table.to_dict("records"), start=2):
        row, problem = _row(number, {str(k): str(v).strip() for k, v in record.items()}, columns)
        problems += [f"{file.name}, line {number}: {problem}"] if problem else []
        rows.append(row)
    problems = problems or _single_class(file, rows)
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
            problem = "its point is no three numbers in mm."
    elif not record.get("name"):
        problem = "neither a point nor a name says which node it is."
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
    return NodeRow(line, record["case_id"], name, point, pos, ene), problem


def _single_class(file: Path, rows: list[NodeRow]) -> list[str]:
    known = {row.ene for row in rows} - {None}
    if known == {0, 1}:
        return []
    what = "no node has ene 0 or 1" if not known else f"ene is {known.pop()} in every node where it is known"
    return [f"{file.name}: {what}; both classes are needed to learn from."]
