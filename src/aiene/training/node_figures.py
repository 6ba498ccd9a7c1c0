"""How well a classifier does on nodes that it was not trained on."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

Floats = npt.NDArray[np.float64]
_RESAMPLES = 1000


def figures_of(
    probabilities: Floats, truth: Floats, called: npt.NDArray[np.bool_], patients: Sequence[str]
) -> dict[str, Any]:
    """AUC, average precision, Brier, sensitivity and specificity, with 95 % intervals over patients.

    Parameters
    ----------
    probabilities, truth : (n,) of nodes whose truth is known, 0 or 1.
    called : where the threshold was passed.
    patients : whose node each is; the bootstrap draws patients, so that nodes of one stay together.
    """
    figures: dict[str, Any] = {"nodes": len(truth), "positive": int(truth.sum())}
    if len(set(truth.tolist())) < 2:
        return {**figures, "reason": "one class only"}
    measures: dict[str, Callable[[npt.NDArray[np.int64]], float]] = {
        "auc": lambda k: roc_auc_score(truth[k], probabilities[k]),
        "average_precision": lambda k: average_precision_score(truth[k], probabilities[k]),
        "brier": lambda k: brier_score_loss(truth[k], probabilities[k]),
        "sensitivity": lambda k: called[k][truth[k] == 1].mean(),
        "specificity": lambda k: (~called[k])[truth[k] == 0].mean(),
    }
    everyone = np.arange(len(truth))
    resamples = [k for k in _resampled(patients) if 0 < truth[k].sum() < len(k)]
    for name, measure in measures.items():
        figures[name] = round(float(measure(everyone)), 4)
        low, high = np.percentile([measure(k) for k in resamples], [2.5, 97.5])
        figures[f"{name}_95"] = [round(float(low), 4), round(float(high), 4)]
    return figures


def reliability(probabilities: Floats, truth: Floats, bins: int = 5) -> list[dict[str, float]]:
    """Mean probability against share of positives, in bins of equal numbers."""
    order = np.argsort(probabilities, kind="stable")
    rows = []
    for part in np.array_split(order, min(bins, len(order))):
        if len(part):
            rows.append(
                {
                    "n": float(len(part)),
                    "predicted": float(probabilities[part].mean()),
                    "observed": float(truth[part].mean()),
                }
            )
    return rows


def calibration_plot(rows: Sequence[dict[str, float]], title: str) -> bytes:
    """The reliability table as a PNG: perfect is the diagonal; the area of a point is its number of nodes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfect")
    predicted, observed = ([row[name] for row in rows] for name in ("predicted", "observed"))
    axes.plot(predicted, observed, color="#0072B2", linewidth=1)
    axes.scatter(predicted, observed, s=[8 + 4 * row["n"] for row in rows], color="#0072B2", label="nodes")
    axes.set(
        xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share with extension", title=title
    )
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper left")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()


def _resampled(patients: Sequence[str]) -> list[npt.NDArray[np.int64]]:
    names = sorted(set(patients))
    of = {name: np.flatnonzero(np.array(patients) == name) for name in names}
    rng = np.random.default_rng(0)
    return [
        np.concatenate([of[names[k]] for k in rng.integers(len(names), size=len(names))])
        for _ in range(_RESAMPLES)
    ]
