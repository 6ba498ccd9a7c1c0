"""Multiple imputation by chained equations, and pooling of the results by Rubin's rules.

Only covariates are imputed, never HPV, the AI-ENE count or outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy import special

from aiene.errors import UsageError
from aiene.stats.records import (
    COMPETING,
    EVENT,
    Floats,
    Ints,
    NotEstimableError,
    check_fraction,
    check_outcome,
)
from aiene.stats.survival_curves import nelson_aalen

if TYPE_CHECKING:
    from aiene.stats.cox_model import CoxFit

_DONORS = 5  # patients to draw from; 5 is the default of R's mice
_PRIOR = 1.0 / 2.5**2  # of standardised slopes: keeps them finite where a level is separated

Draw = Literal["pmm", "logistic", "multinomial"]
ITERATIONS = 10
"""Rounds over all columns before a table is taken."""
NEVER_IMPUTED = ("hpv", "n_ai_ene", "n_ai_nodes", "time", "event")
"""A column whose name starts or ends with one of these is refused."""


def draw_number(
    known: Floats,
    values: Floats,
    missing: Floats,
    rng: Generator,
    *,
    low: Floats | None = None,
    high: Floats | None = None,
) -> Floats:
    """Predictive mean matching: an observed value of one of the 5 patients predicted most alike.

    Of donors predicted exactly alike each is as likely as the others.

    Parameters
    ----------
    known, missing : designs (n, p) and (k, p), with a column of ones.
    values : (n,)
    low, high : (k,) donors of a patient have values within these, both included; none if None.

    Raises
    ------
    NotEstimableError : no known value lies within the bounds of a patient.

    References
    ----------
    Little 1988, J Bus Econ Stat 6:287; the predictions of donors are at the estimate, those of the others at
    a draw.
    """
    n, p = known.shape
    gram = known.T @ known
    inverse = np.linalg.inv(gram + 1e-5 * np.diag(np.diag(gram)))
    estimate = inverse @ (known.T @ values)
    residual = values - known @ estimate
    sigma = float(residual @ residual / rng.chisquare(max(n - p, 1))) ** 0.5
    drawn = estimate + sigma * np.linalg.cholesky(inverse) @ rng.standard_normal(p)
    donors, wanted = (known * estimate).sum(axis=1), missing @ drawn  # equal rows: equal bits, so real ties
    if low is None or high is None:
        return _matched(donors, values, wanted, rng)
    out = np.empty(wanted.size)
    bounds, which = np.unique(np.stack([low, high], axis=1), axis=0, return_inverse=True)
    for number, (least, most) in enumerate(bounds):
        own, here = (values >= least) & (values <= most), which.ravel() == number
        if not own.any():
            raise NotEstimableError(
                f"no known value lies between {least:g} and {most:g}, as {int(here.sum())} missing ones do",
                "leave the covariate out of the model",
            )
        out[here] = _matched(donors[own], values[own], wanted[here], rng)
    return out


def _matched(donors: Floats, values: Floats, wanted: Floats, rng: Generator) -> Floats:
    """The value of a random one of the nearest donors; donors (n,), values (n,), wanted (k,)."""
    order = np.argsort(donors, kind="stable")
    number, ranked = min(_DONORS, donors.size), donors[order]
    middle = np.searchsorted(ranked, wanted)
    window = np.clip(middle[:, None] + np.arange(-number, number)[None, :], 0, donors.size - 1)
    far = np.abs(ranked[window] - wanted[:, None])
    far[:, 1:][window[:, 1:] == window[:, :-1]] = np.inf  # the edge must not count twice
    nearest = np.argsort(far, axis=1, kind="stable")[:, :number]
    everyone = np.arange(wanted.size)
    chosen = window[everyone, nearest[everyone, rng.integers(0, number, wanted.size)]]
    _, first, block, alike = np.unique(ranked, return_index=True, return_counts=True, return_inverse=True)
    place = block[chosen]
    tied = first[place] + (rng.random(wanted.size) * alike[place]).astype(np.int64)
    return np.asarray(values[order[tied]])


def draw_category(known: Floats, codes: Ints, k: int, missing: Floats, rng: Generator) -> Floats:
    """A level from a multinomial (for two levels logistic) regression with a weak normal prior.

    Parameters
    ----------
    known, missing : designs (n, p) and (q, p), with a column of ones first.
    codes : (n,) 0 to k - 1.
    """
    estimate, information = _multinomial(known, codes, k)
    half = np.linalg.cholesky(np.linalg.inv(information))
    drawn = estimate + (half @ rng.standard_normal(estimate.size)).reshape(estimate.shape)
    chances: Floats = np.asarray(np.cumsum(_chances(missing, drawn), axis=1))
    return np.asarray((rng.random((missing.shape[0], 1)) > chances[:, :-1]).sum(axis=1), dtype=np.float64)


def _chances(design: Floats, beta: Floats) -> Floats:
    """Chances (n, k) with coefficients (k - 1, p) against the first level."""
    eta = np.concatenate([np.zeros((design.shape[0], 1)), design @ beta.T], axis=1)
    weights = np.exp(eta - eta.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _multinomial(design: Floats, codes: Ints, k: int) -> tuple[Floats, Floats]:
    p = design.shape[1]
    beta = np.zeros((k - 1, p))
    target = (codes[:, None] == np.arange(1, k)[None, :]).astype(np.float64)
    prior = np.full(p, _PRIOR)
    prior[0] = 1e-4
    precision = np.tile(prior, k - 1)
    information = np.diag(precision)
    for _ in range(50):
        chances = _chances(design, beta)[:, 1:]
        score = ((target - chances).T @ design).ravel() - precision * beta.ravel()
        blocks = [
            [
                (design * (chances[:, a] * ((a == b) - chances[:, b]))[:, None]).T @ design
                for b in range(k - 1)
            ]
            for a in range(k - 1)
        ]
        information = np.block(blocks) + np.diag(precision)
        move = np.linalg.solve(information, score)
        longest = float(np.abs(move).max())
        beta = beta + (move / max(1.0, longest / 3.0)).reshape(beta.shape)
        if longest < 1e-8:
            break
    return beta, information


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


@dataclass(frozen=True)
class _Column:
    """One column as numbers: values, or codes of levels; where it is missing, and between what it lies."""

    name: str
    method: Draw
    values: Floats
    missing: np.ndarray
    levels: tuple[object, ...]
    low: Floats
    high: Floats


def impute(
    table: pd.DataFrame,
    columns: Sequence[str],
    *,
    time: ArrayLike,
    event: ArrayLike,
    predictors: Sequence[str] = (),
    bounds: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    m: int = 20,
    seed: int = 1,
) -> Imputed:
    """Fill missing covariates m times, each from all others, the events and their cumulative hazards.

    Parameters
    ----------
    table : one row per patient.
    columns : to fill. Numbers by predictive mean matching on 5 donors, two levels by logistic, more levels by
        multinomial regression, each with coefficients drawn anew.
    time, event : (n,) of the endpoint; the event and Nelson-Aalen's hazard are predictors. 2 is a competing
        event, whose indicator and hazard are predictors of their own.
    predictors : further columns that help to predict. A category may be missing there (its own level), a
        number may not.
    bounds : by column that is a number: least and greatest value of each patient, (n,) each, both included;
        infinite where nothing is known. Every value that is filled lies within.

    Raises
    ------
    UsageError : a column is not there, is one that must never be imputed, or a predictor has missing numbers.
    NotEstimableError : a column has no value at all, or only one, or none within a patient's bounds.

    References
    ----------
    van Buuren 2018, Flexible Imputation of Missing Data; White and Royston 2009, Stat Med 28:1982.
    """
    times, codes = check_outcome(time, event, competing=True)
    helpers = [name for name in predictors if name not in columns]
    _check(table, columns, helpers, times.size, m)
    incomplete = [_column(table[name], name, (bounds or {}).get(name)) for name in columns]
    chained = sorted((c for c in incomplete if c.missing.any()), key=lambda c: int(c.missing.sum()))
    fixed = [_fixed(table[name], name) for name in helpers]
    fixed += [_coded(column, column.values) for column in incomplete if not column.missing.any()]
    for code in (EVENT, COMPETING):
        happened = (codes == code).astype(np.int64)
        if happened.any():
            fixed.append(np.stack([happened, nelson_aalen(times, happened)], axis=1))
    base = np.concatenate(fixed, axis=1)
    tables = tuple(_one(table, chained, base, np.random.default_rng([seed, k])) for k in range(m))
    return Imputed(
        tables=tables,
        m=m,
        filled={column.name: int(column.missing.sum()) for column in incomplete},
        methods={column.name: column.method for column in incomplete},
    )


def _check(table: pd.DataFrame, columns: Sequence[str], helpers: Sequence[str], n: int, m: int) -> None:
    if absent := [name for name in (*columns, *helpers) if name not in table.columns]:
        raise UsageError(f"not in the table: {', '.join(absent)}.")
    refused = [c for c in columns if c.lower().startswith(NEVER_IMPUTED) or c.lower().endswith(NEVER_IMPUTED)]
    if refused:
        raise UsageError(f"{', '.join(refused)} must never be imputed; use complete cases for it.")
    if len(table) != n:
        raise UsageError(f"the table has {len(table)} rows for {n} outcomes.")
    if m < 2:
        raise UsageError("multiple imputation needs m of at least 2.")


def _column(series: pd.Series, name: str, bounds: tuple[ArrayLike, ArrayLike] | None) -> _Column:
    low, high = (
        np.full(len(series), limit) if bounds is None else np.asarray(bounds[k], dtype=np.float64)
        for k, limit in enumerate((-np.inf, np.inf))
    )
    missing = series.isna().to_numpy(dtype=bool)
    seen = series[~missing]
    levels = tuple(sorted(seen.unique().tolist(), key=lambda v: (str(type(v)), v)))
    if len(levels) < 2:
        raise NotEstimableError(f"{name} has {len(levels) or 'no'} known value", "leave it out of the model")
    numeric = pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype)
    if numeric and len(levels) > 2:
        values = pd.to_numeric(series).to_numpy(dtype=np.float64, na_value=np.nan)
        return _Column(name, "pmm", values, missing, (), low, high)
    if bounds is not None:
        raise UsageError(f"{name} is not a number with several values, so it has no bounds.")
    code = {level: float(place) for place, level in enumerate(levels)}
    values = np.full(len(series), np.nan)
    values[~missing] = [code[value] for value in seen]
    method: Draw = "logistic" if len(levels) == 2 else "multinomial"
    return _Column(name, method, values, missing, levels, low, high)


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


def _one(table: pd.DataFrame, chained: Sequence[_Column], base: Floats, rng: Generator) -> pd.DataFrame:
    filled = [_first_guess(column, rng) for column in chained]
    for _ in range(ITERATIONS):
        for place, column in enumerate(chained):
            others = [_coded(chained[k], filled[k]) for k in range(len(chained)) if k != place]
            design = _standardised(np.concatenate([base, *others], axis=1))
            filled[place] = _drawn(column, design, rng)
    out = table.copy()
    for column, values in zip(chained, filled, strict=True):
        out[column.name] = _written(table[column.name], column, values)
    return out


def _first_guess(column: _Column, rng: Generator) -> Floats:
    values, known = column.values.copy(), column.values[~column.missing]
    ones = np.ones((values.size, 1))
    values[column.missing] = (
        _within(column, ones, rng) if column.method == "pmm" else rng.choice(known, int(column.missing.sum()))
    )
    return values


def _within(column: _Column, design: Floats, rng: Generator) -> Floats:
    gaps, known = column.missing, ~column.missing
    bounds = {"low": column.low[gaps], "high": column.high[gaps]}
    return draw_number(design[known], column.values[known], design[gaps], rng, **bounds)


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
    told = np.ptp(design[known], axis=0) > 0  # a level that no known value goes with says nothing of them
    told[0] = True
    design = design[:, told]
    if column.method == "pmm":
        new = _within(column, design, rng)
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


# Pooling: Rubin's rules


class PooledCoefficient(NamedTuple):
    """A pooled coefficient; `fraction_missing` is the share of information lost to missing values."""

    name: str
    coef: float
    std_error: float
    t: float
    df: float
    p: float
    hr: float
    lower: float
    upper: float
    fraction_missing: float


@dataclass(frozen=True)
class Pooled:
    """A regression pooled over m completed tables.

    Parameters
    ----------
    covariance : (p, p) total.
    """

    rows: tuple[PooledCoefficient, ...]
    m: int
    n: int
    events: int
    covariance: Floats


def rubin(fits: Sequence[CoxFit], *, confidence: float = 0.95) -> Pooled:
    """Pool the same regression over completed tables.

    Raises
    ------
    UsageError : fewer than two fits, or not of the same columns and patients.
    """
    if len(fits) < 2:
        raise UsageError("Rubin's rules need at least two completed tables.")
    names = [row.name for row in fits[0].rows]
    for fit in fits:
        if [row.name for row in fit.rows] != names or (fit.n, fit.events) != (fits[0].n, fits[0].events):
            raise UsageError("the completed tables were not fitted with the same columns and patients.")
    return rubin_estimates(
        np.stack([fit.coef for fit in fits]),
        np.stack([fit.covariance for fit in fits]),
        names,
        fits[0].n,
        events=fits[0].events,
        confidence=confidence,
    )


def rubin_estimates(
    estimates: ArrayLike,
    covariances: ArrayLike,
    names: Sequence[str],
    n: int,
    *,
    events: int = 0,
    confidence: float = 0.95,
) -> Pooled:
    """Pool estimates (m, p) with their covariances (m, p, p).

    Parameters
    ----------
    n : patients; n - p are the degrees of freedom with complete data, unless there are `events`.
    events : of a survival model, whose degrees of freedom with complete data are events - p, as in mice.

    Raises
    ------
    UsageError : shapes that do not fit, or fewer than two estimates.

    References
    ----------
    Rubin 1987, Multiple Imputation for Nonresponse in Surveys; Barnard and Rubin 1999, Biometrika 86:948.
    """
    values, within_each = np.asarray(estimates, np.float64), np.asarray(covariances, np.float64)
    m, p = values.shape
    if m < 2 or within_each.shape != (m, p, p) or len(names) != p:
        raise UsageError("estimates and covariances must be of at least two tables and the same columns.")
    level = check_fraction(confidence, "confidence")
    mean, within = values.mean(axis=0), within_each.mean(axis=0)
    between = np.atleast_2d(np.cov(values, rowvar=False, ddof=1))
    total = within + (1.0 + 1.0 / m) * between
    complete_df = max(1, (events or n) - p)
    rows = tuple(
        _row(
            name,
            float(mean[k]),
            float(total[k, k]),
            (1 + 1 / m) * float(between[k, k]),
            m,
            complete_df,
            level,
        )
        for k, name in enumerate(names)
    )
    return Pooled(rows, m, n, events, total)


def _row(
    name: str, coef: float, total: float, extra: float, m: int, complete_df: int, level: float
) -> PooledCoefficient:
    lost = extra / total
    observed = (complete_df + 1) / (complete_df + 3) * complete_df * (1 - lost)
    df = observed if lost < 1e-12 else 1.0 / (lost**2 / (m - 1) + 1.0 / observed)
    error = total**0.5
    t = coef / error
    p = float(2.0 * special.stdtr(df, -abs(t)))
    width = float(special.stdtrit(df, 0.5 + level / 2)) * error
    r = extra / (total - extra) if total > extra else np.inf
    fraction = (r + 2.0 / (df + 3.0)) / (r + 1.0) if lost >= 1e-12 else 0.0
    with np.errstate(over="ignore"):
        ratio, low, high = np.exp([coef, coef - width, coef + width])
    return PooledCoefficient(
        name, coef, error, t, df, p, float(ratio), float(low), float(high), float(fraction)
    )
