"""A folder of predictions: nnU-Net's, a reader's contours, or what `aiene run` left; no code needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aiene.benchmark.comparators.protocol import Adapter, Answer, CaseInput, ModelFacts, Reader, Request
from aiene.benchmark.config import GTVN, LABEL_VALUES, LabelChoice
from aiene.benchmark.dataset import disagreement, in_our_values, list_files, read_labels
from aiene.benchmark.ene_labels import EneRow, EneTable, match_rows, read_ene_table
from aiene.benchmark.metrics.nodes import components, values_of
from aiene.benchmark.records import Refused
from aiene.errors import InputError, ModelError
from aiene.geometry.grid import Volume
from aiene.ingest.fingerprint import glance
from aiene.nodes.node import CountingRule
from aiene.results.atomic import read_json
from aiene.results.records import CaseResult

ENE_FILE = "ene.csv"
ON_TRUTH_FILE = "ene_on_truth.csv"
NODE_FOLDER = "nodes"


@dataclass(frozen=True, eq=False)
class _Read:
    case: CaseInput
    labels: Volume | None
    nodes: Volume | None
    run: CaseResult | None
    warnings: tuple[str, ...] = ()


class PredictionsComparator(Reader):
    """Label maps by case id; with them, where they are, node maps in `nodes/` and ENE in `ene.csv`.

    In `ene.csv` a name or number is a node of the folder's own map (its value in `nodes/`, without such a map
    the k-th largest found node), or with `ene_nodes: truth` the found node that lies on the truth's node of
    this name. A row that lands on another node of the truth than the one of its name is told.

    `ene_on_truth.csv` holds what a classifier says of the truth's nodes, named as in `--ene-csv`; a folder
    may hold this table alone.

    Raises
    ------
    ModelError : there is no such folder, or no label map in it.
    InputError : its `ene.csv` cannot be used.
    """

    def __init__(self, request: Request) -> None:
        folder = Path(request.entry.source)
        if not folder.is_dir():
            raise ModelError(folder, "no such folder", "name the folder of the predictions")
        self._root = folder / "cases" if (folder / "cases").is_dir() else folder
        here = self._root / NODE_FOLDER
        listing = list_files(self._root, "mask", without=here)
        self._node_maps = list_files(here, "mask").files if here.is_dir() else {}
        self._files = listing.files
        self._refused: dict[str, Refused] = {item.case_id: item for item in listing.refused}
        self._ene, self._on_truth = _table(folder / ENE_FILE), _table(folder / ON_TRUTH_FILE)
        segments = bool(self._files or self._refused)
        if not segments and self._on_truth is None:
            raise ModelError(
                folder, "it holds no label map", "name a folder of NIfTI or NRRD files by case id"
            )
        self._segments, self._names = segments, request.entry.ene_nodes
        self._choice = request.entry.labels or LabelChoice()
        self._resample = request.resample
        from_run = (folder / "run.json").is_file()
        rule = _rule(read_json(folder / "run.json") or {})
        tables = [file for name in (ENE_FILE, ON_TRUTH_FILE) if (file := folder / name).is_file()]
        every = [*self._files.values(), *self._node_maps.values(), *tables]
        self.facts = ModelFacts(
            kind="predictions",
            sha256=glance(every),
            segments=segments,
            classifies=self._ene is not None or self._on_truth is not None or from_run,
            judges_truth=self._on_truth is not None,
            ene_threshold=rule.ene_threshold,
            pos_from=rule.pos_from,
            said=(
                "existing predictions: their time and memory are those of reading",
                *_strange_cases(self._ene, {*self._files, *self._refused}),
            ),
        )

    def load(self, case: CaseInput) -> _Read:
        """Read the case's label map, and its node map where there is one."""
        name = case.case.case_id
        if not self._segments:
            return _Read(case, None, None, None)
        if name in self._refused:
            raise InputError(self._root, self._refused[name].reason.rstrip("."), "correct this prediction")
        if name not in self._files:
            problem = f"no prediction for the case {name}"
            raise InputError(self._root, problem, "add it; without one it counts as failed")
        path, like = self._files[name], case.truth_labels.grid
        labels = in_our_values(path, read_labels(path, like, resample=self._resample), self._choice)
        run = _run_record(read_json(path.parent / "case.json") or {})
        own = path.parent / "nodes.nii.gz" if run is not None else self._node_maps.get(name)
        nodes, warnings = None, list[str]()
        if own is not None and own.is_file():
            nodes = read_labels(own, like, resample=self._resample)
            warnings = (
                [] if run is not None else disagreement(labels, nodes)
            )  # a run drops specks by its rule
            inside = labels.array == LABEL_VALUES[GTVN]
            nodes = nodes.with_array(np.where(inside, nodes.array, 0).astype(np.uint16))
        return _Read(case, labels, nodes, run, tuple(warnings))

    def answer(self, inferred: _Read) -> Answer:
        """The label map with what else the folder says."""
        answer = Answer(labels=inferred.labels, nodes=inferred.nodes, warnings=inferred.warnings)
        if inferred.run is not None:
            rows = inferred.run.nodes
            answer = replace(
                answer,
                confidence={row.value: row.pos for row in rows if row.pos is not None},
                ene={row.value: row.ene for row in rows if row.ene is not None},
            )
        elif self._ene is not None and inferred.labels is not None:
            answer = self._with_ene(inferred, inferred.labels, self._ene)
        return answer if self._on_truth is None else self._with_judgement(inferred, answer, self._on_truth)

    def _with_judgement(self, read: _Read, answer: Answer, table: EneTable) -> Answer:
        nodes = read.case.truth_nodes
        matched = match_rows(table.of(read.case.case.case_id), nodes, _own_numbers(nodes))
        return replace(
            answer,
            ene_on_truth=matched.values,
            warnings=(*answer.warnings, *(_told(ON_TRUTH_FILE, row) for row in matched.unmatched)),
        )

    def _with_ene(self, read: _Read, labels: Volume, table: EneTable) -> Answer:
        nodes = read.nodes or labels.with_array(
            components(labels.array == LABEL_VALUES[GTVN]).astype(np.uint16)
        )
        on_truth = _partners(nodes, read.case.truth_nodes)
        own = _own_numbers(nodes)
        by_truth = {true: found for found, true in on_truth.items()}
        true_names = _own_numbers(read.case.truth_nodes).keys()
        numbers = own if self._names == "own" else by_truth
        rows = table.of(read.case.case.case_id)
        matched = match_rows(rows, nodes, numbers)
        warnings = [*read.warnings, *(_told(ENE_FILE, row) for row in matched.unmatched)]
        if not rows and own:
            warnings.append(f"{ENE_FILE} has no row of this case")
        elsewhere = [
            (row, on_truth[row.node])
            for row in rows
            if row.node in true_names
            and self._names == "own"
            and on_truth.get(row.node, row.node) != row.node
        ]
        warnings += [
            f"{ENE_FILE} row {row.row}: node {row.node} is this folder's own, which lies on the truth's node "
            f"{true}; set `ene_nodes: truth` if the truth's names are meant"
            for row, true in elsewhere
            if row not in matched.unmatched
        ]
        return Answer(labels, nodes, matched.confidences, matched.values, warnings=tuple(warnings))


def _strange_cases(table: EneTable | None, known: set[str]) -> tuple[str, ...]:
    """What is said of rows whose case has no label map in the folder: a case id written otherwise, mostly."""
    strange = [row for row in (() if table is None else table.rows) if row.case_id not in known]
    if not strange:
        return ()
    said = f"{len(strange)} rows of {ENE_FILE} (the first in line {strange[0].row})"
    return (f"{said} are of cases without a label map",)


def _table(file: Path) -> EneTable | None:
    return read_ene_table(file, probabilities=True) if file.is_file() else None


def _told(file: str, row: EneRow) -> str:
    return f"{file} row {row.row}: {row.reason}"


def _own_numbers(nodes: Volume) -> dict[int, int]:
    return {value: value for value in values_of(nodes.array)}


def _partners(found: Volume, truth: Volume) -> dict[int, int]:
    """For each found node the node of the truth with which it shares most voxels, one to one."""
    both = (found.array > 0) & (truth.array > 0)
    pairs, shared = np.unique(np.stack([found.array[both], truth.array[both]]), axis=1, return_counts=True)
    result: dict[int, int] = {}
    for place in np.argsort(-shared, kind="stable"):
        mine, true = (int(v) for v in pairs[:, place])
        if mine not in result and true not in result.values():
            result[mine] = true
    return result


def _run_record(content: dict[str, Any]) -> CaseResult | None:
    """The record that `aiene run` left beside its label map."""
    try:
        return CaseResult.from_json(content)
    except (ValueError, KeyError, TypeError):
        return None


def _rule(run: dict[str, Any]) -> CountingRule:
    """What counted in the run that lies there; half of the probability where none does."""
    try:
        settings = run["settings"]
        return CountingRule(float(settings["ene_threshold"]), float(settings.get("pos_from", 0.0)))
    except (ValueError, KeyError, TypeError):
        return CountingRule(0.5)


ADAPTERS = (Adapter("predictions", "folder of predictions", PredictionsComparator, reads_files=True),)
