"""Standardised differences against plain R, and where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aiene.stats.tests import largest_difference, standardised_difference, standardised_difference_of_levels

HERE = Path(__file__).parent


def test_numbers_and_levels_are_those_of_r() -> None:
    r = json.loads((HERE / "r_references" / "standardised.json").read_text())
    months = pd.read_csv(HERE / "reference" / "months.csv")
    first, second = months[months.z == 0], months[months.z == 1]
    assert standardised_difference(first.x, second.x) == pytest.approx(r["x"], abs=1e-9)
    counts = [np.bincount(part.group, minlength=4) for part in (first, second)]
    assert standardised_difference_of_levels(*counts) == pytest.approx(r["group"], abs=1e-9)


def test_two_levels_give_the_closed_form() -> None:
    assert standardised_difference_of_levels([30, 70], [60, 40]) == pytest.approx(
        0.3 / ((0.3 * 0.7 + 0.6 * 0.4) / 2) ** 0.5
    )


def test_the_same_groups_do_not_differ_and_groups_without_spread_have_none() -> None:
    assert standardised_difference([1.0, 2, 3], [1.0, 2, 3]) == 0
    assert standardised_difference_of_levels([3, 1], [6, 2]) == 0
    assert np.isnan(standardised_difference([1.0, 1], [2.0, 2]))
    assert np.isnan(standardised_difference_of_levels([3, 0], [0, 3]))
    assert largest_difference([np.array([1.0]), np.array([2.0])], levels=False) is None
