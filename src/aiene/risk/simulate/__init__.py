"""Cohorts with known hazards, for teaching, planning and testing; all counts made here say `simulated`."""

from aiene.risk.simulate.cohort import simulate_cohort
from aiene.risk.simulate.onto import simulate_onto
from aiene.risk.simulate.power import Power, effective_sd, power
from aiene.risk.simulate.settings import CohortSettings, Effects

__all__ = ["CohortSettings", "Effects", "Power", "effective_sd", "power", "simulate_cohort", "simulate_onto"]
