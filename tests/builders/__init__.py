"""Makers of inputs for the tests: phantoms, files, cohorts."""
