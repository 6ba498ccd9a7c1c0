"""Do predicted risks at a horizon come true: groups, slope, calibration in the large, smooth curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aiene.stats.bootstrap import bootstrap
from aiene.stats.competing_risks import cumulative_incidence, fine_gray
from aiene.stats.count_covariate import restricted_cubic_spline, spline_knots
from aiene.stats.cox_model import fit_cox
from aiene.stats.records import (
    Floats,
    HorizonEstimate,
    Interval,
    Ints,
    NotEstimableError,
    check_followed,
    check_horizons,
    check_outcome,
    check_probabilities,
    normal_quantile,
)

_GROUPS = 5
"""Groups of about equal size; equal predictions stay together, so there may be fewer."""
_EDGE = 1e-9  # predictions of exactly 0 or 1 have no complementary log-log


class CalibrationRow(NamedTuple):
    """Patients with predictions from `low` to `high`: mean predicted and observed risk with its interval."""

    low: float
    high: float
    n: int
    events: int
    predicted: float
    observed: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Calibration:
    """Calibration of a risk at one horizon.

    Parameters
    ----------
    rows : groups of rising predicted risk, observed by Kaplan-Meier (Aalen-Johansen with competing events).
    slope : of log(-log(1 - predicted)) in a Cox regression; 1 is perfect, under 1 is too extreme.
    observed_expected : observed over mean predicted risk; 1 is perfect.
    in_the_large : log of observed over expected cumulative hazard, -log(1 - risk); 0 is perfect, over 0 means
        that more happened than was predicted.
    mean_predicted, observed : of all patients.
    ici, e50, e90, emax : mean, median, 90th percentile and greatest distance of prediction and smooth curve.
    curve : predicted and smoothly observed risk, rising.
    ici_interval : by bootstrap where asked for.
    warnings : what the reader must be told.
    """

    rows: tuple[CalibrationRow, ...]
    slope: Interval
    observed_expected: Interval
    in_the_large: Interval
    mean_predicted: float
    observed: float
    ici: float
    e50: float
    e90: float
    emax: float
    curve: tuple[Floats, Floats]
    ici_interval: Interval | None
    warnings: tuple[str, ...]


def calibration(
    time: ArrayLike,
    event: ArrayLike,
    predicted: ArrayLike,
    horizon: float,
    *,
    n_boot: int = 0,
    seed: int = 1,
    confidence: float = 0.95,
) -> Calibration:
    """Compare predicted risks with what happened by a horizon.

    Parameters
    ----------
    event : (n,) 0 censored, 1 event, 2 competing event.
    predicted : (n,) risk of the event by the horizon.
    n_boot : resamples for the interval of the ICI; none if 0.

    With competing events slope and smooth curve come from Fine and Gray's model instead of Cox's.

    Raises
    ------
    UsageError : see `check_outcome`, `check_probabilities`.
    NotEstimableError : no event, or nobody is followed up to the horizon.

    References
    ----------
    Austin, Harrell and van Klaveren 2020, Stat Med 39:2714 (ICI); van Houwelingen 2000, Stat Med 19:3401.
    """
    times, codes = check_outcome(time, event, competing=True)
    end = float(check_horizons(horizon)[0])
    chances = check_probabilities(predicted, times.size)
    if not ((times <= end) & (codes == 1)).any():
        raise NotEstimableError(f"no event happened by {end:g}", "choose another horizon")
    check_followed(times, codes, end)
    overall = cumulative_incidence(times, codes, confidence=confidence).at([end])[0]
    mean = float(chances.mean())
    slope, slope_warnings = _slope(times, codes, chances, confidence)
    smooth = _smooth(times, codes, chances, end)
    distance = np.abs(smooth - chances)

    def ici(patients: Ints) -> list[float]:
        smooth = _smooth(times[patients], codes[patients], chances[patients], end)
        return [float(np.abs(smooth - chances[patients]).mean())]

    interval = None
    if n_boot:
        drawn = bootstrap(ici, times.size, names=["ici"], n_boot=n_boot, seed=seed, confidence=confidence)
        interval = drawn.values["ici"]
    order = np.argsort(chances, kind="stable")
    return Calibration(
        rows=_rows(times, codes, chances, end, confidence),
        slope=slope,
        observed_expected=Interval(*(part / mean if mean > 0 else float("nan") for part in overall[1:4])),
        in_the_large=_in_the_large(overall, mean),
        mean_predicted=mean,
        observed=overall.value,
        ici=float(distance.mean()),
        e50=float(np.median(distance)),
        e90=float(np.quantile(distance, 0.9)),
        emax=float(distance.max()),
        curve=(chances[order], smooth[order]),
        ici_interval=interval,
        warnings=slope_warnings,
    )


def _rows(
    time: Floats, event: Ints, chances: Floats, end: float, confidence: float
) -> tuple[CalibrationRow, ...]:
    cuts = np.quantile(chances, np.linspace(0, 1, _GROUPS + 1)[1:-1])
    place = np.searchsorted(np.unique(cuts), chances, side="left")
    rows = []
    for index in np.unique(place):
        inside = place == index
        seen = cumulative_incidence(time[inside], event[inside], confidence=confidence).at([end])[0]
        value = seen.value if not seen.beyond_followup else float("nan")
        rows.append(
            CalibrationRow(
                low=float(chances[inside].min()),
                high=float(chances[inside].max()),
                n=int(inside.sum()),
                events=int(((time <= end) & (event == 1) & inside).sum()),
                predicted=float(chances[inside].mean()),
                observed=value,
                lower=seen.lower,
                upper=seen.upper,
            )
        )
    return tuple(rows)


def _in_the_large(observed: HorizonEstimate, mean: float) -> Interval:
    expected = -np.log1p(-min(max(mean, _EDGE), 1.0 - _EDGE))
    hazards = (-np.log1p(-min(risk, 1.0 - _EDGE)) for risk in observed[1:4])
    with np.errstate(divide="ignore"):
        return Interval(*(float(np.log(hazard / expected)) for hazard in hazards))


def _complementary(chances: Floats) -> Floats:
    return np.asarray(np.log(-np.log1p(-np.clip(chances, _EDGE, 1.0 - _EDGE))))


def _slope(time: Floats, event: Ints, chances: Floats, confidence: float) -> tuple[Interval, tuple[str, ...]]:
    score = _complementary(chances)
    if np.ptp(score) == 0:
        nan = float("nan")
        return Interval(nan, nan, nan), ("all patients have the same prediction: no slope",)
    if (event == 2).any():
        row = fine_gray(time, event, pd.DataFrame({"slope": score})).rows[0]
        beta, error = row.coef, row.std_error
    else:
        fit = fit_cox(time, event, score[:, None])
        if not fit.converged:
            nan = float("nan")
            return Interval(nan, nan, nan), ("the predictions separate those with the event: no slope",)
        beta, error = float(fit.beta[0]), float(fit.information[0, 0]) ** -0.5
    z = normal_quantile(confidence)
    return Interval(beta, beta - z * error, beta + z * error), ()


def _smooth(time: Floats, event: Ints, chances: Floats, end: float) -> Floats:
    """Observed risk as a smooth function of the prediction: a spline in a Cox regression."""
    score = _complementary(chances)
    distinct = np.unique(score).size
    if distinct == 1:
        return np.full(score.size, cumulative_incidence(time, event).at([end])[0].value)
    basis = score[:, None]
    if distinct >= 6:
        curved = restricted_cubic_spline(score, spline_knots(score, 3))
        if np.linalg.matrix_rank((curved - curved.mean(axis=0)) / np.maximum(curved.std(axis=0), 1e-12)) == 2:
            basis = curved
    if (event == 2).any():
        columns = [f"s{column}" for column in range(basis.shape[1])]
        return fine_gray(time, event, pd.DataFrame(basis, columns=columns)).predict(basis, [end])[:, 0]
    return np.asarray(1.0 - fit_cox(time, event, basis).survival(basis, end)[:, 0])
