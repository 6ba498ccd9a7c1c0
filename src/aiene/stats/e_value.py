"""How strong an unmeasured confounder would have to be to explain a hazard ratio away: the E-value."""

from __future__ import annotations

from typing import NamedTuple

from aiene.errors import UsageError


class EValue(NamedTuple):
    """Of the estimate, and of the end of its interval that is nearer to 1 (1 where the interval holds 1)."""

    estimate: float
    interval: float


def e_value(hr: float, lower: float, upper: float, *, common: bool) -> EValue:
    """The E-value of a hazard ratio.

    Parameters
    ----------
    hr, lower, upper : over 0, with the ends of its interval around it.
    common : more than some 15 % have the event, so the hazard ratio is first brought to a risk ratio.

    Raises
    ------
    UsageError : not a hazard ratio with its interval.

    References
    ----------
    VanderWeele and Ding 2017, Ann Intern Med 167:268.
    """
    if not 0 < lower <= hr <= upper:
        raise UsageError("an E-value needs a hazard ratio over 0 within its interval.")
    near = lower if hr >= 1 else upper
    crosses = lower <= 1 <= upper
    return EValue(_of(hr, common), 1.0 if crosses else _of(near, common))


def _of(hr: float, common: bool) -> float:
    ratio = (1 - 0.5 ** (hr**0.5)) / (1 - 0.5 ** (1 / hr**0.5)) if common else hr
    ratio = max(ratio, 1 / ratio)
    return float(ratio + (ratio * (ratio - 1)) ** 0.5)
