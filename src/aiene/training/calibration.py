"""Probabilities that mean what they say, and the threshold on them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

Floats = npt.NDArray[np.float64]
Rule = Literal["youden", "sensitivity"]


def temperature(logits: Floats, truth: Floats) -> float:
    """The number by which logits are divided so that their log-likelihood is largest.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017. Between 0.05 and 20; 1 where a class is
    missing.

    Parameters
    ----------
    logits : (n,).
    truth : (n,), 0 or 1.
    """
    if len(set(truth.tolist())) < 2:
        return 1.0
    found = minimize_scalar(
        lambda log_t: _loss(logits / np.exp(log_t), truth),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def threshold(probabilities: Floats, truth: Floats, rule: Rule, sensitivity: float = 0.9) -> float:
    """The threshold by a stated rule; a node is called where its probability is over it.

    Parameters
    ----------
    probabilities, truth : (n,), with both classes.
    rule : `youden` maximises sensitivity + specificity (Youden 1950), the lower of equal ones;
        `sensitivity` is the highest threshold that still calls the wanted share of the positive nodes.
    sensitivity : the wanted share.

    Raises
    ------
    ValueError : a class is missing.
    """
    positive, negative = np.sort(probabilities[truth == 1]), np.sort(probabilities[truth == 0])
    if not len(positive) or not len(negative):
        raise ValueError("a threshold needs both classes")
    values = np.unique(probabilities)
    cuts = np.concatenate([[max(0.0, values[0] / 2)], (values[1:] + values[:-1]) / 2])
    called = np.array([(positive > cut).mean() for cut in cuts])
    spared = np.array([(negative <= cut).mean() for cut in cuts])
    if rule == "sensitivity":
        return float(cuts[np.flatnonzero(called >= sensitivity)[-1]])
    return float(cuts[np.argmax(called + spared)])


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-logit)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(logits / 2)))


def _loss(logits: Floats, truth: Floats) -> float:
    return float(np.mean(np.logaddexp(0, logits) - truth * logits))
