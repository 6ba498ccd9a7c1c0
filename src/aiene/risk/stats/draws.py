"""One draw of missing values from a regression whose coefficients are drawn too."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from aiene.risk.stats.checks import Floats, Ints

_DONORS = 5
_PRIOR = 1.0 / 2.5**2  # of standardised slopes: keeps them finite where a level is separated


def draw_number(known: Floats, values: Floats, missing: Floats, rng: Generator) -> Floats:
    """Predictive mean matching: an observed value of one of the 5 patients predicted most alike.

    Parameters
    ----------
    known, missing : designs (n, p) and (k, p), with a column of ones.
    values : (n,)

    References
    ----------
    Little 1988, J Bus Econ Stat 6:287; the predictions of donors are at the estimate, those of the others at
    a draw.
    """
    n, p = known.shape
    gram = known.T @ known
    inverse = np.linalg.inv(gram + 1e-5 * np.diag(np.diag(gram)))
    estimate = inverse @ (known.T @ values)
    residual = values - known @ estimate
    sigma = float(residual @ residual / rng.chisquare(max(n - p, 1))) ** 0.5
    drawn = estimate + sigma * np.linalg.cholesky(inverse) @ rng.standard_normal(p)
    donors, wanted = known @ estimate, missing @ drawn
    order = np.argsort(donors, kind="stable")
    number = min(_DONORS, n)
    ranked = donors[order]
    middle = np.searchsorted(ranked, wanted)
    window = np.clip(middle[:, None] + np.arange(-number, number)[None, :], 0, n - 1)
    far = np.abs(ranked[window] - wanted[:, None])
    far[:, 1:][window[:, 1:] == window[:, :-1]] = np.inf  # the edge must not count twice
    nearest = np.argsort(far, axis=1, kind="stable")[:, :number]
    chosen = nearest[np.arange(wanted.size), rng.integers(0, number, wanted.size)]
    return np.asarray(values[order[window[np.arange(wanted.size), chosen]]])


def draw_category(known: Floats, codes: Ints, k: int, missing: Floats, rng: Generator) -> Floats:
    """A level from a multinomial (for two levels logistic) regression with a weak normal prior.

    Parameters
    ----------
    known, missing : designs (n, p) and (q, p), with a column of ones first.
    codes : (n,) 0 to k - 1.
    """
    estimate, information = _multinomial(known, codes, k)
    half = np.linalg.cholesky(np.linalg.inv(information))
    drawn = estimate + (half @ rng.standard_normal(estimate.size)).reshape(estimate.shape)
    chances: Floats = np.asarray(np.cumsum(_chances(missing, drawn), axis=1))
    return np.asarray((rng.random((missing.shape[0], 1)) > chances[:, :-1]).sum(axis=1), dtype=np.float64)


def _chances(design: Floats, beta: Floats) -> Floats:
    """Chances (n, k) with coefficients (k - 1, p) against the first level."""
    eta = np.concatenate([np.zeros((design.shape[0], 1)), design @ beta.T], axis=1)
    weights = np.exp(eta - eta.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _multinomial(design: Floats, codes: Ints, k: int) -> tuple[Floats, Floats]:
    p = design.shape[1]
    beta = np.zeros((k - 1, p))
    target = (codes[:, None] == np.arange(1, k)[None, :]).astype(np.float64)
    prior = np.full(p, _PRIOR)
    prior[0] = 1e-4
    precision = np.tile(prior, k - 1)
    information = np.diag(precision)
    for _ in range(50):
        chances = _chances(design, beta)[:, 1:]
        score = ((target - chances).T @ design).ravel() - precision * beta.ravel()
        blocks = [
            [
                (design * (chances[:, a] * ((a == b) - chances[:, b]))[:, None]).T @ design
                for b in range(k - 1)
            ]
            for a in range(k - 1)
        ]
        information = np.block(blocks) + np.diag(precision)
        move = np.linalg.solve(information, score)
        longest = float(np.abs(move).max())
        beta = beta + (move / max(1.0, longest / 3.0)).reshape(beta.shape)
        if longest < 1e-8:
            break
    return beta, information
