"""Corrections for measurement error take away what the error took, and nothing where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiene.errors import UsageError
from aiene.stats.count_covariate import count_chances, drawn_counts, simex
from aiene.stats.cox_model import fit_cox

TRUTH = 0.4


def cohort(n: Any = 500, seed: Any = 0) -> Any:
    random = np.random.default_rng(seed)
    chances = [random.beta(0.6, 1.4, k) for k in random.integers(0, 6, n)]
    truth = np.array([(random.random(p.size) < p).sum() for p in chances], dtype=float)
    failure, last = random.exponential(1 / (0.05 * np.exp(TRUTH * truth))), random.uniform(2, 8, n)
    return np.minimum(failure, last), (failure <= last).astype(int), chances, truth


def test_chances_of_counts_add_up() -> None:
    chances = count_chances([[], [0.5], [0.2, 1.0, 0.5]])
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    np.testing.assert_allclose(chances[2], [0.0, 0.4, 0.5, 0.1])


def test_what_is_certain_is_not_corrected() -> None:
    time, event, _, truth = cohort()
    plain = fit_cox(time, event, truth[:, None])
    sure = np.eye(int(truth.max()) + 1)[truth.astype(int)]
    found = drawn_counts(time, event, sure, np.zeros((500, 0)), m=2, iterations=1)
    assert found.coef == pytest.approx(plain.beta[0], rel=1e-9)
    assert found.std_error == pytest.approx(plain.information[0, 0] ** -0.5, rel=1e-9)
    same = simex(time, event, truth, np.zeros(500), np.zeros((500, 0)), n_sim=2)
    assert same.coef == pytest.approx(plain.beta[0], rel=1e-9)
    with pytest.raises(UsageError, match="different patients"):
        drawn_counts(time, event, sure[:10], np.zeros((500, 0)))


def test_draws_with_the_outcome_recover_what_a_noisy_count_loses() -> None:
    plain, drawn, back = [], [], []
    for seed in range(5):
        time, event, chances, _ = cohort(seed=seed)
        seen = np.array([(p > 0.3).sum() for p in chances], dtype=float)
        expected = np.array([p.sum() for p in chances])
        variance = np.array([(p * (1 - p)).sum() for p in chances]) + (seen - expected) ** 2
        nothing = np.zeros((500, 0))
        plain.append(fit_cox(time, event, seen[:, None]).beta[0])
        drawn.append(drawn_counts(time, event, count_chances(chances), nothing, m=4, iterations=4).coef)
        back.append(simex(time, event, seen, variance, nothing, n_sim=5).coef)
    assert np.mean(plain) < 0.9 * TRUTH
    assert np.mean(drawn) == pytest.approx(TRUTH, rel=0.15)
    assert np.mean(back) > np.mean(plain)
