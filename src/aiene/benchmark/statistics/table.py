"""Scores of several models on the same patients, ready to be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aiene.benchmark.statistics.bootstrap import cluster_codes
from aiene.benchmark.statistics.delong import as_floats
from aiene.errors import UsageError

FloatArray = npt.NDArray[np.float64]
Scores = Mapping[str, Sequence[float | None]]


class ScoreTable(NamedTuple):
    """Mean score of each patient (rows) for each model (columns).

    Parameters
    ----------
    left_out : cases in which a model has no score, so that they were left out for every model.
    """

    models: tuple[str, ...]
    values: FloatArray
    left_out: int


def score_table(
    scores: Scores, patients: Sequence[str] | None = None, *, higher_is_better: bool | None = True
) -> ScoreTable:
    """One value per patient and model.

    Parameters
    ----------
    scores : of each model, in one order of cases; None or NaN where there is none.
    patients : of each case; several cases of one are averaged. None: each case is a patient.
    higher_is_better : None: nearest to 0 is best, so absolute values are taken.

    Raises
    ------
    UsageError : the models have different numbers of cases, or patients are not one for each.
    """
    if len({len(values) for values in scores.values()}) > 1:
        raise UsageError("the models have scores of different numbers of cases; they must be the same cases.")
    columns = [as_floats(values) for values in scores.values()]
    table = np.stack(columns, axis=1) if columns else np.zeros((0, 0))
    table = np.abs(table) if higher_is_better is None else table
    codes, count = cluster_codes(len(table), patients)
    whole = np.isfinite(table).all(axis=1)
    sums = np.zeros((count, len(columns)))
    np.add.at(sums, codes[whole], table[whole])
    cases = np.bincount(codes[whole], minlength=count)
    means = sums[cases > 0] / cases[cases > 0, None]
    return ScoreTable(tuple(scores), means, int((~whole).sum()))


def oriented(values: FloatArray, higher_is_better: bool | None) -> FloatArray:
    """The values of a `ScoreTable`, turned so that more is better."""
    return values if higher_is_better else -values
