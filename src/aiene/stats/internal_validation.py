"""How much of a result is luck: bootstrap optimism, cross-validation, shuffled markers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy import special

from aiene.errors import UsageError
from aiene.stats.bootstrap import attempt, check_boot, percentile, resample_indices, spread
from aiene.stats.records import (
    Floats,
    Interval,
    Ints,
    NotEstimableError,
    check_fraction,
    check_groups,
)

Model = TypeVar("Model")
Fit = Callable[[Ints, Generator], Model]
Score = Callable[[Model, Ints], Sequence[float]]


class OptimismRow(NamedTuple):
    """A measure as it looks, how much of that is optimism, and what is left.

    Parameters
    ----------
    std_error : of the optimism, from the number of resamples.
    lower, upper : of the corrected measure: the percentile interval of the resamples' own values, moved by
        the optimism (Noma et al. 2021, Stat Med 40:5691).
    """

    name: str
    apparent: float
    optimism: float
    corrected: float
    std_error: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Optimism:
    """Optimism of each measure.

    Parameters
    ----------
    n_failed : resamples in which the model could not be fitted or scored; they are left out.
    """

    rows: tuple[OptimismRow, ...]
    n_failed: int


@dataclass(frozen=True)
class CrossValidated:
    """Mean of each measure over the left-out parts, with its interval; no limits where all parts agree."""

    values: dict[str, Interval]
    n_failed: int


@dataclass(frozen=True)
class Permutation:
    """A statistic against what shuffled markers give.

    Parameters
    ----------
    observed : with the real marker.
    lower, upper : central 95 % of the shuffled.
    p : two-sided, by the smaller tail, with one added to both counts.
    side : `above` or `below` the central 95 %, or `inside` it.
    null : (n_perm,) of the shuffled; NaN where they could not be estimated.
    """

    observed: float
    lower: float
    upper: float
    p: float
    side: Literal["above", "below", "inside"]
    null: Floats
    n_failed: int


def optimism(
    fit: Fit[Model],
    score: Score[Model],
    n: int,
    *,
    names: Sequence[str],
    n_boot: int = 500,
    seed: int = 1,
    confidence: float = 0.95,
) -> Optimism:
    """Harrell's bootstrap: the whole derivation is repeated in each resample and judged on the original data.

    Parameters
    ----------
    fit : from patient numbers (with repeats) and a generator to a model. It must repeat *everything* that
        used outcomes: search of cut-offs, trees, merging, imputation, scaling.
    score : from a model and patient numbers to one number for each name, higher is better.
    n : number of patients.

    Raises
    ------
    UsageError : fewer than 2 resamples, or names that do not fit.
    NotEstimableError : the model cannot be derived from the data themselves, or from fewer than half of the
        resamples.

    References
    ----------
    Harrell, Lee and Mark 1996, Stat Med 15:361.
    """
    check_boot(n_boot)
    everybody = np.arange(n)
    apparent = np.asarray(score(fit(everybody, _generator(seed, 0)), everybody), dtype=np.float64)
    if apparent.shape != (len(names),):
        raise UsageError(f"the score gives {apparent.size} numbers for {len(names)} names.")
    both = np.full((n_boot, 2 * len(names)), np.nan)

    def judged(number: int, indices: Ints) -> Sequence[float]:
        model = fit(indices, _generator(seed, number + 1))
        return [*score(model, indices), *score(model, everybody)]

    for number in range(n_boot):
        indices = resample_indices(n, number, seed)
        both[number] = attempt(lambda i, k=number: judged(k, i), indices, 2 * len(names))  # type: ignore[misc]
    good = np.isfinite(both).all(axis=1)
    own = both[:, : len(names)]
    gaps = own - both[:, len(names) :]
    _refuse_failures(good, "resamples")
    rows = []
    for place, name in enumerate(names):
        mean = float(gaps[good, place].mean())
        error = spread(gaps[good, place]) / float(good.sum()) ** 0.5
        corrected = float(apparent[place]) - mean
        moved = percentile(corrected, own[good, place] - mean, confidence)
        rows.append(OptimismRow(name, float(apparent[place]), mean, corrected, error, *moved[1:]))
    return Optimism(tuple(rows), int((~good).sum()))


def cross_validate(
    fit: Fit[Model],
    score: Score[Model],
    n: int,
    *,
    names: Sequence[str],
    folds: int = 10,
    repeats: int = 1,
    seed: int = 1,
    strata: ArrayLike | None = None,
    confidence: float = 0.95,
) -> CrossValidated:
    """Derive on all parts but one, score on that one, in turn.

    The parts share their training patients, so the variance of the mean over J parts is that between parts
    times 1 / J + 1 / (folds - 1).

    Parameters
    ----------
    fit, score : see `optimism`.
    strata : (n,) labels (such as the event) spread evenly over the parts.

    Raises
    ------
    UsageError : folds or repeats that do not fit.
    NotEstimableError : fewer than half of the parts can be judged.

    References
    ----------
    Nadeau and Bengio 2003, Mach Learn 52:239.
    """
    if not 2 <= folds <= n or repeats < 1:
        raise UsageError(f"cross-validation needs from 2 to {n} folds and at least one repeat.")
    layers = np.zeros(n, dtype=np.int64) if strata is None else check_groups(strata, n)[0]
    values = np.full((folds * repeats, len(names)), np.nan)
    for repeat in range(repeats):
        part = _parts(layers, folds, _generator(seed, repeat))
        for fold in range(folds):
            number = repeat * folds + fold
            train, test = np.flatnonzero(part != fold), np.flatnonzero(part == fold)

            def judged(held: Ints, learn: Ints = train, k: int = number) -> Sequence[float]:
                return score(fit(learn, _generator(seed, repeats + k)), held)

            values[number] = attempt(judged, test, len(names))
    good = np.isfinite(values).all(axis=1)
    _refuse_failures(good, "parts")
    kept, level = values[good], check_fraction(confidence, "confidence")
    t = float(special.stdtrit(kept.shape[0] - 1, 0.5 + level / 2))
    error = kept.std(axis=0, ddof=1) * (1.0 / kept.shape[0] + 1.0 / (folds - 1)) ** 0.5
    width = np.where(error > 0, t * error, np.nan)
    intervals = {
        name: Interval(mean, mean - float(width[k]), mean + float(width[k]))
        for k, (name, mean) in enumerate(zip(names, kept.mean(axis=0).tolist(), strict=True))
    }
    return CrossValidated(intervals, int((~good).sum()))


def permutation_control(
    statistic: Callable[[np.ndarray], float],
    marker: ArrayLike,
    *,
    within: ArrayLike | None = None,
    n_perm: int = 200,
    seed: int = 1,
) -> Permutation:
    """Shuffle a marker and repeat a statistic.

    Parameters
    ----------
    statistic : from a marker (n,) to a number, such as the difference of C.
    within : (n,) labels; the marker is shuffled within each, so that its relation to them stays.

    Raises
    ------
    UsageError : fewer than 2 permutations, or labels that do not fit.
    NotEstimableError : the statistic cannot be given for the real marker, or for fewer than half of the
        shuffled.
    """
    if n_perm < 2:
        raise UsageError("a permutation control needs at least 2 permutations.")
    real = np.asarray(marker)
    layers = np.zeros(real.size, dtype=np.int64) if within is None else check_groups(within, real.size)[0]
    members = [np.flatnonzero(layers == layer) for layer in np.unique(layers)]
    observed = float(statistic(real))
    null = np.full(n_perm, np.nan)
    for number in range(n_perm):
        rng = _generator(seed, number)
        shuffled = real.copy()
        for those in members:
            shuffled[those] = real[rng.permutation(those)]
        null[number] = attempt(lambda _, m=shuffled: [statistic(m)], np.arange(0), 1)[0]  # type: ignore[misc]
    good = np.isfinite(null)
    _refuse_failures(good, "permutations")
    low, high = np.quantile(null[good], [0.025, 0.975])
    tail = min(int((null[good] >= observed).sum()), int((null[good] <= observed).sum()))
    p = min(1.0, 2.0 * (tail + 1) / (int(good.sum()) + 1))
    side: Literal["above", "below", "inside"] = (
        "above" if observed > high else "below" if observed < low else "inside"
    )
    return Permutation(observed, float(low), float(high), p, side, null, int((~good).sum()))


def _generator(seed: int, number: int) -> Generator:
    return np.random.default_rng([seed, number, 1])  # another stream than that of the resamples


def _parts(layers: Ints, folds: int, rng: Generator) -> Ints:
    part = np.empty(layers.size, dtype=np.int64)
    first = 0
    for layer in np.unique(layers):
        those = rng.permutation(np.flatnonzero(layers == layer))
        part[those] = (np.arange(those.size) + first) % folds
        first += those.size
    return part


def _refuse_failures(good: np.ndarray, what: str) -> None:
    if good.sum() < max(2, good.size / 2):
        raise NotEstimableError(
            f"only {int(good.sum())} of {good.size} {what} could be estimated",
            "there are too few events for this model",
        )
