"""What a derivation is worth on patients that did not take part in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aiene.report.document import Column, Item, Table, Text
from aiene.report.formatting import plain_rows
from aiene.risk.analyse.derive.search import Derived, search
from aiene.risk.analyse.incremental_value import validation_centres
from aiene.risk.analyse.settings import AnalysisSettings
from aiene.stats.concordance import concordance, harrell_c
from aiene.stats.internal_validation import cross_validate, optimism, permutation_control
from aiene.stats.records import NotEstimableError

NAMES = ("C of the old groups", "C of the derived groups", "Difference in C")


@dataclass(frozen=True)
class Data:
    """What the search sees: time, event (0/1), place of the old group, count; all (n,)."""

    time: np.ndarray
    event: np.ndarray
    base: np.ndarray
    count: np.ndarray
    n_bases: int

    def derive(self, rows: np.ndarray) -> Derived:
        """The whole search on some patients."""
        return search(
            self.time[rows], self.event[rows], self.base[rows], self.count[rows], n_bases=self.n_bases
        )

    def judge(self, found: Derived, rows: np.ndarray) -> list[float]:
        """C of the old groups, of the derived ones, and the difference, on some patients."""
        time, event = self.time[rows], self.event[rows]
        old = harrell_c(time, event, self.base[rows].astype(float)).c
        new = harrell_c(time, event, found.assign(self.base[rows], self.count[rows]).astype(float)).c
        return [old, new, new - old]


def split_mask(event: np.ndarray, settings: AnalysisSettings) -> np.ndarray:
    """True for the training part, the same share of those with and without the event; bool (n,)."""
    rng = np.random.default_rng(settings.seed)
    train = np.zeros(event.size, dtype=bool)
    for value in (0, 1):
        rows = rng.permutation(np.flatnonzero(event == value))
        train[rows[: round(settings.train_fraction * rows.size)]] = True
    if train.all() or not train.any():
        raise NotEstimableError("the patients are too few to be split", "use more patients")
    return train


def split_rows(
    data: Data, found: Derived, test: np.ndarray, settings: AnalysisSettings
) -> list[dict[str, Any]]:
    """C on the test part with intervals, and the apparent value on the training part beside it."""
    time, event, base = data.time[test], data.event[test], data.base[test].astype(float)
    new = found.assign(data.base[test], data.count[test]).astype(float)
    result = concordance(
        time,
        event,
        {"old": base, "new": new},
        compare=[("old", "new")],
        n_boot=max(2, settings.bootstraps),
        seed=settings.seed,
        confidence=settings.confidence,
    )
    apparent = data.judge(found, np.flatnonzero(~test))
    difference = next(iter(result.differences.values()))
    head = {"validation": "Test part", "n": int(test.sum()), "events": int(event.sum())}
    values: tuple[Any, ...] = (result.values["old"], result.values["new"], difference)
    return [
        head
        | {"measure": name, "value": v.value, "lower": v.lower, "upper": v.upper, "apparent": a}
        | ({"p": difference.p} if number == 2 else {})
        for number, (name, v, a) in enumerate(zip(NAMES, values, apparent, strict=True))
    ]


def cross_validated(data: Data, settings: AnalysisSettings) -> list[dict[str, Any]]:
    """C on left-out folds of the whole procedure."""
    result = cross_validate(
        lambda rows, _: data.derive(rows),
        data.judge,
        data.time.size,
        names=NAMES,
        folds=settings.folds,
        repeats=settings.repeats,
        seed=settings.seed,
        strata=data.event,
    )
    head = {
        "validation": f"Nested cross-validation, {settings.repeats} x {settings.folds} folds",
        "n": data.time.size,
        "events": int(data.event.sum()),
    }
    return [
        head | {"measure": n, "value": v.value, "lower": v.lower, "upper": v.upper}
        for n, v in result.values.items()
    ]


def bootstrap_rows(data: Data, settings: AnalysisSettings) -> list[dict[str, Any]]:
    """Apparent and corrected values, the search repeated in each resample."""
    n_boot = min(settings.bootstraps, 500)
    if not n_boot:
        return []
    result = optimism(
        lambda rows, _: data.derive(rows),
        data.judge,
        data.time.size,
        names=NAMES,
        n_boot=n_boot,
        seed=settings.seed,
    )
    head = {
        "validation": f"Optimism-corrected, {n_boot} resamples",
        "n": data.time.size,
        "events": int(data.event.sum()),
    }
    return [
        head | {"measure": r.name, "value": r.corrected, "apparent": r.apparent, "optimism": r.optimism}
        for r in result.rows
    ]


def centre_rows(data: Data, center: np.ndarray, settings: AnalysisSettings) -> list[dict[str, Any]]:
    """Each centre judges what the search found without it; nothing where fewer than three can.

    Parameters
    ----------
    center : (n,) names.
    """
    rows: list[dict[str, Any]] = []
    for centre in validation_centres(center, data.event):
        held = center == centre
        label = f"Derived without centre {centre}, judged there"
        try:
            found = data.derive(np.flatnonzero(~held))
            rows += [r | {"validation": label} for r in split_rows(data, found, held, settings)]
        except NotEstimableError as error:
            rows.append({"validation": label, "measure": str(error)})
    return rows


def fold_ranks(data: Data, settings: AnalysisSettings) -> np.ndarray:
    """The group of each patient by the scheme that the other folds chose; int (n,)."""
    rng = np.random.default_rng(settings.seed)
    fold = np.zeros(data.time.size, dtype=int)
    for value in (0, 1):
        rows = rng.permutation(np.flatnonzero(data.event == value))
        fold[rows] = np.arange(rows.size) % settings.folds
    ranks = np.zeros(data.time.size, dtype=int)
    for number in range(settings.folds):
        held = np.flatnonzero(fold == number)
        found = data.derive(np.flatnonzero(fold != number))
        ranks[held] = found.assign(data.base[held], data.count[held])
    return ranks


def permuted(data: Data, settings: AnalysisSettings) -> tuple[Item, ...]:
    """Shuffle the count within old groups and repeat the procedure: the real gain must stand out."""
    if settings.permutations < 2:
        return (Text("The permutation control was switched off.", kind="warning"),)
    rows = np.arange(data.time.size)
    train = split_mask(data.event, settings) if settings.derive == "split" else None
    learn = rows if train is None else rows[train]
    held = rows if train is None else rows[~train]

    def gain(count: np.ndarray) -> float:
        shuffled = replace(data, count=count.astype(int))
        return shuffled.judge(shuffled.derive(learn), held)[2]

    result = permutation_control(
        gain, data.count, within=data.base, n_perm=settings.permutations, seed=settings.seed
    )
    row = {
        "measure": "Gain in C on the test part" if train is not None else "Apparent gain in C",
        "observed": result.observed,
        "lower": result.lower,
        "upper": result.upper,
        "p": result.p,
        "verdict": "outside" if result.outside else "inside: no better than a shuffled count",
    }
    columns = (
        Column("measure", "Measure"),
        Column("observed", "Real count", "number3"),
        Column("lower", "Shuffled, 2.5 %", "number3"),
        Column("upper", "Shuffled, 97.5 %", "number3"),
        Column("p", "p", "p"),
        Column("verdict", "The real one lies"),
    )
    note = (
        f"The count was shuffled {settings.permutations} times within the old groups, and the whole "
        "search repeated each time; "
        f"seed {settings.seed}; {result.n_failed} could not be fitted."
    )
    return (Table("derived_permutation", "Permutation control", columns, plain_rows([row]), note),)
