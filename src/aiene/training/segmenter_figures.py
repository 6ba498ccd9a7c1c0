"""What nnU-Net's validation says, and its checkpoint without what only the training needs."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from aiene.results.atomic import write_bytes
from aiene.segment.checkpoint import read_checkpoint
from aiene.training.pairs import LABELS

_KEPT = ("network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes")
_RESAMPLES = 1000


def validation_figures(summary: Path) -> dict[str, Any]:
    """Mean Dice of each label over the validation cases, with a 95 % bootstrap interval.

    Cases where neither the labels nor the network show the structure have no Dice and are not counted.

    Parameters
    ----------
    summary : nnU-Net's `validation/summary.json`.
    """
    content = json.loads(summary.read_text(encoding="utf-8"))
    figures: dict[str, Any] = {"cases": len(content["metric_per_case"])}
    for name, value in LABELS.items():
        if value == 0:
            continue
        dice = [case["metrics"].get(str(value), {}).get("Dice") for case in content["metric_per_case"]]
        known = np.array([d for d in dice if d is not None and not math.isnan(d)])
        figures[name] = _interval(known)
    return figures


def _interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    if not len(values):
        return {"n": 0, "dice_mean": None, "dice_95": None}
    rng = np.random.default_rng(0)
    means = rng.choice(values, size=(_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "n": len(values),
        "dice_mean": round(float(values.mean()), 4),
        "dice_95": [round(float(low), 4), round(float(high), 4)],
    }


def weights_only(source: Path, target: Path) -> None:
    """A checkpoint for use, not for going on: a third of the size.

    Raises
    ------
    ModelError : the source is no checkpoint.
    OutputError : the target cannot be written.
    """
    import torch

    content = read_checkpoint(source)
    stream = io.BytesIO()
    torch.save({key: content[key] for key in _KEPT if key in content}, stream)
    write_bytes(target, stream.getvalue())
