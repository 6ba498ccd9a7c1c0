"""Recursive partitioning of old groups and count by scikit-learn, beside the exhaustive search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aiene.errors import need
from aiene.report.document import Column, Table
from aiene.report.formatting import plain_rows
from aiene.risk.analyse.derive.search import FEWEST_IN_GROUP, SMALLEST_SHARE, Derived
from aiene.risk.analyse.derive.validate import Data
from aiene.stats.pair_counts import harrell_c
from aiene.stats.survival_curves import nelson_aalen

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
    columns = (
        Column("groups", "Old groups"),
        Column("nodes", "AI-ENE nodes"),
        Column("n", "n", "count"),
        Column("events", "Events", "count"),
        Column("ratio", "Events over expected", "number"),
    )
    judges = ~train if (~train).any() else train
    where = "on the test part" if (~train).any() else "on the same patients, so too high"
    own = data.time[judges], data.event[judges]
    of_tree = harrell_c(*own, rate[leaf[judges]]).c
    of_search = harrell_c(*own, found.assign(data.base[judges], data.count[judges]).astype(float)).c
    note = (
        "Poisson splits of events over expected ones (Nelson-Aalen) by scikit-learn, on the patients "
        "that chose the "
        f"cut-offs; leaves hold {SMALLEST_SHARE:.0%} of them, at most {MOST_LEAVES}, their number by "
        "AIC. A tree may "
        "order old groups and counts as the outcome says; the search above keeps the old order. "
        f"C {where}: tree {of_tree:.3f}, search {of_search:.3f}."
    )
    return Table("derived_tree", "Recursive partitioning for comparison", columns, plain_rows(rows), note)


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
