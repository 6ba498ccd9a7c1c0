"""Cohorts with known hazards, for teaching, planning and testing; all counts made here say `simulated`."""

from aiene.risk.simulate.cohort import CohortSettings, Effects, simulate_cohort
from aiene.risk.simulate.conditional_marker import simulate_onto
from aiene.stats.sample_size import Power, effective_sd, power

__all__ = ["CohortSettings", "Effects", "Power", "effective_sd", "power", "simulate_cohort", "simulate_onto"]
