"""Cohorts with known hazards, for teaching, planning and testing; all counts made here say `simulated`."""
