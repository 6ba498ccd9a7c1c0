"""Internal-external validation: each centre judges models that were fitted without it.

Steyerberg and Harrell 2016, J Clin Epidemiol 69:245; done where three centres or more have 20 events each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aiene.risk.analyse.contest import Contest, varying
from aiene.risk.analyse.gains import Added, ends, resamples
from aiene.risk.analyse.settings import AnalysisSettings
from aiene.risk.stats import NotEstimableError, concordance, fit_cox

FEWEST_CENTRES = 3
FEWEST_EVENTS = 20
"""Events that a centre needs to judge a model."""


def judging_centres(center: np.ndarray, event: np.ndarray) -> tuple[str, ...]:
    """The centres with events enough, in the order of their names; none where they are fewer than three.

    Parameters
    ----------
    center : (n,) names, empty where not known; such patients take part in every fit and judge none.
    event : (n,) 0 or 1.
    """
    found = [str(c) for c in np.unique(center.astype(str)) if c and event[center == c].sum() >= FEWEST_EVENTS]
    return tuple(found) if len(found) >= FEWEST_CENTRES else ()


def left_out(contest: Contest, head: dict[str, Any], added: Added, settings: AnalysisSettings) -> None:
    """C of each model in each centre, and the difference to the old one, fitted on the other centres."""
    outcome = contest.outcome
    for centre in judging_centres(contest.center, outcome.event):
        held = contest.center == centre
        row = head | {"centre": centre, "n": int(held.sum()), "events": int(outcome.event[held].sum())}
        try:
            _judge(contest, held, row, added, settings)
        except NotEstimableError as error:
            added.put("centres", row, reason=str(error))


def _judge(
    contest: Contest, held: np.ndarray, row: dict[str, Any], added: Added, settings: AnalysisSettings
) -> None:
    time, event = contest.outcome.time, contest.outcome.event
    risks = {m.name: _risk(m.matrix, time, event, held) for m in contest.models}
    pairs = [("old", m.name) for m in contest.models[1:]]
    result = concordance(
        time[held],
        event[held],
        risks,
        compare=pairs,
        n_boot=resamples(settings),
        seed=settings.seed,
        confidence=settings.confidence,
    )
    gains = dict(zip((new for _, new in pairs), result.differences.values(), strict=True))
    for model in contest.models:
        values: dict[str, Any] = {"c": result.values[model.name].value}
        values |= ends(result.values[model.name], settings)
        values["slope"] = _slope(time[held], event[held], risks[model.name])
        if model.name in gains:
            gain = gains[model.name]
            values |= {"delta": gain.value}
            values |= {f"delta_{k}": v for k, v in ends(gain, settings).items()}
        added.put("centres", row, model=model.label, key=model.name, **values)


def _risk(matrix: pd.DataFrame, time: np.ndarray, event: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Linear predictor of the patients of one centre by a model of all others."""
    learn = varying(matrix.loc[~held])
    if not learn.shape[1]:
        return np.zeros(int(held.sum()))
    model = fit_cox(time[~held], event[~held], learn.to_numpy(dtype=float))
    if not model.converged:
        raise NotEstimableError("the model of the other centres did not converge", "merge sparse levels")
    return np.asarray(model.risk(matrix.loc[held, list(learn.columns)].to_numpy(dtype=float)))


def _slope(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float | None:
    """Cox's coefficient of the linear predictor: 1 where the effects hold, less where they are too strong."""
    if not risk.std() > 0:
        return None
    model = fit_cox(time, event, risk[:, None])
    return float(model.beta[0]) if model.converged else None
