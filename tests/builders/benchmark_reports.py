"""A small benchmark that is done, for the tests of its report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from aiene.benchmark.config import BenchmarkConfig
from aiene.benchmark.metrics.classification import classification, patient_agreement
from aiene.benchmark.run import run_benchmark
from aiene.geometry.grid import Volume
from aiene.results.nifti import write_nifti
from builders import benchmarks as build

NAMES = [f"case_{number}" for number in range(7)]
WHEN = datetime(2026, 5, 4, 3, 2, 1)
STAMP = "20260504_030201"
ODD = "<moved> & $x$ {{ a }}"
"""A name with letters that mean something in HTML, in formulas and in templates."""


def finished(
    folder: Path, names: list[str] = NAMES, models: tuple[str, ...] = ("perfect", ODD, "empty")
) -> Path:
    """The folder of a benchmark of predictions, one without a case, and one that is not there."""
    images, masks = build.write_cases(folder, names)
    changes: dict[str, Callable[[Volume], Volume]] = {
        "perfect": lambda volume: volume,
        ODD: lambda volume: volume.with_array(np.roll(volume.array, 1, axis=2)),
        "empty": lambda volume: volume.with_array(volume.array * 0),
    }
    places = {}
    for number, name in enumerate(models):
        places[name] = folder / f"model_{number}"
        places[name].mkdir()
        for case in names[: -1 if number == 1 and len(names) > 1 else None]:
            write_nifti(changes[name](build.labels()), places[name] / f"{case}.nii.gz")
    places["not there"] = folder / "not_there"
    config = BenchmarkConfig.model_validate(
        {"image_dir": images, "seg_dir": masks, "predictions": places, "resamples": 100, "device": "cpu"}
    )
    run_benchmark(config, folder / "out", jobs=1, now=WHEN)
    return folder / "out"


def summary_file(out: Path) -> Path:
    """Its summary."""
    return out / f"benchmark_summary_{STAMP}.json"


def change(out: Path, by: Callable[[dict[str, Any]], None]) -> None:
    """Change its summary."""
    content = json.loads(summary_file(out).read_text(encoding="utf-8"))
    by(content)
    summary_file(out).write_text(json.dumps(content), encoding="utf-8")


def judged(summary: dict[str, Any]) -> None:
    """Give the first model's nodes a probability of extranodal extension, as `judging` writes it."""
    labels = [0, 1] * 7
    odds = [0.1, 0.8, 0.3, 0.6, 0.45, 0.4, 0.2, 0.9, 0.05, 0.55, 0.6, 0.7, 0.15, 0.35]
    patients = [name for name in NAMES for _ in range(2)]
    figures = classification(labels, odds, thresholds=(0.5, 0.3), patients=patients, resamples=60)
    people = patient_agreement([1] * 7, [1, 1, 0, 1, 1, 2, 0], resamples=60)
    track = {
        **asdict(figures),
        "threshold": 0.5,
        "not_judged": 0,
        "false_nodes_called_ene": None,
        "patients": {**asdict(people), "left_out": 0},
        "scores": [],
    }
    summary["models"][0]["classification"] = json.loads(json.dumps({"on_truth": track, "end_to_end": None}))
    summary["data"].update(nodes_labelled=14, nodes_ene=7)
