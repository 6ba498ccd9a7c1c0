"""A folder of predictions: nnU-Net's, a reader's contours, or what `aiene run` left; no code needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aiene.benchmark.comparators.adapters import Adapter
from aiene.benchmark.comparators.protocol import Answer, CaseInput, ModelFacts, Request
from aiene.benchmark.config import LabelChoice
from aiene.benchmark.dataset import Refused, in_our_values, list_files, read_labels
from aiene.benchmark.ene_labels import EneTable, match_rows, read_ene_table
from aiene.errors import InputError, ModelError
from aiene.geometry.grid import Volume
from aiene.ingest.fingerprint import glance
from aiene.nodes.node import CountingRule
from aiene.results.records import CaseResult

ENE_FILE = "ene.csv"
NODE_FOLDER = "nodes"


@dataclass(frozen=True, eq=False)
class _Read:
    case: CaseInput
    labels: Volume
    nodes: Volume | None
    run: CaseResult | None


class PredictionsComparator:
    """Label maps by case id; with them, where they are, node maps in `nodes/` and ENE in `ene.csv`.

    In `ene.csv` a number names a value of the node map, or, without one, the k-th largest found node.
    """

    def __init__(self, folder: Path, request: Request) -> None:
        self._root = folder / "cases" if (folder / "cases").is_dir() else folder
        here = self._root / NODE_FOLDER
        listing = list_files(self._root, "mask", without=here)
        self._node_maps = list_files(here, "mask").files if here.is_dir() else {}
        self._files = listing.files
        self._refused: dict[str, Refused] = {item.case_id: item for item in listing.refused}
        if not self._files and not self._refused:
            raise ModelError(
                folder, "it holds no label map", "name a folder of NIfTI or NRRD files by case id"
            )
        table = folder / ENE_FILE
        self._ene: EneTable | None = read_ene_table(table, probabilities=True) if table.is_file() else None
        self._choice = request.entry.labels or LabelChoice()
        self._resample = request.resample
        from_run = (folder / "run.json").is_file()
        rule = _rule(folder)
        every = [*self._files.values(), *self._node_maps.values(), *([table] if table.is_file() else [])]
        self._facts = ModelFacts(
            kind="predictions",
            sha256=glance(every),
            segments=True,
            classifies=self._ene is not None or from_run,
            ene_threshold=rule.ene_threshold,
            pos_from=rule.pos_from,
            said=("predictions that lay ready: their time and memory are those of reading",),
        )

    @property
    def facts(self) -> ModelFacts:
        """The folder, named by its files' names, sizes and times."""
        return self._facts

    def load(self, case: CaseInput) -> _Read:
        """Read the case's label map, and its node map where there is one."""
        name = case.case.case_id
        if name in self._refused:
            raise InputError(self._root, self._refused[name].reason.rstrip("."), "mend this prediction")
        if name not in self._files:
            raise InputError(
                self._root, f"no prediction for the case {name}", "add it, or leave the case out"
            )
        path, like = self._files[name], case.truth_labels.grid
        labels = in_our_values(path, read_labels(path, like, resample=self._resample), self._choice)
        run = _run_record(path.parent / "case.json")
        own = path.parent / "nodes.nii.gz" if run is not None else self._node_maps.get(name)
        nodes = None
        if own is not None and own.is_file():
            nodes = read_labels(own, like, resample=self._resample)
            nodes = nodes.with_array(np.where(labels.array > 0, nodes.array, 0).astype(np.uint16))
        return _Read(case, labels, nodes, run)

    def preprocess(self, loaded: _Read) -> _Read:
        """Nothing."""
        return loaded

    def infer(self, prepared: _Read) -> _Read:
        """Nothing: it was done elsewhere."""
        return prepared

    def answer(self, inferred: _Read) -> Answer:
        """The label map with what else the folder says."""
        if inferred.run is not None:
            rows = inferred.run.nodes
            return Answer(
                labels=inferred.labels,
                nodes=inferred.nodes,
                confidence={row.value: row.pos for row in rows if row.pos is not None},
                ene={row.value: row.ene for row in rows if row.ene is not None},
            )
        if self._ene is None:
            return Answer(labels=inferred.labels, nodes=inferred.nodes)
        return self._with_ene(inferred, self._ene)

    def _with_ene(self, read: _Read, table: EneTable) -> Answer:
        from aiene.benchmark.metrics.matching import components

        nodes = read.nodes or read.labels.with_array(components(read.labels.array == 2).astype(np.uint16))
        numbers = {int(v): int(v) for v in np.flatnonzero(np.bincount(nodes.array.ravel())) if v}
        matched = match_rows(table.of(read.case.case.case_id), nodes, numbers)
        warnings = tuple(f"{ENE_FILE} row {row.row}: {row.reason}" for row in matched.unmatched)
        return Answer(read.labels, nodes, matched.confidences, matched.values, warnings=warnings)


def open_predictions(request: Request) -> PredictionsComparator:
    """The predictions of a folder.

    Raises
    ------
    ModelError : there is no such folder, or no label map in it.
    InputError : its `ene.csv` cannot be used.
    """
    folder = Path(request.entry.source)
    if not folder.is_dir():
        raise ModelError(folder, "no such folder", "name the folder of the predictions")
    return PredictionsComparator(folder, request)


def _run_record(file: Path) -> CaseResult | None:
    """The record that `aiene run` left beside its label map."""
    try:
        return CaseResult.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _rule(folder: Path) -> CountingRule:
    """What counted in the run that lies there; half of the probability where none does."""
    try:
        settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))["settings"]
        return CountingRule(float(settings["ene_threshold"]), float(settings.get("pos_from", 0.0)))
    except (OSError, ValueError, KeyError, TypeError):
        return CountingRule(0.5)


ADAPTERS = (Adapter("predictions", "folder of predictions", open_predictions, reads_files=True),)
