"""Do the data hold enough for the question: events per variable, chances of a node count."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aiene.errors import UsageError
from aiene.risk.stats.checks import Floats

MIN_EVENTS_PER_PARAMETER = 10
MIN_EVENTS_IN_GROUP = 5


class Information(NamedTuple):
    """Events, candidate parameters and whether what is derived from them is unstable, with the reasons."""

    events: int
    parameters: int
    epv: float
    unstable: bool
    reasons: tuple[str, ...]


def information(n_events: int, n_parameters: int, *, smallest_group_events: int | None = None) -> Information:
    """Judge the events per candidate parameter.

    Parameters
    ----------
    n_parameters : all that were tried, not only those kept.
    smallest_group_events : events in the smallest new group.

    Raises
    ------
    UsageError : a number is negative, or there is no parameter.

    References
    ----------
    Peduzzi et al. 1995, J Clin Epidemiol 48:1503.
    """
    if n_events < 0 or n_parameters < 1 or (smallest_group_events or 0) < 0:
        raise UsageError("events must not be negative, and there is at least one parameter.")
    epv = n_events / n_parameters
    reasons = []
    if epv < MIN_EVENTS_PER_PARAMETER:
        reasons.append(
            f"{n_events} events for {n_parameters} candidate parameters: {epv:.1f} each, fewer than "
            f"{MIN_EVENTS_PER_PARAMETER}"
        )
    if smallest_group_events is not None and smallest_group_events < MIN_EVENTS_IN_GROUP:
        reasons.append(
            f"{smallest_group_events} events in the smallest group, fewer than {MIN_EVENTS_IN_GROUP}"
        )
    return Information(n_events, n_parameters, epv, bool(reasons), tuple(reasons))


def count_distribution(probabilities: ArrayLike) -> Floats:
    """Chances (k + 1,) that 0, 1, ..., k of k nodes are positive, if they are independent (Poisson-binomial).

    Parameters
    ----------
    probabilities : (k,) of each node; none gives a count of 0 for certain.

    Raises
    ------
    UsageError : a probability is missing or outside 0 to 1.
    """
    chances = np.asarray(probabilities, dtype=np.float64).ravel()
    if not ((chances >= 0) & (chances <= 1)).all():
        raise UsageError("probabilities must lie from 0 to 1, none missing.")
    distribution = np.ones(1)
    for chance in chances:
        distribution = np.convolve(distribution, [1.0 - chance, chance])
    return distribution


def probability_at_least(probabilities: ArrayLike, cutoff: int) -> float:
    """Chance that at least `cutoff` nodes are positive.

    Raises
    ------
    UsageError : see `count_distribution`.
    """
    if cutoff <= 0:
        return 1.0
    return float(min(1.0, count_distribution(probabilities)[cutoff:].sum()))
