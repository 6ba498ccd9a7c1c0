"""Log-rank and Gray's test within strata, against R's survdiff and cuminc."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from aiene.stats.tests import gray_pairwise, gray_test, log_rank

HERE = Path(__file__).parent
R = json.loads((HERE / "r_references" / "stratified_gray.json").read_text())
MONTHS = pd.read_csv(HERE / "reference" / "months.csv")


def test_gray_within_strata() -> None:
    found = gray_test(MONTHS.months, MONTHS.state, MONTHS.group, strata=MONTHS.z)
    assert (found.statistic, found.p) == pytest.approx(R["by_z"], abs=1e-8)


def test_gray_where_a_stratum_lacks_groups() -> None:
    some = MONTHS[~((MONTHS.z == 1) & MONTHS.group.isin([0, 3]))]
    found = gray_test(some.months, some.state, some.group, strata=some.z)
    assert (found.statistic, found.p) == pytest.approx(R["part"], abs=1e-8)


def test_gray_of_each_two_of_four_groups() -> None:
    """The first group need not be among the two."""
    wanted = json.loads((HERE / "r_references" / "gray_pairs.json").read_text())
    found = gray_pairwise(MONTHS.months, MONTHS.state, MONTHS.group)
    assert [(pair.first, pair.second) for pair in found] == [(str(a), str(b)) for a, b, _ in wanted]
    assert [pair.statistic for pair in found] == pytest.approx([value for *_, value in wanted], abs=1e-8)


def test_log_rank_within_strata() -> None:
    found = log_rank(MONTHS.months, MONTHS.state == 1, MONTHS.group, strata=MONTHS.z)
    assert found.statistic == pytest.approx(R["log_rank"], abs=1e-8)


def test_one_stratum_is_the_plain_test() -> None:
    plain = gray_test(MONTHS.months, MONTHS.state, MONTHS.group)
    assert gray_test(MONTHS.months, MONTHS.state, MONTHS.group, strata=["a"] * len(MONTHS)) == plain
