"""What is planted in a simulated cohort."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from aiene.errors import UsageError


@dataclass(frozen=True)
class Effects:
    """Hazard ratios of one endpoint, each with the others held.

    Parameters
    ----------
    hpv_negative : against positive.
    heavy_smoker : more than 10 pack-years against at most 10.
    t4 : T4 against T1-T3.
    n2c_n3 : N2c or N3 of edition 7 against N0-N2b.
    age_decade : per ten years.
    n_ai_ene : per AI-ENE node, linear in the log hazard.
    n_ai_ene_if_hpv_negative : further factor per node where HPV is negative; 1 is no interaction.

    Raises
    ------
    UsageError : a hazard ratio that is not above 0.
    """

    hpv_negative: float = 2.5
    heavy_smoker: float = 1.5
    t4: float = 1.5
    n2c_n3: float = 1.4
    age_decade: float = 1.25
    n_ai_ene: float = 1.2
    n_ai_ene_if_hpv_negative: float = 1.0

    def __post_init__(self) -> None:
        wrong = [name for name, ratio in asdict(self).items() if not (ratio > 0 and math.isfinite(ratio))]
        if wrong:
            raise UsageError(f"the hazard ratio {wrong[0]} must be above 0.")

    @property
    def log(self) -> dict[str, float]:
        """Log hazard ratios by name: what a Cox model of the same covariates should find."""
        return {name: math.log(ratio) for name, ratio in asdict(self).items()}


@dataclass(frozen=True)
class CohortSettings:
    """How a cohort is made.

    Parameters
    ----------
    os, dm, lrf : effects on death, on distant metastasis, on locoregional failure (cause-specific hazards).
    os_rate, dm_rate, lrf_rate : baseline hazard per year of the reference patient (HPV-positive, at most 10
        pack-years, T1-T3, N0-N2b, 60 years, no AI-ENE node).
    shape : of the Weibull time; 1 is a constant hazard, below 1 one that falls. Hazards stay proportional.
    hpv_positive : share.
    hpv_missing : share whose HPV status is not known.
    follow_up : least and most years from treatment to the end of the study, uniform.
    lost_per_year : hazard of being lost to follow-up.

    Raises
    ------
    UsageError : a rate or share out of its range.
    """

    os: Effects = field(default_factory=lambda: Effects(n_ai_ene=1.2))
    dm: Effects = field(
        default_factory=lambda: Effects(
            hpv_negative=1.6, heavy_smoker=1.3, t4=1.6, n2c_n3=1.8, age_decade=1.0, n_ai_ene=1.4
        )
    )
    lrf: Effects = field(
        default_factory=lambda: Effects(hpv_negative=2.5, t4=1.8, n2c_n3=1.3, age_decade=1.1, n_ai_ene=1.15)
    )
    os_rate: float = 0.02
    dm_rate: float = 0.011
    lrf_rate: float = 0.011
    shape: float = 1.0
    hpv_positive: float = 0.7
    hpv_missing: float = 0.0
    follow_up: tuple[float, float] = (2.0, 9.0)
    lost_per_year: float = 0.02

    def __post_init__(self) -> None:
        low, high = self.follow_up
        for holds, sentence in (
            (min(self.os_rate, self.dm_rate, self.lrf_rate) > 0, "hazards per year must be above 0."),
            (self.shape > 0, "the shape of the Weibull time must be above 0."),
            (0 <= self.hpv_positive <= 1 and 0 <= self.hpv_missing < 1, "shares lie between 0 and 1."),
            (0 < low <= high, "follow-up must be above 0 and rise."),
            (self.lost_per_year >= 0, "the hazard of being lost must not be negative."),
        ):
            if not holds:
                raise UsageError(sentence)

    def with_rate(self, endpoint: str, rate: float) -> CohortSettings:
        """The same with another baseline hazard per year of `os`, `dm` or `lrf`."""
        return self.changed({f"{endpoint}_rate": rate})

    def changed(self, values: Mapping[str, Any]) -> CohortSettings:
        """The same with other values of some fields."""
        return replace(self, **values)
