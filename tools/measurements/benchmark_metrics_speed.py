"""Seconds that the metrics of one case take: 64 x 160 x 160 voxels, a primary tumour and six nodes.

    OMP_NUM_THREADS=1 python -m tools.measurements.benchmark_metrics_speed [--repeats N]

Prints a table and writes `results/benchmark_metrics_speed.json`. The first call, which loads the
table of surface areas, is timed apart. `noise` is the worst there is: random labels, so that every voxel is
surface.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aiene.benchmark.metrics.segmentation import case_metrics

SHAPE = (64, 160, 160)
SPACING = (3.0, 1.0, 1.0)
NODES = ((20, 40, 40), (30, 60, 120), (40, 100, 40), (45, 110, 120), (15, 120, 60), (50, 50, 60))
LIMIT_SECONDS = 1.5
RESULTS = Path(__file__).parent / "results" / "benchmark_metrics_speed.json"
Labels = npt.NDArray[np.uint8]


def phantom(*, shift: int = 0, grow: float = 0.0) -> Labels:
    """Six nodes of 18 to 38 mm and a primary tumour of 36 mm; shifted in voxels, grown in mm."""
    labels = np.zeros(SHAPE, np.uint8)
    for number, place in enumerate(NODES):
        labels[_ball(place, 9 + 2 * number + grow, shift)] = 2
    labels[_ball((30, 80, 80), 18 + grow, shift)] = 1
    return labels


def _ball(place: tuple[int, int, int], radius_mm: float, shift: int) -> npt.NDArray[np.bool_]:
    axes = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    parts = ((a - p - shift) * s for a, p, s in zip(axes, place, SPACING, strict=True))
    return np.asarray(sum(part**2 for part in parts) <= radius_mm**2)


def main() -> None:
    """Time each kind of prediction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    random = np.random.default_rng(0)
    truth = phantom()
    predictions = {
        "first call": phantom(shift=1),
        "near": phantom(shift=1, grow=1),
        "perfect": truth,
        "empty": np.zeros_like(truth),
        "noise": random.integers(0, 3, SHAPE).astype(np.uint8),
    }
    rows = []
    for name, prediction in predictions.items():
        times = []
        for _ in range(1 if name in ("first call", "noise") else repeats):
            start = time.process_time()
            case_metrics(truth, prediction, SPACING)
            times.append(time.process_time() - start)
        rows.append(
            {"prediction": name, "median_seconds": round(float(np.median(times)), 3), "n": len(times)}
        )
        print(f"{name:12} {np.median(times):8.3f} s")
    content = {
        "shape": SHAPE,
        "nodes": len(NODES),
        "limit_seconds": LIMIT_SECONDS,
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("numpy", "scipy", "scikit-image")},
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
