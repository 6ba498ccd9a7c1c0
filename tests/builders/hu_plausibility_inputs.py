"""Inputs and readings that several tests share, first written for test_hu_plausibility."""

from __future__ import annotations

import numpy as np


def patient() -> np.ndarray:
    """HU of a box of tissue with fat, bone and noise in air."""
    rng = np.random.default_rng(3)
    hu = np.full((40, 40, 40), -1000.0)
    hu[:, 8:32, 8:32] = 40
    hu[:, 8:12, 8:32] = -100
    hu[:, 18:22, 18:22] = 700
    return (hu + rng.normal(0, 10, hu.shape)).astype(np.int16)
