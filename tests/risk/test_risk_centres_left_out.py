"""Leaving one centre out: nothing of it is seen by the models that are judged in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aiene.risk.analyse.cohort import Outcome
from aiene.risk.analyse.incremental_value import internal_external_validation
from aiene.risk.analyse.model_comparison import Added, Model, ModelComparison, matrices_without
from aiene.risk.analyse.records import AnalysisSettings
from aiene.stats.cox_model import fit_cox

RANDOM = np.random.default_rng(3)
N = 600
RANKS = RANDOM.choice(4, N, p=[0.4, 0.3, 0.2, 0.1])
COUNT = RANDOM.integers(0, 4, N).astype(float)
CENTRE = np.array(["A", "B", "C"])[np.arange(N) % 3]
TIME = RANDOM.exponential(5 / np.exp(0.4 * RANKS + 0.3 * COUNT))
EVENT = (TIME < 4).astype(int)
LAST = np.minimum(TIME, 4)


def comparison(event: Any = EVENT) -> Any:
    outcome = Outcome("os", np.arange(N), LAST, event, event)
    matrix = pd.DataFrame({f"g{r}": (r == RANKS).astype(float) for r in (1, 2, 3)})  # type: ignore[attr-defined]
    old, new = Model("old", "Old", matrix, RANKS, ("0", "1", "2", "3")), matrix.assign(n_ai_ene=COUNT)
    nothing = np.zeros(0, dtype=int)
    of = ("base", "Old", "All patients", outcome, old, Model("new", "New", new), None, nothing, nothing)
    return replace(ModelComparison(*of), center=CENTRE)


def test_groups_without_an_event_elsewhere_are_joined_and_the_held_centre_has_no_say() -> None:
    held = CENTRE == "C"
    event = np.where(~held & (RANKS == 0), 0, EVENT)  # only centre C has events in group 0
    found = matrices_without(comparison(event), held)
    assert found["old"].shape[1] == 2  # groups 1 (with 0), 2, 3
    assert ((found["old"].sum(axis=1) == 0).to_numpy() == (RANKS <= 1)).all()
    other = np.where(held, 1 - event, event)
    for name, matrix in matrices_without(comparison(other), held).items():
        pd.testing.assert_frame_equal(matrix, found[name])


def test_a_group_that_only_the_held_centre_has_is_taken_for_the_next_worse() -> None:
    held = (CENTRE == "C") | (RANKS == 2)
    found = matrices_without(comparison(), held)["old"]
    assert (found.loc[RANKS == 2].to_numpy() == found.loc[RANKS == 3].to_numpy()[0]).all()


def test_slopes_are_there_where_groups_are_sparse_and_are_those_of_a_fit_by_hand() -> None:
    held = CENTRE == "C"
    event = np.where(~held & (RANKS == 0), 0, EVENT)
    added = Added()
    internal_external_validation(comparison(event), {}, added, AnalysisSettings(bootstraps=0))
    rows = {(r["centre"], r["key"]): r for r in added.rows["centres"] if "key" in r}
    joined = np.maximum(RANKS, 1)
    x = np.column_stack([joined == 2, joined == 3]).astype(float)
    model = fit_cox(LAST[~held], event[~held], x[~held])
    slope = fit_cox(LAST[held], event[held], model.risk(x[held])[:, None]).beta[0]
    assert rows["C", "old"]["slope"] == pytest.approx(slope, abs=1e-6)
    assert all(rows[c, "old"]["slope"] is not None for c in "ABC")
