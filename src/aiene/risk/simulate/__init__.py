"""Cohorts with known hazards, for teaching, planning and testing; all counts made here say `simulated`."""

from aiene.risk.simulate.cohort import CohortSettings, Effects, simulate_cohort
from aiene.risk.simulate.conditional_marker import planted_sd, simulate_onto
from aiene.risk.simulate.law import planned_power
from aiene.stats.sample_size import Power, power

__all__ = [
    "CohortSettings",
    "Effects",
    "Power",
    "planned_power",
    "planted_sd",
    "power",
    "simulate_cohort",
    "simulate_onto",
]
