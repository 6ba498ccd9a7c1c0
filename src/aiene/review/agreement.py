"""How far readers agree with each other and with the model: contours, nodes, and the AI-ENE number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiene.benchmark.metrics.classification import weighted_kappa
from aiene.benchmark.metrics.segmentation import case_metrics
from aiene.errors import UsageError
from aiene.finished_runs import cases_of, read_labels, read_run
from aiene.geometry.grid import Grid, bounding_box
from aiene.nodes.node import GTVN
from aiene.report.document import RESEARCH_ONLY, CellTable, Column, Document, Facts, Section, Table
from aiene.report.formatting import TableBuilder, number, words
from aiene.report.write import page, table_csv
from aiene.results.atomic import make_folder
from aiene.results.ownership import Owned
from aiene.results.records import CaseResult
from aiene.results.reviews import AGREEMENT, DONE, FOLDER, ReviewStore, readers
from aiene.stats.bootstrap import cluster_bootstrap
from aiene.stats.records import Estimate, missing

MODEL: Final = "model"
_SEED: Final = 0
_RIM: Final = 2  # voxels around both masks: surfaces need an outside
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """One case as two of them see it.

    Parameters
    ----------
    dice, assd_mm : of the nodes' contours; None where both drew nothing (the distance: where one did).
    nodes : how many each has, and how many of these are the same (IoU, one to one).
    counts : the AI-ENE number of each.
    """

    case_id: str
    dice: float | None
    assd_mm: float | None
    nodes: tuple[int, int, int]
    counts: tuple[int, int]


@dataclass(frozen=True)
class Agreement:
    """Two readers (or a reader and the model) over the cases that both are done with.

    Parameters
    ----------
    dice, assd_mm : means over cases.
    detection : F1 of nodes: twice the shared ones over all of both.
    kappa : of the AI-ENE number, weighted by the square of the difference.
    icc : of the AI-ENE number, ICC(2,1): two-way random effects, absolute agreement, single reader.
    """

    first: str
    second: str
    cases: tuple[Compared, ...]
    dice: Estimate
    assd_mm: Estimate
    detection: Estimate
    kappa: Estimate
    icc: Estimate


def agreement(out: Path) -> list[Agreement]:
    """Every pair of readers, and each with the model.

    Raises
    ------
    UsageError : nobody has reviewed the run.
    InputError : a version cannot be read.
    """
    read_run(out)
    if not readers(out):
        raise UsageError(f"{out.name}: it has not been reviewed yet; start with aiene review.")
    cases = [c for c in cases_of(out) if isinstance(c, CaseResult) and c.status in ("ok", "no_nodes")]
    views = {MODEL: {c.case_id: (c, out / "cases" / c.case_id) for c in cases}}
    for reader in readers(out):
        store = ReviewStore(out, reader)
        latest = [store.latest(case.case_id) for case in cases]
        views[reader] = {
            s.result.case_id: (s.result, s.folder)
            for s in latest
            if s is not None and s.version.status in DONE
        }
    return [_agreement(a, b, views[a], views[b]) for a, b in combinations(views, 2)]


def icc(first: FloatArray, second: FloatArray) -> Any:
    """The statistic ICC(2,1) of two lists of numbers (Shrout and Fleiss, Psychol. Bull. 86, 1979).

    Returns
    -------
    A function of weights (resamples, rows), NaN where all numbers are the same.
    """
    both = np.stack([first, second], axis=1)

    def statistic(weights: FloatArray) -> FloatArray:
        n, k = weights.sum(axis=1), 2
        grand = (weights @ both).sum(axis=1) / (n * k)
        rows = both.mean(axis=1)
        between_rows = k * np.einsum("ri,ri->r", weights, (rows[None] - grand[:, None]) ** 2)
        columns = (weights @ both) / n[:, None]
        between_columns = n * ((columns - grand[:, None]) ** 2).sum(axis=1)
        total = np.einsum("ri,rik->r", weights, (both[None] - grand[:, None, None]) ** 2)
        ms_rows = between_rows / np.maximum(n - 1, 1)
        ms_error = (total - between_rows - between_columns) / np.maximum((n - 1) * (k - 1), 1)
        below = ms_rows + (k - 1) * ms_error + k * (between_columns / (k - 1) - ms_error) / n
        return np.where(total > 1e-12, (ms_rows - ms_error) / np.where(below != 0, below, 1.0), np.nan)

    return statistic


def _agreement(first: str, second: str, one: dict[str, Any], other: dict[str, Any]) -> Agreement:
    shared = sorted(one.keys() & other.keys())
    cases = tuple(_compared(case_id, one[case_id], other[case_id]) for case_id in shared)
    counts = np.array([case.counts for case in cases], dtype=float).reshape(-1, 2)
    nodes = np.array([case.nodes for case in cases], dtype=float).reshape(-1, 3)

    def f1(weights: FloatArray) -> FloatArray:
        a, b, same = (weights @ nodes).T
        return np.where(a + b > 0, 2 * same / np.where(a + b > 0, a + b, 1), np.nan)

    return Agreement(
        first,
        second,
        cases,
        dice=_mean([case.dice for case in cases]),
        assd_mm=_mean([case.assd_mm for case in cases]),
        detection=_bootstrapped(f1, len(cases)),
        kappa=_of_counts(weighted_kappa(counts[:, 0], counts[:, 1], 2), counts),
        icc=_of_counts(icc(counts[:, 0], counts[:, 1]), counts),
    )


def _compared(case_id: str, one: tuple[CaseResult, Path], other: tuple[CaseResult, Path]) -> Compared:
    grid: Grid = Grid.from_facts(one[0].facts["native"])
    maps = [read_labels(folder / "nodes.nii.gz", grid, np.uint16).array for _, folder in (one, other)]
    span = bounding_box((maps[0] > 0) | (maps[1] > 0))
    dice = assd = None
    shared = 0
    if span is not None:
        block = tuple(slice(max(s.start - _RIM, 0), s.stop + _RIM) for s in span)
        a, b = (np.ascontiguousarray(m[block]) for m in maps)
        one_mask, other_mask = (np.where(m > 0, GTVN, 0).astype(np.uint8) for m in (a, b))
        found = case_metrics(
            one_mask, other_mask, grid.spacing, labels=(GTVN,), truth_nodes=a, predicted_nodes=b
        )
        dice, assd = found.labels[0].dice, found.labels[0].assd_mm
        shared = len(found.nodes.pairs)
    nodes = (len(one[0].nodes), len(other[0].nodes), shared)
    return Compared(case_id, dice, assd, nodes, (one[0].n_ai_ene, other[0].n_ai_ene))


def _mean(values: Sequence[float | None]) -> Estimate:
    known = np.array([value for value in values if value is not None], dtype=float)
    return _bootstrapped(lambda weights: weights @ known / weights.sum(axis=1), len(known))


def _of_counts(statistic: Any, counts: FloatArray) -> Estimate:
    if len(counts) and len(np.unique(counts)) == 1:
        return missing("all counts are the same", len(counts))
    return _bootstrapped(statistic, len(counts))


def _bootstrapped(statistic: Any, n: int) -> Estimate:
    if n == 0:
        return missing("no case that both have finished has any", 0)
    return cluster_bootstrap(statistic, n, seed=_SEED)


def write_agreement(out: Path, found: Sequence[Agreement]) -> Path:
    """The page and its tables in `OUT/review/agreement`; the page's path.

    Raises
    ------
    OutputError : they cannot be written.
    """
    run = read_run(out)
    folder, owned = out / FOLDER / AGREEMENT, Owned(out)
    cases = _case_table(found)
    document = Document(
        title="Agreement of readers",
        lead=f"Readers of a run of {run.maker.started:%Y-%m-%d}; model {run.maker.bundle_name} "
        f"{run.maker.bundle_version}, ENE over {run.maker.ene_threshold:g}.",
        notice=f"{run.maker.notice} {RESEARCH_ONLY}",
        sections=(
            Section("pairs", "Each pair", (_pair_table(found),)),
            Section("cases", "Each case", (cases,)),
            Section("how", "How it was computed", (_method(),)),
        ),
    )
    make_folder(folder / "tables")
    owned.write(folder / "tables" / f"{cases.name}.csv", table_csv(cases))
    owned.write(folder / "agreement.html", page(document, {}, figures="figures", tables="tables").encode())
    return folder / "agreement.html"


def _pair_table(found: Sequence[Agreement]) -> CellTable:
    head = ("Pair", "Cases", "Dice of nodes", "Surface distance, mm", "Same nodes, F1", "Kappa", "ICC(2,1)")
    table = TableBuilder("Agreement, with 95 % intervals", head)
    for pair in found:
        name = f"{pair.first} and {pair.second}"
        table.row(
            words(name),
            number(len(pair.cases), "count"),
            table.estimate(name, "Dice", asdict(pair.dice)),
            table.estimate(name, "surface distance", asdict(pair.assd_mm), "mm"),
            table.estimate(name, "F1", asdict(pair.detection)),
            table.estimate(name, "kappa", asdict(pair.kappa)),
            table.estimate(name, "ICC", asdict(pair.icc)),
        )
    return table.table()


def _case_table(found: Sequence[Agreement]) -> Table:
    columns = (
        Column("first", "First"),
        Column("second", "Second"),
        Column("case_id", "Case"),
        Column("dice", "Dice", "number3"),
        Column("assd_mm", "Surface distance, mm", "number"),
        Column("nodes_first", "Nodes, first", "count"),
        Column("nodes_second", "Nodes, second", "count"),
        Column("nodes_shared", "The same", "count"),
        Column("count_first", "AI-ENE, first", "count"),
        Column("count_second", "AI-ENE, second", "count"),
    )
    keys = [column.key for column in columns]
    rows = [
        dict(zip(keys, (p.first, p.second, c.case_id, c.dice, c.assd_mm, *c.nodes, *c.counts), strict=True))
        for p in found
        for c in p.cases
    ]
    return Table("cases", "Cases that both have finished", columns, tuple(rows))


def _method() -> Facts:
    return Facts(
        (
            ("Cases", "accepted or corrected by both; the model counts as finished"),
            ("Dice, surface distance", "of all nodes of a case as one mask; mean over cases"),
            ("Same nodes", "matched one to one by overlap (IoU), as in aiene benchmark; F1 over all cases"),
            ("Kappa", "of the AI-ENE number, weighted by the square of the difference"),
            ("ICC(2,1)", "of the AI-ENE number: two-way random effects, absolute agreement, single reader"),
            ("Intervals", "bootstrap over patients, 2,000 resamples, expanded percentiles, seed 0"),
        )
    )
