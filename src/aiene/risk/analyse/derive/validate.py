"""What a derivation is worth on patients that took no part in it, and beside recursive partitioning.

Old groups and derived ones are compared as the same patients learned them: where those contradict the order
of two neighbouring old groups, the two are taken together in both, so that the count is not credited with it.

The partitioning is of old groups and count, by scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aiene.errors import need
from aiene.report.document import Item, Table, Text
from aiene.risk.analyse.derive.search import FEWEST_IN_GROUP, SMALLEST_SHARE, Derived, search
from aiene.risk.analyse.records import AnalysisSettings, ends, fields_of, resampling, table_of
from aiene.stats.centre_models import pooled, validation_centres
from aiene.stats.concordance import concordance, harrell_c
from aiene.stats.internal_validation import cross_validate, optimism, permutation_control
from aiene.stats.records import Interval, NotEstimableError
from aiene.stats.survival_curves import nelson_aalen

GIVEN, OLD, DERIVED = (
    "C of the old groups as given",
    "C of the old groups, contradicted order pooled",
    "C of the derived groups",
)
GAIN = "Difference in C"
NAMES = (GIVEN, OLD, DERIVED, GAIN)
_FOUND = "Share with a cut-off"


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
        parts = (part[rows] for part in (self.time, self.event, self.base, self.count))
        return search(*parts, n_bases=self.n_bases)

    def ranks(self, found: Derived, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Ranks of some patients: old as given, old with a contradicted order pooled, derived."""
        base = self.base[rows]
        new = found.assign(base, self.count[rows])
        return {GIVEN: base.astype(float), OLD: found.old[base].astype(float), DERIVED: new.astype(float)}

    def judge(self, found: Derived, rows: np.ndarray) -> list[float]:
        """The values of `NAMES` on some patients."""
        time, event = self.time[rows], self.event[rows]
        given, old, new = (harrell_c(time, event, r).c for r in self.ranks(found, rows).values())
        return [given, old, new, new - old]


def split_mask(event: np.ndarray, settings: AnalysisSettings) -> np.ndarray:
    """True for the training part, the same share of those with and without the event; bool (n,)."""
    rng = np.random.default_rng(settings.seed)
    train = np.zeros(event.size, dtype=bool)
    for value in (0, 1):
        rows = rng.permutation(np.flatnonzero(event == value))
        train[rows[: round(settings.train_fraction * rows.size)]] = True
    if train.all() or not train.any():
        raise NotEstimableError("there are too few patients to split", "use more patients")
    return train


def split_rows(
    data: Data, found: Derived, test: np.ndarray, settings: AnalysisSettings, label: str = "Test part"
) -> list[dict[str, Any]]:
    """C on the test part with intervals, and the apparent value on the training part beside it."""
    rows = np.flatnonzero(test)
    time, event = data.time[rows], data.event[rows]
    ranks = data.ranks(found, rows)
    result = concordance(time, event, ranks, compare=[(OLD, DERIVED)], **resampling(settings))
    difference = next(iter(result.differences.values()))
    values: list[Interval | Any] = [*result.values.values(), difference]
    made = []
    for name, value, apparent in zip(NAMES, values, data.judge(found, np.flatnonzero(~test)), strict=True):
        row = _head(label, rows.size, event) | {"measure": name, "value": value.value, "apparent": apparent}
        if found.cutoffs or name != GAIN:  # the same groups twice differ by nothing, without any error
            row |= ends(value, settings)
        made.append(row)
    return made


def _head(validation: str, n: int, event: np.ndarray) -> dict[str, Any]:
    return {"validation": validation, "n": n, "events": int(event.sum())}


def cross_validated(data: Data, settings: AnalysisSettings) -> list[dict[str, Any]]:
    """C on left-out folds of the whole procedure."""
    result = cross_validate(
        lambda rows, _: data.derive(rows),
        lambda found, rows: [*data.judge(found, rows), float(bool(found.cutoffs))],
        data.time.size,
        names=(*NAMES, _FOUND),
        folds=settings.folds,
        repeats=settings.repeats,
        seed=settings.seed,
        strata=data.event,
        confidence=settings.confidence,
    )
    label = f"Nested cross-validation, {settings.repeats} x {settings.folds} folds"
    head = _head(label, data.time.size, data.event)
    rows = [
        head | {"measure": n, "value": result.values[n].value, "lower": v.lower, "upper": v.upper}
        for n, v in result.values.items()
        if n in NAMES
    ]
    return [*rows, head | {"measure": _FOUND, "value": result.values[_FOUND].value}]


def bootstrap_rows(data: Data, settings: AnalysisSettings) -> list[dict[str, Any]]:
    """Apparent and corrected values, the search repeated in each resample."""
    n_boot = min(settings.bootstraps, 500)
    if not n_boot:
        return []
    how = resampling(settings, most=n_boot)
    result = optimism(lambda rows, _: data.derive(rows), data.judge, data.time.size, names=NAMES, **how)
    head = _head(f"Optimism-corrected, {n_boot} resamples", data.time.size, data.event)
    cells = ("lower", "upper", "apparent", "optimism")
    return [head | {"measure": r.name, "value": r.corrected, **fields_of(r, *cells)} for r in result.rows]


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
            rows += split_rows(data, data.derive(np.flatnonzero(~held)), held, settings, label)
        except NotEstimableError as error:
            rows.append({"validation": label, "measure": str(error)})
    for name in NAMES:
        own = [r for r in rows if r["measure"] == name]
        found = pooled(
            own, ("value", "lower", "upper"), "plain" if name == GAIN else "logit", settings.confidence
        )
        if found is not None:
            row = {"validation": f"Pooled over {found.k} centres (random effects)", "measure": name}
            rows.append(row | fields_of(found, "value", "lower", "upper", "i2"))
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


_SIDES = {
    "above": "above the shuffled ones: better than a shuffled count",
    "below": "below the shuffled ones: worse than a shuffled count",
    "inside": "inside: no better than a shuffled count",
}


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
        return shuffled.judge(shuffled.derive(learn), held)[-1]

    result = permutation_control(
        gain, data.count, within=data.base, n_perm=settings.permutations, seed=settings.seed
    )
    row: dict[str, Any] = {"measure": "Apparent gain in C" if train is None else "Gain in C on the test part"}
    row |= fields_of(result, "observed", "lower", "upper", "p") | {"verdict": _SIDES[result.side]}
    return (table_of("derived_permutation", [row], settings=settings, failed=result.n_failed),)


MOST_LEAVES = 5


def tree_table(data: Data, train: np.ndarray, found: Derived, bases: Sequence[str]) -> Table:
    """A tree of relative risk (LeBlanc and Crowley) on the training part, its leaves and its C elsewhere.

    Parameters
    ----------
    train : bool (n,) patients that choose; the others, where there are any, judge.
    found : groups of the exhaustive search, whose C stands beside.
    bases : names of the old groups.
    """
    leaf, rate = _grown(data, train)
    rows: list[dict[str, Any]] = []
    expected = np.zeros(train.size)
    expected[train] = nelson_aalen(data.time[train], data.event[train])
    for number in np.argsort(rate):
        inside = train & (leaf == number)
        levels = np.unique(data.base[inside])
        low, high = int(data.count[inside].min()), int(data.count[inside].max())
        events = int(data.event[inside].sum())
        row = {"groups": ", ".join(bases[b] for b in levels), "n": int(inside.sum()), "events": events}
        row["nodes"] = f"{low}" if low == high else f"{low} to {high}"
        rows.append(row | {"ratio": events / float(expected[inside].sum())})
    judges = ~train if (~train).any() else train
    where = "on the test part" if (~train).any() else "on the same patients, so too high"
    own = data.time[judges], data.event[judges]
    of_tree = harrell_c(*own, rate[leaf[judges]]).c
    of_search = harrell_c(*own, found.assign(data.base[judges], data.count[judges]).astype(float)).c
    said = {"share": SMALLEST_SHARE, "leaves": MOST_LEAVES, "where": where}
    return table_of("derived_tree", rows, of_tree=of_tree, of_search=of_search, **said)


def _grown(data: Data, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leaf of every patient (n,) and events over expected of each leaf; their number by AIC."""
    tree = need("sklearn.tree", extra="risk", purpose="Recursive partitioning")
    x = np.column_stack([data.base, data.count]).astype(float)
    expected = np.maximum(nelson_aalen(data.time[train], data.event[train]), 1e-9)
    event = data.event[train].astype(float)
    fewest = max(FEWEST_IN_GROUP, int(np.ceil(SMALLEST_SHARE * train.sum())))
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for leaves in range(1, MOST_LEAVES + 1):
        leaf = np.zeros(train.size, dtype=int)
        if leaves > 1:
            grown = tree.DecisionTreeRegressor(
                criterion="poisson", max_leaf_nodes=leaves, min_samples_leaf=fewest, random_state=0
            ).fit(x[train], event / expected, sample_weight=expected)
            leaf = np.unique(grown.apply(x), return_inverse=True)[1]
        size = int(leaf.max()) + 1
        happened = np.bincount(leaf[train], weights=event, minlength=size)
        total = np.bincount(leaf[train], weights=expected, minlength=size)
        rate = happened / total
        likelihood = float((happened * np.log(np.maximum(rate, 1e-12)) - happened).sum())
        aic = 2.0 * size - 2.0 * likelihood
        if best is None or aic < best[0] - 1e-9:
            best = aic, leaf, rate
    if best is None:
        raise AssertionError("a tree of one leaf always is")
    return best[1], best[2]
