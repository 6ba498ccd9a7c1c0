"""Criteria by which stagings are compared: alike inside, apart from one another, balanced, telling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aiene.risk.stats.checks import check_groups, check_horizons, check_outcome, check_several
from aiene.risk.stats.cox_fast import fit_cox
from aiene.risk.stats.errors import NotEstimableError
from aiene.risk.stats.kaplan_meier import kaplan_meier


class Groome(NamedTuple):
    """Criteria of one grouping.

    Parameters
    ----------
    consistency : mean distance of the survival of subgroups from that of their group, weighted by patients; 0
        where no subgroups are given. Smaller is better.
    discrimination : distance of the groups' survivals from equal steps over the range seen, plus what that
        range lacks of 1. Smaller is better.
    balance : mean distance of the groups' shares from equal ones. Smaller is better.
    explained : 1 - exp(-LRT / n), Cox and Snell's share of variation. Larger is better.
    """

    consistency: float
    discrimination: float
    balance: float
    explained: float


def groome(
    time: ArrayLike,
    event: ArrayLike,
    group: ArrayLike,
    *,
    order: Sequence[Any],
    horizon: float,
    subgroups: ArrayLike | None = None,
) -> Groome:
    """Criteria in the spirit of Groome's, written out in `Groome`: only compare values of this function.

    Parameters
    ----------
    order : labels, lowest risk first.
    horizon : at which survival is compared.
    subgroups : (n,) finer labels within the groups, such as T and N together.

    Raises
    ------
    UsageError : see `check_outcome`, `check_groups`.
    NotEstimableError : one group, or no event.

    References
    ----------
    Groome et al. 2001, Head Neck 23:613.
    """
    times, codes = check_outcome(time, event)
    end = float(check_horizons(horizon)[0])
    place, names = check_groups(group, times.size, order)
    check_several(names, "comparing a staging")
    if not codes.any():
        raise NotEstimableError("no event happened", "choose another endpoint or more patients")
    survival = np.array(
        [kaplan_meier(times[place == k], codes[place == k]).at([end])[0].value for k in range(len(names))]
    )
    span = float(survival.max() - survival.min())
    ideal = np.linspace(survival.max(), survival.min(), len(names))
    shares = np.bincount(place) / times.size
    dummies = (place[:, None] == np.arange(1, len(names))[None, :]).astype(np.float64)
    fit = fit_cox(times, codes, dummies)
    statistic = 2.0 * (fit.log_likelihood - fit.log_likelihood_null)
    consistency = 0.0
    if subgroups is not None:
        finer, labels = check_groups(subgroups, times.size)
        for k in range(len(names)):
            for part in range(len(labels)):
                inside = (place == k) & (finer == part)
                if inside.any():
                    own = kaplan_meier(times[inside], codes[inside]).at([end])[0].value
                    consistency += float(inside.sum()) / times.size * abs(own - float(survival[k]))
    return Groome(
        consistency=consistency,
        discrimination=float(np.abs(survival - ideal).mean()) + 1.0 - span,
        balance=float(np.abs(shares - 1.0 / len(names)).mean()),
        explained=1.0 - float(np.exp(-statistic / times.size)),
    )
