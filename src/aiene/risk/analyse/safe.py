"""Fits that end in a result or in one sentence, never in an error of the linear algebra."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aiene.risk.analyse.record import Part, Skipped, Text
from aiene.risk.stats import CoxFit, NotEstimableError
from aiene.risk.stats import cox as _cox
from aiene.risk.stats.cox import Engine


def cox(
    time: np.ndarray, event: np.ndarray, matrix: pd.DataFrame, *, engine: Engine = "newton", **settings: Any
) -> CoxFit:
    """`aiene.risk.stats.cox`, but no model with as many parameters as events, and no error of a matrix.

    Parameters
    ----------
    engine : the quick one for the many models compared; the tables of hazard ratios ask for lifelines.

    Raises
    ------
    NotEstimableError : the data hold too little for this model.
    """
    events, parameters = int(np.sum(event)), matrix.shape[1]
    if parameters > 1 and parameters >= events:
        raise NotEstimableError(
            f"a model of {parameters} parameters cannot be fitted to {events} event{'s' * (events != 1)}",
            "leave out covariates",
        )
    try:
        return _cox(time, event, matrix, engine=engine, **settings)
    except np.linalg.LinAlgError as error:
        problem = "the patients are too few for this model (a singular information matrix)"
        raise NotEstimableError(problem, "leave out covariates or merge sparse levels") from error


def guarded(what: str, function: Any, *arguments: Any) -> Any:
    """The result of a step, or a part that says why there is none."""
    try:
        return function(*arguments)
    except NotEstimableError as error:
        reason = str(error)
    except np.linalg.LinAlgError:
        reason = "the patients are too few for it (a singular matrix)."
    return Part((Text(f"{what}: {reason}", "warning"),), (Skipped(what, reason),))
