"""A count as covariate: as it is, logarithmic, capped, in classes, or as a smooth curve."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.stats.records import Floats, NotEstimableError

Form = Literal["continuous", "log1p", "capped", "categorical", "spline"]

_QUANTILES = {3: (0.10, 0.50, 0.90), 4: (0.05, 0.35, 0.65, 0.95), 5: (0.05, 0.275, 0.50, 0.725, 0.95)}


def spline_knots(x: ArrayLike, n_knots: int = 3) -> Floats:
    """Harrell's knots at fixed quantiles; where those coincide, as with counts, of the distinct values.

    Raises
    ------
    UsageError : not 3, 4 or 5 knots.
    NotEstimableError : too few distinct values.
    """
    values = np.asarray(x, dtype=np.float64)
    if n_knots not in _QUANTILES:
        raise UsageError("a spline has 3, 4 or 5 knots.")
    distinct = np.unique(values)
    if distinct.size < n_knots:
        raise NotEstimableError(
            f"{distinct.size} distinct values are too few for a spline of {n_knots} knots",
            "take the count as it is, or in classes",
        )
    knots = np.unique(np.quantile(values, _QUANTILES[n_knots]))
    if knots.size < n_knots:
        knots = np.quantile(distinct, _QUANTILES[n_knots])
    return np.asarray(knots)


def restricted_cubic_spline(x: ArrayLike, knots: ArrayLike | None = None, *, n_knots: int = 3) -> Floats:
    """Basis (n, k - 1) of a cubic spline that is straight beyond the outer knots; the first column is x.

    Parameters
    ----------
    knots : (k,) rising; `spline_knots(x, n_knots)` if None.

    Raises
    ------
    UsageError : fewer than 3 knots, or not rising.
    NotEstimableError : see `spline_knots`.

    References
    ----------
    Harrell 2015, Regression Modeling Strategies, section 2.4.5, with the columns divided by the knots' span
    squared.
    """
    values = np.asarray(x, dtype=np.float64)
    t = spline_knots(values, n_knots) if knots is None else np.asarray(knots, dtype=np.float64)
    if t.size < 3 or (np.diff(t) <= 0).any():
        raise UsageError("a spline needs at least 3 rising knots.")
    cube = np.maximum(values[:, None] - t[None, :], 0.0) ** 3
    last, before = t[-1], t[-2]
    left = cube[:, :-2]
    right = -cube[:, [-2]] * (last - t[:-2]) / (last - before) + cube[:, [-1]] * (before - t[:-2]) / (
        last - before
    )
    return np.concatenate([values[:, None], (left + right) / (last - t[0]) ** 2], axis=1)


def count_columns(
    count: ArrayLike,
    *,
    form: Form = "continuous",
    cap: int = 3,
    cutoffs: Sequence[int] = (1, 2),
    name: str = "n_ai_ene",
) -> pd.DataFrame:
    """Columns of a design for a count.

    Parameters
    ----------
    count : (n,) not negative, none missing.
    form : `continuous` as it is; `log1p` of it; `capped` at `cap`; `categorical` in classes with a column for
        each class above the first; `spline` with 3 knots.
    cutoffs : lower limits of the classes above the first: (1, 2) makes 0, 1 and >= 2.

    Raises
    ------
    UsageError : a count is missing or negative, or the cut-offs do not rise.
    NotEstimableError : too few distinct counts for a spline.
    """
    values = np.asarray(count, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise UsageError(f"{name} must be counts, none missing.")
    if form == "continuous":
        return pd.DataFrame({name: values})
    if form == "log1p":
        return pd.DataFrame({f"log1p({name})": np.log1p(values)})
    if form == "capped":
        return pd.DataFrame({f"min({name}, {cap})": np.minimum(values, cap)})
    if form == "spline":
        basis = restricted_cubic_spline(values)
        return pd.DataFrame({name: basis[:, 0], f"{name}'": basis[:, 1]})
    if form == "categorical":
        return _classes(values, cutoffs, name)
    raise UsageError(f"form {form}: choose continuous, log1p, capped, categorical or spline.")


def _classes(values: Floats, cutoffs: Sequence[int], name: str) -> pd.DataFrame:
    limits = list(cutoffs)
    if not limits or limits[0] <= 0 or any(b <= a for a, b in pairwise(limits)):
        raise UsageError("cut-offs must be positive and rise.")
    columns = {}
    for low, following in zip(limits, [*limits[1:], None], strict=True):
        if following is None:
            label, inside = f"{name} >= {low}", values >= low
        else:
            span = f"{low}" if following == low + 1 else f"{low}-{following - 1}"
            label, inside = f"{name} {span}", (values >= low) & (values < following)
        columns[label] = inside.astype(np.float64)
    return pd.DataFrame(columns)
