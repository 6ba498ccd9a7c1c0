"""ENE patient by patient: any at all, and how many nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aiene.benchmark.estimate import Estimate, missing
from aiene.benchmark.metrics.classification import Operating, counted
from aiene.benchmark.metrics.intervals import wilson
from aiene.benchmark.statistics.bootstrap import Statistic, bootstrap
from aiene.benchmark.statistics.delong import as_floats
from aiene.errors import UsageError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PatientAgreement:
    """Counts of nodes with ENE, true and predicted, over patients.

    Parameters
    ----------
    any_ene : patients with one node or more (its `threshold` is 0: more than none).
    any_agreement : share of patients in whom both say any, or both none; Wilson's interval.
    count_exact, count_within_one : share of patients whose counts are the same, or differ by one at most.
    kappa_linear, kappa_quadratic : weighted kappa of the counts (Cohen, Psychol. Bull. 70, 1968), with an
        interval by bootstrap over patients; None where all counts, true and predicted, are the same.
    reason : why nothing can be given; empty where something can.
    """

    n: int
    any_ene: Operating
    any_agreement: Estimate
    count_exact: Estimate
    count_within_one: Estimate
    kappa_linear: Estimate
    kappa_quadratic: Estimate
    reason: str = ""


def patient_agreement(
    truth_counts: Sequence[int | None],
    predicted_counts: Sequence[int | None],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> PatientAgreement:
    """Compare counts of nodes with ENE.

    Parameters
    ----------
    truth_counts, predicted_counts : one whole number per patient, in one order. A failed CT has no count
        (None), which is not 0: then everything is a reason instead of a number.

    Raises
    ------
    UsageError : different numbers of patients.
    """
    truth, found = as_floats(truth_counts), as_floats(predicted_counts)
    if truth.shape != found.shape:
        raise UsageError(f"{truth.size} true counts but {found.size} predicted ones; one for each patient.")
    n = truth.size
    reason = _unfit(truth, found)
    if reason:
        nothing = missing(reason, n)
        empty = Operating(0.0, 0, 0, 0, 0, nothing, nothing, nothing, nothing, reason)
        return PatientAgreement(n, empty, nothing, nothing, nothing, nothing, nothing, reason)
    apart = np.abs(truth - found)

    def kappa(power: int) -> Estimate:
        if len(np.unique([truth, found])) == 1:
            return missing("all counts are the same, so there is no kappa", n)
        return bootstrap(weighted_kappa(truth, found, power), n, resamples=resamples, seed=seed)

    return PatientAgreement(
        n=n,
        any_ene=counted(truth > 0, found > 0, 0.0),
        any_agreement=wilson(int(((truth > 0) == (found > 0)).sum()), n),
        count_exact=wilson(int((apart == 0).sum()), n),
        count_within_one=wilson(int((apart <= 1).sum()), n),
        kappa_linear=kappa(1),
        kappa_quadratic=kappa(2),
    )


def weighted_kappa(first: FloatArray, second: FloatArray, power: int) -> Statistic:
    """The statistic weighted kappa of two lists of whole numbers.

    Parameters
    ----------
    power : 1 weighs a disagreement by its size, 2 by the square of it.

    Returns
    -------
    NaN for a resample in which all are the same.
    """
    codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    values, places = codes[0], codes[1].reshape(2, -1)
    one, two = (np.eye(len(values))[row] for row in places)
    cost = np.abs(values[:, None] - values[None]) ** power
    own = np.abs(first - second) ** power

    def statistic(weights: FloatArray) -> FloatArray:
        total = weights.sum(axis=1)
        by_chance = np.einsum("ri,ij,rj->r", weights @ one, cost, weights @ two) / total
        return np.where(by_chance > 0, 1 - weights @ own / np.where(by_chance > 0, by_chance, 1.0), np.nan)

    return statistic


def count_by_patient(patients: Sequence[str], positive: Sequence[bool]) -> dict[str, int]:
    """How many positive nodes each patient has, 0 included, in the order of first appearance.

    Parameters
    ----------
    patients, positive : one per node. A patient without any node is not here: add it with 0.

    Raises
    ------
    UsageError : not one for each node.
    """
    if len(patients) != len(positive):
        raise UsageError(f"{len(patients)} patients but {len(positive)} nodes; there must be one for each.")
    counts: dict[str, int] = {}
    for patient, is_positive in zip(patients, positive, strict=True):
        counts[patient] = counts.get(patient, 0) + bool(is_positive)
    return counts


def _unfit(truth: FloatArray, found: FloatArray) -> str:
    """Why the counts cannot be compared; empty where they can."""
    if truth.size == 0:
        return "no patients"
    lost = int((~np.isfinite(truth) | ~np.isfinite(found)).sum())
    if lost:
        return f"{lost} of {truth.size} patients have no count"
    both: npt.NDArray[np.float64] = np.concatenate([truth, found])
    if (both < 0).any() or (both != np.rint(both)).any():
        return "there are counts that are no whole numbers from 0"
    return ""
