"""Estimates that would run to infinity: how to see them before a fit is believed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aiene.risk.stats.checks import Floats, Ints, check_design, check_groups, check_outcome
from aiene.risk.stats.cox_fast import RiskSets, derivatives, fit_cox, risk_sets

_FLAT = 1e-6  # information left along a direction, as a share of what there was at the start
_COUNTS = 0.1  # a column takes part in a direction where its share is over this


def find_separation(
    time: ArrayLike, event: ArrayLike, X: pd.DataFrame, *, strata: ArrayLike | None = None
) -> tuple[str, ...]:
    """Columns whose coefficient has no finite estimate (monotone likelihood).

    A single column is judged exactly: it separates where at every event the patient has the greatest (or at
    every event the least) value of the risk set, and some risk set holds another value. Combinations are
    judged by the fit: a direction in which the information has all but vanished while the coefficients grew.

    Raises
    ------
    UsageError, NotEstimableError : see `check_outcome`, `check_design`.

    References
    ----------
    Bryson and Johnson 1981, Technometrics 23:381; Heinze and Schemper 2001, Biometrics 57:114.
    """
    times, codes = check_outcome(time, event)
    matrix, names = check_design(X, times.size)
    layers = None if strata is None else check_groups(strata, times.size)[0]
    sets = risk_sets(times, codes, layers)
    alone = [monotone(matrix[sets.order, column], sets) for column in range(matrix.shape[1])]
    if any(alone):
        return tuple(name for name, found in zip(names, alone, strict=True) if found)
    if matrix.shape[1] == 1 or not codes.any():
        return ()
    return tuple(names[column] for column in _flat_direction(times, codes, matrix, layers, sets))


def monotone(values: Floats, sets: RiskSets) -> bool:
    """Whether every event has the greatest (or every one the least) value of its risk set.

    Parameters
    ----------
    values : (n,) in the order of `sets`.
    """
    rows = sets.event_rows
    if rows.size == 0:
        return False
    at_event = values[rows]
    greatest = np.array(_running(values, sets, np.maximum))[sets.last_row]
    least = np.array(_running(values, sets, np.minimum))[sets.last_row]
    informative = bool((greatest > least).any())
    return informative and bool((at_event == greatest).all() or (at_event == least).all())


def _running(values: Floats, sets: RiskSets, pick: np.ufunc) -> Floats:
    out = np.empty_like(values)
    for first in np.unique(sets.start):
        layer = sets.start == first
        out[layer] = pick.accumulate(values[layer])
    return out


def _flat_direction(
    time: Floats, event: Ints, matrix: Floats, strata: Ints | None, sets: RiskSets
) -> list[int]:
    fit = fit_cox(time, event, matrix, strata=strata)
    scale = matrix.std(axis=0)
    standard = ((matrix - matrix.mean(axis=0)) / scale)[sets.order]
    before = derivatives(standard, sets, np.zeros(scale.size)).information
    after = derivatives(standard, sets, fit.beta * scale).information
    values, vectors = np.linalg.eigh(after)
    flat = values < _FLAT * np.einsum("ij,ik,kj->j", vectors, before, vectors)
    if not flat.any():
        return []
    share = np.abs(vectors[:, flat]).max(axis=1)
    return [int(column) for column in np.flatnonzero(share > _COUNTS * share.max())]
