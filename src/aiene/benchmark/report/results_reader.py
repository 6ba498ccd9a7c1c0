"""What the chapters of the report take: the results of a benchmark's folder, names of metrics, and charts.

Each module of `charts` declares `CHARTS`, so that a further chart is one further file. The page, the
pictures, the data beside them and their legends follow from the `Figure` that it makes.
"""

from __future__ import annotations

import csv
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aiene.benchmark.comparators.protocol import adapters
from aiene.benchmark.records import FORMAT, newest_summary
from aiene.benchmark.report import charts as package
from aiene.errors import InputError
from aiene.report.document import CellTable, Figure
from aiene.report.formatting import NumberKind, TableBuilder, dig, number, numbers, shown, words

_PARTS = {"models": list, "data": Mapping, "machine": Mapping, "settings": Mapping}


@dataclass(frozen=True)
class Source:
    """A benchmark that is done.

    Parameters
    ----------
    folder : where it lies.
    summary : the newest `benchmark_summary_<time>.json`.
    rows : of its results CSV; empty where it no longer exists.
    stamp : the time in the files' names.
    problem : why rows are missing; empty where they are there.
    """

    folder: Path
    summary: dict[str, Any]
    rows: tuple[dict[str, str], ...]
    stamp: str
    problem: str = ""

    @property
    def models(self) -> list[dict[str, Any]]:
        """Every model, also those that could not be opened."""
        return list(self.summary["models"])

    @property
    def run(self) -> list[dict[str, Any]]:
        """The models that were run."""
        return [model for model in self.models if model.get("status") == "ok"]

    @property
    def segmenters(self) -> list[dict[str, Any]]:
        """The models with figures of segmentation."""
        return [model for model in self.run if model.get("segmentation")]

    @property
    def reference(self) -> str | None:
        """The model with which the others are compared."""
        name = self.summary.get("reference")
        return None if name is None else str(name)

    @property
    def labels(self) -> list[str]:
        """Labels for which some model has figures and that are in the truth; all where the truth is empty."""
        having = list(dict.fromkeys(label for model in self.segmenters for label in model["segmentation"]))
        true = dig(self.summary, "data", "labels") or []
        return [label for label in having if label in true] or having

    @property
    def main_label(self) -> str | None:
        """The label that stands first in sentences: nodes, where there are any."""
        return "GTVn" if "GTVn" in self.labels else next(iter(self.labels), None)

    def number(self, name: str) -> int:
        """A model's place, from which its colour and marker come."""
        return next((i for i, model in enumerate(self.models) if model.get("name") == name), 0)

    def rows_of(self, name: str, *, failed: bool = False) -> list[dict[str, str]]:
        """The rows of a model's cases that are done; with `failed`, those without a prediction too."""
        rows = [row for row in self.rows if row.get("model") == name and row.get("case_id")]
        return [row for row in rows if failed or row.get("status") == "ok"]


def read_source(folder: Path) -> Source:
    """The newest benchmark of a folder.

    Raises
    ------
    InputError : there is none, or it is not what this version writes.
    """
    summary = newest_summary(folder)
    again = "run the benchmark again with this version"
    if summary.get("format") != FORMAT:
        raise InputError(folder, "its summary is from a different version", again)
    for name, kind in _PARTS.items():
        if not isinstance(summary.get(name), kind):
            raise InputError(folder, f"its summary has no {name}", again)
    if any(not isinstance(model, Mapping) or "name" not in model for model in summary["models"]):
        raise InputError(folder, "its summary has models without a name", again)
    file = folder / Path(str(dig(summary, "files", "results") or "")).name
    found = re.fullmatch(r"benchmark_results_(\w+)\.csv", file.name)
    rows, problem = _rows(file)
    return Source(folder, summary, rows, found.group(1) if found else "latest", problem)


def value(row: Mapping[str, str], column: str) -> float | None:
    """A number of a row; None where the cell is empty or none."""
    try:
        found = float(row.get(column) or "nan")
    except ValueError:
        return None
    return found if abs(found) < float("inf") else None


def _rows(file: Path) -> tuple[tuple[dict[str, str], ...], str]:
    if not file.is_file():
        return (), "the results CSV no longer exists, so charts of single cases are missing"
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return tuple(csv.DictReader(stream)), ""
    except (OSError, UnicodeDecodeError, csv.Error):
        return (), "the results CSV cannot be read, so charts of single cases are missing"


class Metric(NamedTuple):
    """A metric of segmentation as it is shown."""

    title: str
    kind: NumberKind


METRICS = {
    "dice": Metric("Dice", "ratio"),
    "iou": Metric("IoU", "ratio"),
    "hd95_mm": Metric("95 % Hausdorff (mm)", "mm"),
    "assd_mm": Metric("Surface distance (mm)", "mm"),
    "surface_dice_1mm": Metric("Surface Dice 1 mm", "ratio"),
    "surface_dice_2mm": Metric("Surface Dice 2 mm", "ratio"),
    "volume_error_ml": Metric("Size of volume error (ml)", "ml"),
    "volume_error_relative": Metric("Size of volume error (share)", "ratio"),
    "node_sensitivity": Metric("Node sensitivity", "ratio"),
    "node_dice": Metric("Dice of single nodes", "ratio"),
    "froc": Metric("Free-response score", "ratio"),
    "auc": Metric("AUC", "ratio"),
}
"""In the order of the tables."""
TRACKS = {"on_truth": "on the truth's nodes", "end_to_end": "end to end"}


def kind_title(kind: object) -> object:
    """A kind of model as it is shown; one that is not known here keeps its word."""
    known = adapters().get(str(kind))
    return kind if known is None else known.title


def metric(name: str) -> Metric:
    """A metric as it is shown; one that this report does not know keeps its name."""
    return METRICS.get(name, Metric(name, "ratio"))


def endpoint_title(name: str, label: str) -> str:
    """An endpoint as it is shown: "Dice of GTVn", "AUC of extranodal extension, end to end"."""
    if name == "auc":
        track = "end_to_end" if label.endswith("end_to_end") else "on_truth"
        return f"AUC of extranodal extension, {TRACKS[track]}"
    title = metric(name).title
    return title if name.startswith(("node", "froc")) or not label else f"{title} of {label}"


ModelFigures = Sequence[tuple[str, Any]]
"""Names of models, with their figures."""


class FigureColumn(NamedTuple):
    """A column of figures.

    Parameters
    ----------
    head : its title.
    at : where its figure lies among those of a row, with dots between the steps; several stand side by side.
    kind : how it is shown.
    what : how its figure is called where it is missing; empty: by the head.
    """

    head: str
    at: str | tuple[str, ...]
    kind: NumberKind = "ratio"
    what: str = ""


def models_table(
    title: str, columns: Sequence[FigureColumn], rows: ModelFigures, *, whole: str = ""
) -> CellTable:
    """A row for each model and its figures; `whole` is what these are called where they give one reason."""
    builder = TableBuilder(title, ("Model", *(column.head for column in columns)))
    for model, found in rows:
        if whole and dig(found, "reason"):
            builder.missing(model, whole, str(dig(found, "reason")))
        cells = []
        for head, at, kind, what in columns:
            if isinstance(at, tuple):
                cells.append(numbers([dig(found, *one.split(".")) for one in at]))
                continue
            value = dig(found, *at.split("."))
            single = isinstance(value, int | float)
            cells.append(
                number(value, kind) if single else builder.estimate(model, what or head, value, kind)
            )
        builder.row(words(model), *cells)
    return builder.table()


def word_table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> CellTable:
    """A table of nothing but words."""
    builder = TableBuilder(title, head)
    for row in rows:
        builder.row(*map(words, row))
    return builder.table()


def equals(p: float | None) -> str:
    """What stands behind "p"."""
    said = shown(p, "p")
    return said if said.startswith("<") else f"= {said}"


def count(number: int, one: str) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else one + 's'}"


Chapter = Literal["segmentation", "detection", "classification", "ranks", "resources"]


@dataclass(frozen=True)
class Chart:
    """One chart of a chapter.

    Parameters
    ----------
    chapter : where it stands, behind the tables.
    place : among the charts of its chapter.
    figure : of a benchmark and the part of the chapter that it is of: a label (segmentation, resources), a
        track (classification), a scheme (ranks), else empty; None where there is nothing to draw.
    """

    chapter: Chapter
    place: int
    figure: Callable[[Source, str], Figure | None]


@cache
def _charts() -> tuple[Chart, ...]:
    modules = (
        import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    )
    return tuple(sorted((one for module in modules for one in module.CHARTS), key=lambda one: one.place))


def figures_of(chapter: Chapter, source: Source, part: str = "") -> list[Figure]:
    """The charts of a part of a chapter that can be drawn, in their order."""
    made = (chart.figure(source, part) for chart in _charts() if chart.chapter == chapter)
    return [figure for figure in made if figure is not None]
