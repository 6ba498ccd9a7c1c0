"""Multiple imputation by chained equations: covariates only, never HPV, the AI-ENE count or outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.risk.stats.checks import Floats, Ints, check_outcome
from aiene.risk.stats.draws import draw_category, draw_number
from aiene.risk.stats.errors import NotEstimableError
from aiene.risk.stats.life_table import nelson_aalen

Draw = Literal["pmm", "logistic", "multinomial"]

NEVER_IMPUTED = ("hpv", "n_ai_ene", "n_ai_nodes", "time", "event")


@dataclass(frozen=True)
class Imputed:
    """Completed tables.

    Parameters
    ----------
    tables : m copies of the table without missing values in the columns asked for.
    filled : by column, how many values were missing.
    methods : by column: `pmm` predictive mean matching, `logistic` or `multinomial`.
    """

    tables: tuple[pd.DataFrame, ...]
    m: int
    filled: dict[str, int]
    methods: dict[str, Draw]
    iterations: int
    seed: int


@dataclass(frozen=True)
class _Column:
    """One column as numbers: values, or codes of levels; where it is missing."""

    name: str
    method: Draw
    values: Floats
    missing: np.ndarray
    levels: tuple[object, ...]


def impute(
    table: pd.DataFrame,
    columns: Sequence[str],
    *,
    time: ArrayLike,
    event: ArrayLike,
    predictors: Sequence[str] = (),
    m: int = 20,
    iterations: int = 10,
    seed: int = 1,
    never: Sequence[str] = NEVER_IMPUTED,
) -> Imputed:
    """Fill missing covariates m times, each from all others, the event and its cumulative hazard.

    Parameters
    ----------
    table : one row per patient.
    columns : to fill. Numbers by predictive mean matching on 5 donors, two levels by logistic, more levels by
        multinomial regression, each with coefficients drawn anew.
    time, event : (n,) of the endpoint; the event and Nelson-Aalen's hazard are predictors. 2 is a competing
        event.
    predictors : further columns that help to predict. A category may be missing there (its own level), a
        number may not.
    never : words; a column whose name starts or ends with one is refused.

    Raises
    ------
    UsageError : a column is not there, is one that must never be imputed, or a predictor has missing numbers.
    NotEstimableError : a column has no value at all, or only one.

    References
    ----------
    van Buuren 2018, Flexible Imputation of Missing Data; White and Royston 2009, Stat Med 28:1982.
    """
    times, codes = check_outcome(time, event, competing=True)
    helpers = [name for name in predictors if name not in columns]
    _check(table, columns, helpers, times.size, m, iterations, never)
    incomplete = [_column(table[name], name) for name in columns]
    chained = sorted((c for c in incomplete if c.missing.any()), key=lambda c: int(c.missing.sum()))
    fixed = [_fixed(table[name], name) for name in helpers]
    fixed += [_coded(column, column.values) for column in incomplete if not column.missing.any()]
    happened = (codes == 1).astype(np.float64)
    fixed.append(np.stack([happened, nelson_aalen(times, codes == 1)], axis=1))
    base = np.concatenate(fixed, axis=1)
    tables = tuple(_one(table, chained, base, iterations, np.random.default_rng([seed, k])) for k in range(m))
    return Imputed(
        tables=tables,
        m=m,
        filled={column.name: int(column.missing.sum()) for column in incomplete},
        methods={column.name: column.method for column in incomplete},
        iterations=iterations,
        seed=seed,
    )


def _check(
    table: pd.DataFrame,
    columns: Sequence[str],
    helpers: Sequence[str],
    n: int,
    m: int,
    iterations: int,
    never: Sequence[str],
) -> None:
    if absent := [name for name in (*columns, *helpers) if name not in table.columns]:
        raise UsageError(f"not in the table: {', '.join(absent)}.")
    refused = [c for c in columns if any(c.lower().startswith(w) or c.lower().endswith(w) for w in never)]
    if refused:
        raise UsageError(f"{', '.join(refused)} must never be imputed; use complete cases for it.")
    if len(table) != n:
        raise UsageError(f"the table has {len(table)} rows for {n} outcomes.")
    if m < 2 or iterations < 1:
        raise UsageError("multiple imputation needs m of at least 2 and at least one iteration.")


def _column(series: pd.Series, name: str) -> _Column:
    missing = series.isna().to_numpy(dtype=bool)
    seen = series[~missing]
    levels = tuple(sorted(seen.unique().tolist(), key=lambda v: (str(type(v)), v)))
    if len(levels) < 2:
        raise NotEstimableError(f"{name} has {len(levels) or 'no'} known value", "leave it out of the model")
    numeric = pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype)
    if numeric and len(levels) > 2:
        values = pd.to_numeric(series).to_numpy(dtype=np.float64, na_value=np.nan)
        return _Column(name, "pmm", values, missing, ())
    code = {level: float(place) for place, level in enumerate(levels)}
    values = np.full(len(series), np.nan)
    values[~missing] = [code[value] for value in seen]
    return _Column(name, "logistic" if len(levels) == 2 else "multinomial", values, missing, levels)


def _fixed(series: pd.Series, name: str) -> Floats:
    """Columns of a predictor that is not imputed; a missing category is a level of its own."""
    if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype):
        if series.isna().any():
            raise UsageError(
                f"{name} is missing in {int(series.isna().sum())} patients; leave those out first."
            )
        return series.to_numpy(dtype=np.float64)[:, None]
    dummies = pd.get_dummies(series.astype(object), dummy_na=bool(series.isna().any()))
    return dummies.to_numpy(dtype=np.float64)[:, 1:]


def _coded(column: _Column, values: Floats) -> Floats:
    if column.method == "pmm":
        return values[:, None]
    return np.asarray(values[:, None] == np.arange(1, len(column.levels))[None, :], dtype=np.float64)


def _one(
    table: pd.DataFrame, chained: Sequence[_Column], base: Floats, iterations: int, rng: Generator
) -> pd.DataFrame:
    filled = [_first_guess(column, rng) for column in chained]
    for _ in range(iterations):
        for place, column in enumerate(chained):
            others = [_coded(chained[k], filled[k]) for k in range(len(chained)) if k != place]
            design = _standardised(np.concatenate([base, *others], axis=1))
            filled[place] = _drawn(column, design, rng)
    out = table.copy()
    for column, values in zip(chained, filled, strict=True):
        out[column.name] = _written(table[column.name], column, values)
    return out


def _first_guess(column: _Column, rng: Generator) -> Floats:
    values = column.values.copy()
    values[column.missing] = rng.choice(column.values[~column.missing], int(column.missing.sum()))
    return values


def _standardised(matrix: Floats) -> Floats:
    spread = matrix.std(axis=0)
    kept = spread > 0
    return np.concatenate(
        [np.ones((matrix.shape[0], 1)), (matrix[:, kept] - matrix[:, kept].mean(axis=0)) / spread[kept]],
        axis=1,
    )


def _drawn(column: _Column, design: Floats, rng: Generator) -> Floats:
    known = ~column.missing
    values = column.values.copy()
    if column.method == "pmm":
        new = draw_number(design[known], column.values[known], design[column.missing], rng)
    else:
        codes: Ints = column.values[known].astype(np.int64)
        new = draw_category(design[known], codes, len(column.levels), design[column.missing], rng)
    values[column.missing] = new
    return values


def _written(series: pd.Series, column: _Column, values: Floats) -> pd.Series:
    """The column as it was, with the missing values filled."""
    out = series.astype(object).copy()
    new = values[column.missing]
    filling = [column.levels[int(code)] for code in new] if column.levels else new.tolist()
    out.iloc[np.flatnonzero(column.missing)] = filling
    return out.astype(series.dtype)
