"""ENE of single nodes from a table: 0 or 1 as truth, or a model's probabilities.

One row a node. Columns, by any of these names: the case (`case_id`, `case`, `image`, `id`), the value
(`ene`, `ene_label`, `label_ene`, `probability`), and which node: by `node`, `node_name` or `name` (`GTVn_01`,
or a number), by `label`, `label_value` or `value` (its value in the node map), or by a point in it: `x`, `y`,
`z` or `x_mm`, `y_mm`, `z_mm` (LPS). A row with both counts only where the point lies in that node. A case
with a single node needs none of them. `patient_id` and `confidence` are read where they are.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aiene.benchmark.metrics.nodes import values_of
from aiene.errors import InputError
from aiene.geometry.grid import Triple, Volume

NEAR_MM = 5.0
"""A point outside every node belongs to one whose nearest voxel is no farther than this."""

_COLUMNS = {
    "case_id": ("case_id", "case", "caseid", "image", "id"),
    "ene": ("ene", "ene_label", "label_ene", "probability", "ene_probability"),
    "node": ("node", "node_name", "node_id", "name", "label", "label_value", "value"),
    "patient_id": ("patient_id", "patient", "patientid"),
    "confidence": ("confidence", "score"),
    "x": ("x", "x_mm", "centroid_x"),
    "y": ("y", "y_mm", "centroid_y"),
    "z": ("z", "z_mm", "centroid_z"),
}
_WORDS = {
    **dict.fromkeys(("yes", "true", "positive", "pos", "ene+", "ene", "y"), 1.0),
    **dict.fromkeys(("no", "false", "negative", "neg", "ene-", "n"), 0.0),
}
_NODE = re.compile(r"^(?:GTVn|node|n)?[_\- ]*0*(\d+)(?:\.0*)?$", re.IGNORECASE)


@dataclass(frozen=True)
class EneRow:
    """One row of the table.

    Parameters
    ----------
    row : line in the file, the header being 1.
    value : 0 or 1, or a probability; None where it cannot be used, for `reason`.
    node : its number; None where it is named by place or not at all.
    point_lps : mm; beside a number it must lie in that node.
    """

    row: int
    case_id: str
    patient_id: str
    value: float | None
    node: int | None
    point_lps: Triple | None
    confidence: float | None
    reason: str = ""


@dataclass(frozen=True)
class EneTable:
    """The rows of a table, by case."""

    rows: tuple[EneRow, ...]

    def of(self, case_id: str) -> tuple[EneRow, ...]:
        """The rows of a case."""
        return tuple(row for row in self.rows if row.case_id == case_id)

    def patients(self) -> dict[str, str]:
        """Case id to patient id, where the table says so."""
        return {row.case_id: row.patient_id for row in self.rows if row.patient_id}


@dataclass(frozen=True)
class Matched:
    """Which node has which value.

    Parameters
    ----------
    values : by node number.
    confidences : by node number, where the table gives them.
    unmatched : rows that belong to no node, each with its reason.
    """

    values: dict[int, float]
    confidences: dict[int, float]
    unmatched: tuple[EneRow, ...]


def read_ene_table(file: Path, *, probabilities: bool = False) -> EneTable:
    """The rows of a CSV file (comma, semicolon or tab).

    Parameters
    ----------
    probabilities : the values are 0 to 1; else 0 or 1 (also yes and no, true and false).

    Raises
    ------
    InputError : it cannot be read, or has no column for the case or for ENE.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(file, f"it cannot be read ({error.strerror})", "check the path") from error
    except ValueError as error:
        raise InputError(file, "it is not UTF-8 text", "save it as CSV in UTF-8") from error
    head = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    columns = _columns(reader.fieldnames or [])
    for wanted in ("case_id", "ene"):
        if wanted not in columns:
            raise InputError(file, f"no column {wanted}", "see docs/benchmark.md for the columns")
    rows = []
    for line, content in enumerate(reader, start=2):
        cells = {key: (content.get(name) or "").strip() for key, name in columns.items()}
        if any(cells.values()):
            rows.append(_row(line, cells, probabilities))
    return EneTable(tuple(rows))


def match_rows(rows: Sequence[EneRow], node_map: Volume, numbers: Mapping[int, int]) -> Matched:
    """The nodes that the rows of one case mean.

    Parameters
    ----------
    node_map : each value above 0 a node.
    numbers : what a number in the table means: to the node map's value. A row that contradicts another one
        for the same node makes both unmatched.
    """
    found: dict[int, list[EneRow]] = defaultdict(list)
    unmatched = []
    present = values_of(node_map.array)
    for row in rows:
        value, reason = _node_of(row, node_map, numbers, present)
        if value is None or row.value is None:
            unmatched.append(replace(row, reason=row.reason or reason))
        else:
            found[value].append(row)
    for value, several in list(found.items()):
        if len({row.value for row in several}) > 1:
            lines = ", ".join(str(row.row) for row in several)
            unmatched += [replace(row, reason=f"rows {lines} contradict each other") for row in several]
            del found[value]
    values = {value: several[0].value for value, several in sorted(found.items())}
    confidences = {value: several[0].confidence for value, several in sorted(found.items())}
    return Matched(
        {value: one for value, one in values.items() if one is not None},
        {value: one for value, one in confidences.items() if one is not None},
        tuple(sorted(unmatched, key=lambda row: row.row)),
    )


def _columns(names: Sequence[str]) -> dict[str, str]:
    plain = {name.strip().lower().replace(" ", "_"): name for name in names if name}
    return {
        key: next(plain[word] for word in words if word in plain)
        for key, words in _COLUMNS.items()
        if any(word in plain for word in words)
    }


def _row(line: int, cells: dict[str, str], probabilities: bool) -> EneRow:
    value, reason = _value(cells["ene"], probabilities)
    node, point = None, None
    if cells.get("node"):
        said = _NODE.match(cells["node"])
        node = int(said[1]) if said else None
        reason = reason or ("" if said else f"node {cells['node']!r} is not the name or number of a node")
    coordinates = [_number(cells.get(axis, "")) for axis in "xyz"]
    if not reason and all(c is not None for c in coordinates):
        x, y, z = (float(c) for c in coordinates if c is not None)
        point = (x, y, z)
    confidence = _number(cells.get("confidence", ""))
    case = cells["case_id"]
    return EneRow(line, case, cells.get("patient_id", ""), value, node, point, confidence, reason)


def _value(text: str, probabilities: bool) -> tuple[float | None, str]:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()], ""
    number = _number(text)
    if number is None:
        return None, f"ENE is {text!r}, which is not a number" if text else "ENE is empty"
    if 0 <= number <= 1 and (probabilities or number in (0.0, 1.0)):
        return number, ""
    return None, f"ENE is {text}, not {'from 0 to 1' if probabilities else '0 or 1'}"


def _number(text: str) -> float | None:
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _node_of(
    row: EneRow, node_map: Volume, numbers: Mapping[int, int], present: list[int]
) -> tuple[int | None, str]:
    if row.node is not None:
        value = numbers.get(row.node)
        if value not in present:
            return None, f"the case has no node {row.node}"
        there = value if row.point_lps is None else _at(row.point_lps, node_map)[0]
        return (value, "") if there == value else (None, f"its point does not lie in node {row.node}")
    if row.point_lps is not None:
        return _at(row.point_lps, node_map)
    if len(present) == 1:
        return present[0], ""
    return None, f"it names no node, and the case has {len(present)}"


def _at(point: Triple, node_map: Volume) -> tuple[int | None, str]:
    voxels = np.argwhere(node_map.array)
    if not len(voxels):
        return None, "the case has no node"
    apart = np.linalg.norm(node_map.grid.points(voxels) - np.array(point), axis=1)
    nearest = int(apart.argmin())
    if apart[nearest] > max(NEAR_MM, node_map.grid.voxel_diagonal_mm / 2):
        return (
            None,
            f"no node within {NEAR_MM:g} mm of the point (the nearest is {apart[nearest]:.0f} mm away)",
        )
    return int(node_map.array[tuple(voxels[nearest])]), ""
