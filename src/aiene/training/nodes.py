"""Nodes of the training crops with their pathology (`nodes.csv`), and augmented views of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from aiene.classify.classifier import ClassifierInputs, Normalisation, classifier_inputs
from aiene.classify.dualnet import BOX_SIZE
from aiene.csv_tables import plain_id, read_table
from aiene.errors import InputError, TrainingDataError
from aiene.nodes.node import Node, names_by_volume
from aiene.nodes.split import dilate, padded_block, split_nodes
from aiene.training.patients import repeats

if TYPE_CHECKING:
    from aiene.training.dataset import TrainingCrop

POINTS: Final = (("centroid_x_mm", "centroid_y_mm", "centroid_z_mm"), ("x_mm", "y_mm", "z_mm"))
"""Columns that say where a node is, in LPS mm on the CT; the first are those of a run's `nodes.csv`."""

_REMEDY: Final = "give case_id, name or point, pos, ene"

NEAR_MM = 10.0
"""A point this far from the nearest node still means that node."""

_MARGIN = (4, 12, 12)  # voxels beyond the classifier's box, so that a turned node still has its surroundings


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
            problem = f"its point is not three numbers in mm{'; write decimals with a point' * comma}."
    elif not record.get("name"):
        problem = "neither a point nor a name identifies the node."
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
    placed = [row for row in rows if row.name or row.point_lps_mm is not None]
    return [
        f"{file.name}, line {line}: the node is already in line {first}; keep one row."
        for line, first, _ in repeats((row.line, (row.case_id, row.name, row.point_lps_mm)) for row in placed)
    ]


def _single_class(file: Path, rows: list[NodeRow]) -> list[str]:
    known = {row.ene for row in rows} - {None}
    if known == {0, 1}:
        return []
    what = "no node has ene 0 or 1" if not known else f"ene is {known.pop()} in every node where it is known"
    return [f"{file.name}: {what}; both classes are needed to learn from."]


@dataclass(frozen=True, eq=False)
class Example:
    """A node to learn from.

    Parameters
    ----------
    image : float16 (z, y, x), HU scaled to [0, 1], a window around the node; the crop's spacing.
    mask : bool of the same shape: the node before dilation.
    spacing : mm along z, y, x.
    pos, ene : 1, 0, or -1 where unknown.
    """

    case_id: str
    patient_id: str
    name: str
    image: npt.NDArray[np.float16]
    mask: npt.NDArray[np.bool_]
    spacing: tuple[float, float, float]
    pos: float
    ene: float


@dataclass(frozen=True)
class Matched:
    """The examples of one crop, the rows that no node fits, and the nodes that no row names."""

    examples: tuple[Example, ...]
    problems: tuple[str, ...]
    unnamed: int


def examples_of(crop: TrainingCrop, rows: Sequence[NodeRow]) -> Matched:
    """Split the crop's nodes as inference does, and give each its row.

    Parameters
    ----------
    crop : with label 2 where nodes are.
    rows : of this case.
    """
    nodes = split_nodes(crop.labels, fg_labels=(2,), axes=False)
    names = names_by_volume(nodes)
    taken: dict[int, list[NodeRow]] = defaultdict(list)
    problems = []
    for row in rows:
        index = _node_of(row, crop, nodes, names)
        if index is None:
            where = row.name or "near its point"
            problems.append(f"line {row.line}: the case {crop.case_id} has no node {where}.")
        else:
            taken[index].append(row)
    for index, several in taken.items():
        if len(several) > 1:
            lines = ", ".join(str(row.line) for row in several)
            problems.append(f"lines {lines}: they name the same node, {names[index]} of {crop.case_id}.")
    examples = tuple(
        _example(crop, nodes[index], names[index], several[0]) for index, several in sorted(taken.items())
    )
    return Matched(examples, tuple(problems), len(nodes) - len(taken))


def _node_of(row: NodeRow, crop: TrainingCrop, nodes: Sequence[Node], names: Sequence[str]) -> int | None:
    if row.point_lps_mm is None:
        return names.index(row.name) if row.name in names else None
    here = crop.to_native.inverse().apply(np.array(row.point_lps_mm))
    grid = crop.labels.grid
    distances = [np.linalg.norm(grid.points(np.argwhere(n.mask)) - here, axis=1).min() for n in nodes]
    nearest = int(np.argmin(distances)) if distances else -1
    return nearest if distances and distances[nearest] <= NEAR_MM else None


def _example(crop: TrainingCrop, node: Node, name: str, row: NodeRow) -> Example:
    block = padded_block(node.mask, (0, 0, 0))
    if block is None:
        raise ValueError("a node without a voxel")
    window = []
    for span, size, more, limit in zip(block, BOX_SIZE, _MARGIN, node.mask.shape, strict=True):
        middle = (span.start + span.stop - 1) // 2
        first = max(0, middle - size // 2 - more)
        window.append(slice(first, min(limit, middle - size // 2 + size + more)))
    part = tuple(window)
    return Example(
        crop.case_id,
        crop.patient_id,
        name,
        crop.image.array[part].astype(np.float16),
        node.mask[part].copy(),
        crop.image.grid.spacing,
        -1.0 if row.pos is None else float(row.pos),
        -1.0 if row.ene is None else float(row.ene),
    )


def jittered(mask: npt.NDArray[np.bool_], step: int) -> npt.NDArray[np.bool_]:
    """A contour drawn a voxel wider (1) or tighter (-1) in plane; never empty."""
    cross = ndimage.generate_binary_structure(2, 1)[None]
    if step > 0:
        return np.asarray(ndimage.binary_dilation(mask, cross))
    if step < 0:
        tighter = np.asarray(ndimage.binary_erosion(mask, cross))
        return tighter if tighter.any() else mask
    return mask


# Augmentation


@dataclass(frozen=True)
class Augmentation:
    """How far a view may differ; all drawn evenly within these bounds.

    Parameters
    ----------
    turn_degrees : about each axis.
    scale : relative.
    offset, gain : of the scaled HU; 0.02 of the window is some 25 HU.
    noise : standard deviation at most, of the scaled HU.
    redraw : chance that the contour is drawn a voxel wider or tighter.
    """

    turn_degrees: float = 10.0
    scale: float = 0.1
    offset: float = 0.02
    gain: float = 0.05
    noise: float = 0.02
    redraw: float = 0.5


def plain_inputs(example: Example, normalisation: Normalisation) -> ClassifierInputs | None:
    """What the classifier sees of a node as it is; None where there is nothing but air."""
    return classifier_inputs(example.image.astype(np.float32), dilate(example.mask), normalisation)


def augmented_inputs(
    example: Example, normalisation: Normalisation, bounds: Augmentation, rng: np.random.Generator
) -> ClassifierInputs | None:
    """What the classifier would see of a node in another patient's pose, by another scanner and hand."""
    matrix, offset = _affine(example, bounds, rng)
    image = example.image.astype(np.float32)
    mask = example.mask
    image = ndimage.affine_transform(image, matrix, offset, order=1, mode="nearest")
    turned = ndimage.affine_transform(mask.astype(np.uint8), matrix, offset, order=0) > 0
    mask = turned if turned.any() else mask
    if rng.random() < bounds.redraw:
        mask = jittered(mask, 1 if rng.random() < 0.5 else -1)
    image = image * np.float32(1 + rng.uniform(-bounds.gain, bounds.gain))
    image += np.float32(rng.uniform(-bounds.offset, bounds.offset))
    sigma = np.float32(rng.uniform(0, bounds.noise))
    image += rng.standard_normal(image.shape, dtype=np.float32) * sigma
    return classifier_inputs(np.clip(image, 0, 1), dilate(mask), normalisation)


def _affine(
    example: Example, bounds: Augmentation, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """From indices of the new view to those of the stored one, about the node's centre, turned in mm."""
    angles = rng.uniform(-bounds.turn_degrees, bounds.turn_degrees, size=3)
    in_mm = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() / rng.uniform(
        1 - bounds.scale, 1 + bounds.scale
    )
    if rng.random() < 0.5:
        in_mm[:, 2] *= -1
    spacing = np.diag(example.spacing)
    matrix = np.linalg.inv(spacing) @ in_mm @ spacing
    centre = np.argwhere(example.mask).mean(axis=0)
    return matrix, centre - matrix @ centre
