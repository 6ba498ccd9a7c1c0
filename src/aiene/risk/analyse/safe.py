"""Fits that end in a result or in one sentence, never in an error of the linear algebra."""

from __future__ import annotations

from typing import Any

import numpy as np

from aiene.risk.analyse.record import Part, Skipped, Text
from aiene.risk.stats import CoxFit, NotEstimableError
from aiene.risk.stats import cox as _cox


def cox(*arguments: Any, **settings: Any) -> CoxFit:
    """`aiene.risk.stats.cox`, whose singular matrices are told as not estimable.

    Raises
    ------
    NotEstimableError : the data hold too little for this model.
    """
    try:
        return _cox(*arguments, **settings)
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
