"""Records that several analyses share, their JSON form, and the checks of the input of every analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from aiene.errors import ProblemError, UsageError

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CENSORED, EVENT, COMPETING = 0, 1, 2


class Interval(NamedTuple):
    """A value with its confidence interval; NaN where not reached or not defined."""

    value: float
    lower: float
    upper: float


class Difference(NamedTuple):
    """A paired difference with its interval and its two-sided p value."""

    value: float
    lower: float
    upper: float
    p: float


class HorizonEstimate(NamedTuple):
    """A curve at one horizon.

    `at_risk` counts patients still followed just before `time`, `n_events` the events up to and at it.
    `beyond_followup` is True where `time` lies after the last observation and some were censored there: the
    value is then the last one known.
    """

    time: float
    value: float
    lower: float
    upper: float
    std_error: float
    at_risk: int
    n_events: int
    beyond_followup: bool


class Pair(NamedTuple):
    """A test between two groups, its p value as it is and after Holm's correction."""

    first: str
    second: str
    statistic: float
    p: float
    p_holm: float


class Coefficient(NamedTuple):
    """One column of a regression: log hazard ratio, its error and test, the ratio with its interval."""

    name: str
    coef: float
    std_error: float
    z: float
    p: float
    hr: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Estimate:
    """A number of a benchmark.

    Parameters
    ----------
    value : None where it cannot be given; never NaN.
    low, high : the 95 % interval, unless the maker says otherwise; None where there is none.
    reason : why the value, or only its interval, is missing; empty where both are there.
    n : how many observations (nodes, cases or patients) it rests on.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    n: int = 0


def missing(reason: str, n: int = 0) -> Estimate:
    """No number, and why."""
    return Estimate(None, reason=reason, n=n)


class NotEstimableError(ProblemError):
    """The data hold too little for this quantity."""


# Checks of the input


class Outcome(NamedTuple):
    """Checked times and codes of n patients: 0 censored, 1 event, 2 competing event."""

    time: Floats
    event: Ints


def check_outcome(time: ArrayLike, event: ArrayLike, *, competing: bool = False) -> Outcome:
    """Times and event codes as float and integer arrays.

    Parameters
    ----------
    time : (n,) not negative; zero is allowed.
    event : (n,) 0 or 1, with `competing` also 2; booleans are taken as 0 and 1.

    Raises
    ------
    UsageError : lengths differ, a time is negative or missing, or a code is unknown.
    NotEstimableError : there is no patient.
    """
    times = _floats(time, "time")
    codes = _floats(event, "event")
    if times.shape != codes.shape:
        raise UsageError(f"time and event differ in length ({times.size} and {codes.size}).")
    if times.size == 0:
        raise NotEstimableError("no patient is left", "check the endpoint's columns and the filters")
    if not np.isfinite(times).all():
        raise UsageError("time holds missing or infinite values; leave those patients out first.")
    if (times < 0).any():
        raise UsageError(f"time holds {int((times < 0).sum())} negative values; check the origin of time.")
    known = (CENSORED, EVENT, COMPETING) if competing else (CENSORED, EVENT)
    unknown = ~np.isin(codes, known)
    if unknown.any():
        codes_seen = ", ".join(f"{value:g}" for value in np.unique(codes[unknown])[:5])
        raise UsageError(f"event holds {codes_seen}; the codes are {', '.join(map(str, known))}.")
    return Outcome(times, codes.astype(np.int64))


def check_groups(
    group: ArrayLike, n: int, order: Sequence[Any] | None = None
) -> tuple[Ints, tuple[str, ...]]:
    """Index of each patient's group, and the names of the groups that occur.

    Parameters
    ----------
    group : (n,) labels without missing values.
    order : all labels in the order wanted; labels that do not occur are dropped. Sorted if None.

    Raises
    ------
    UsageError : the length differs, a label is missing, or not in `order`.
    """
    labels = np.asarray(group, dtype=object).ravel()
    if labels.size != n:
        raise UsageError(f"group has {labels.size} labels for {n} patients.")
    if any(_missing(label) for label in labels):
        raise UsageError("group holds missing labels; leave those patients out or name them.")
    present = set(labels.tolist())
    wanted = sorted(present, key=_sort_key) if order is None else list(order)
    if absent := present - set(wanted):
        raise UsageError(f"groups not in the order given: {', '.join(sorted(map(str, absent)))}.")
    kept = [label for label in dict.fromkeys(wanted) if label in present]
    place = {label: index for index, label in enumerate(kept)}
    return np.array([place[label] for label in labels], dtype=np.int64), tuple(map(str, kept))


def check_several(names: Sequence[str], purpose: str) -> None:
    """Refuse a comparison of fewer than two groups.

    Raises
    ------
    NotEstimableError : there are fewer than two.
    """
    if len(names) < 2:
        raise NotEstimableError(f"{purpose} needs two groups, there is one", "choose another grouping")


def check_scores(values: ArrayLike, n: int, name: str = "risk") -> Floats:
    """Finite scores, one per patient.

    Raises
    ------
    UsageError : the length differs or a value is missing.
    """
    scores = _floats(values, name)
    if scores.shape != (n,):
        raise UsageError(f"{name} has {scores.size} values for {n} patients.")
    if not np.isfinite(scores).all():
        raise UsageError(f"{name} holds missing or infinite values.")
    return scores


def check_probabilities(values: ArrayLike, n: int, name: str = "predicted") -> Floats:
    """Probabilities, one per patient.

    Raises
    ------
    UsageError : the length differs or a value is not from 0 to 1.
    """
    chances = check_scores(values, n, name)
    if ((chances < 0) | (chances > 1)).any():
        raise UsageError(f"{name} must lie from 0 to 1.")
    return chances


def check_horizons(horizons: ArrayLike) -> Floats:
    """Horizons as a rising float array.

    Raises
    ------
    UsageError : none given, one not positive, or not rising.
    """
    times = np.atleast_1d(_floats(horizons, "horizons"))
    if times.size == 0 or not np.isfinite(times).all() or (times <= 0).any():
        raise UsageError("horizons must be positive times.")
    if (np.diff(times) <= 0).any():
        raise UsageError("horizons must rise.")
    return times


def known_until(time: Floats, event: Ints) -> float:
    """Time up to which curves are known: the longest, or infinity where everybody there had an event."""
    last = float(time.max())
    return last if (event[time == last] == CENSORED).any() else float("inf")


def check_followed(time: Floats, event: Ints, horizon: float) -> None:
    """Refuse a horizon after which nothing was seen.

    Raises
    ------
    NotEstimableError : nobody is followed up to it, and some patients were censored at the very last.
    """
    if horizon > known_until(time, event):
        raise NotEstimableError(f"nobody is followed up to {horizon:g}", "choose an earlier horizon")


def check_design(X: pd.DataFrame, n: int) -> tuple[Floats, tuple[str, ...]]:
    """Matrix and column names of a design.

    Raises
    ------
    UsageError : a length differs, a value is missing, a name occurs twice.
    NotEstimableError : there is no column, or one holds one value only.
    """
    names = tuple(map(str, X.columns))
    if len(set(names)) != len(names):
        raise UsageError("the design has two columns of one name.")
    if not names:
        raise NotEstimableError("the model has no covariate", "name at least one")
    matrix = np.asarray(X, dtype=np.float64)
    if matrix.shape[0] != n:
        raise UsageError(f"the design has {matrix.shape[0]} rows for {n} patients.")
    if not np.isfinite(matrix).all():
        holed = [name for name, column in zip(names, matrix.T, strict=True) if not np.isfinite(column).all()]
        raise UsageError(f"missing or infinite values in {', '.join(holed)}; drop or impute them first.")
    constant = [name for name, span in zip(names, np.ptp(matrix, axis=0), strict=True) if span == 0]
    if constant:
        raise NotEstimableError(
            f"{', '.join(constant)} is the same in all {n} patients", "leave it out of the model"
        )
    check_rank(matrix, names)
    return matrix, names


def check_rank(matrix: Floats, names: Sequence[str]) -> None:
    """Refuse columns that follow from one another.

    Raises
    ------
    NotEstimableError : a column is a linear combination of those before it.
    """
    scaled = (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)
    if np.linalg.matrix_rank(scaled) == matrix.shape[1]:
        return
    for column in range(1, matrix.shape[1]):
        if np.linalg.matrix_rank(scaled[:, : column + 1]) <= column:
            raise NotEstimableError(
                f"{names[column]} follows from the other covariates", "leave one of them out of the model"
            )


def check_events(event: Ints) -> None:
    """Refuse patients of whom none has the event.

    Raises
    ------
    NotEstimableError : so it is.
    """
    if not event.any():
        raise NotEstimableError("no event happened", "choose another endpoint or more patients")


def check_strata(strata: ArrayLike | None, n: int) -> Ints | None:
    """Number of each patient's stratum; None where there are no strata.

    Raises
    ------
    UsageError : see `check_groups`.
    """
    return None if strata is None else check_groups(strata, n)[0]


def check_fraction(value: float, name: str) -> float:
    """A number strictly between 0 and 1.

    Raises
    ------
    UsageError : it is not.
    """
    if not 0 < value < 1:
        raise UsageError(f"{name} must lie between 0 and 1.")
    return float(value)


def _floats(values: ArrayLike, name: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be numbers without missing values.") from error


def _missing(label: Any) -> bool:
    return label is None or type(label).__name__ in ("NAType", "NaTType") or label != label


def _sort_key(label: Any) -> tuple[int, Any]:
    return (0, label) if isinstance(label, int | float | np.number) else (1, str(label))


def normal_quantile(confidence: float) -> float:
    """The standard normal quantile between whose two signs lies a share of `confidence`.

    Raises
    ------
    UsageError : it is not between 0 and 1.
    """
    return float(special.ndtri(0.5 + check_fraction(confidence, "confidence") / 2))


def two_sided(z: float) -> float:
    """Two-sided p value of a standard normal statistic."""
    return float(2.0 * special.ndtr(-abs(z)))


def chi2_tail(statistic: float, df: int) -> float:
    """P value of a chi-squared statistic; NaN without a degree of freedom."""
    return (
        float(special.chdtrc(df, max(statistic, 0.0))) if df > 0 and np.isfinite(statistic) else float("nan")
    )
