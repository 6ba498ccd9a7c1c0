"""ENE from frozen features: a simple classifier, fitted on other patients than those that it judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from aiene.extras import need

FOLDS = 5


@dataclass(frozen=True)
class ProbeResult:
    """Out-of-fold probabilities.

    Parameters
    ----------
    probabilities : one a node; None where there are none, for `reason`.
    """

    probabilities: tuple[float, ...] | None
    reason: str = ""


def cross_validated(
    features: npt.NDArray[np.float32],
    labels: Sequence[int],
    patients: Sequence[str],
    *,
    probe: Literal["linear", "knn"] = "linear",
    neighbours: int = 5,
    seed: int = 0,
) -> ProbeResult:
    """Probability of ENE of each node, from a probe that has seen none of its patient's nodes.

    The patients are dealt into five parts (fewer where there are fewer patients), about evenly by class.
    `linear`: standardised features, L2 logistic regression (C = 1), weighted for the classes' sizes. `knn`:
    standardised, share of ENE among the nearest neighbours by distance, weighted by its inverse.

    Parameters
    ----------
    features : (nodes, d), finite.
    labels : 0 or 1.
    patients : whose node it is.

    Raises
    ------
    MissingExtraError : scikit-learn is not installed.
    """
    truth, groups = np.array(labels, dtype=np.int64), np.array(patients, dtype=str)
    reason = _hindrance(truth, groups)
    if reason:
        return ProbeResult(None, reason)
    selection = need("sklearn.model_selection", extra="benchmark", purpose="A probe on frozen features")
    parts = min(FOLDS, *(len(set(groups[truth == one].tolist())) for one in (0, 1)))
    folds = selection.StratifiedGroupKFold(max(2, parts), shuffle=True, random_state=seed)
    odds = np.full(len(truth), np.nan)
    for known, asked in folds.split(features, truth, groups):
        if len(set(truth[known].tolist())) < 2:
            return ProbeResult(None, "too few patients with and without ENE to leave some out")
        model = _model(probe, min(neighbours, len(known)))
        model.fit(features[known], truth[known])
        odds[asked] = model.predict_proba(features[asked])[:, 1]
    return ProbeResult(tuple(float(p) for p in odds))


def _hindrance(truth: npt.NDArray[np.int64], groups: npt.NDArray[np.str_]) -> str:
    if len(truth) == 0:
        return "no node has both features and an ENE label"
    if len(set(truth.tolist())) < 2:
        return "all labelled nodes are of one class, so nothing can be learned"
    if min(len(set(groups[truth == one].tolist())) for one in (0, 1)) < 2:
        return "nodes of one class come from a single patient, so no patient can be left out"
    return ""


def _model(probe: Literal["linear", "knn"], neighbours: int) -> Any:
    pipeline = need("sklearn.pipeline", extra="benchmark", purpose="A probe on frozen features")
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    if probe == "knn":
        last: Any = KNeighborsClassifier(neighbours, weights="distance")
    else:
        last = LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000)
    return pipeline.make_pipeline(StandardScaler(), last)
