"""Memory of a benchmark over 200 cases: the resident memory after each case, in one process.

    python -m tools.measurements.benchmark_memory --work DIR [--cases 200]

Four phantoms under 200 names, a folder of predictions shifted by one voxel, everything in this process.
Prints the memory after 10, 20, ... cases; it stops rising after the first ones.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from aiene.benchmark.config import BenchmarkConfig
from aiene.benchmark.run import Step, run_benchmark
from aiene.geometry.grid import Volume
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.results.nifti import write_nifti

SETTINGS = PhantomSettings(size=(64, 112, 112), spacing=(4.0, 2.2, 2.2), nodes=(3, 6))


def main() -> int:
    """Make the cases, run them, tell the memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=200)
    words = parser.parse_args()
    make_cases(words.work, words.cases)
    process, told = psutil.Process(), []

    def on_step(step: Step) -> None:
        if step.number % 10 == 0:
            told.append((step.model or "truth", step.number, process.memory_info().rss / 2**20))
            print(f"{told[-1][0]} {told[-1][1]}: {told[-1][2]:.0f} MiB", flush=True)

    config = BenchmarkConfig(
        image_dir=words.work / "images",
        seg_dir=words.work / "masks",
        predictions={"shifted": words.work / "shifted"},
        resamples=200,
    )
    start = time.perf_counter()
    run_benchmark(config, words.work / "out", jobs=1, on_step=on_step)
    print(f"{time.perf_counter() - start:.0f} s, at the end {process.memory_info().rss / 2**20:.0f} MiB")
    return 0


def make_cases(work: Path, number: int) -> None:
    """Four phantoms under many names, by hard links."""
    for folder in ("images", "masks", "shifted"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    for seed in range(4):
        phantom = make_phantom(980_000 + seed, SETTINGS)
        shifted = Volume(np.roll(phantom.labels.array, 1, axis=2), phantom.labels.grid)
        for folder, volume in (("images", phantom.ct), ("masks", phantom.labels), ("shifted", shifted)):
            first = work / folder / f"case_{seed:03d}.nii.gz"
            write_nifti(volume, first)
            for place in range(seed + 4, number, 4):
                other = work / folder / f"case_{place:03d}.nii.gz"
                other.unlink(missing_ok=True)
                os.link(first, other)


if __name__ == "__main__":
    sys.exit(main())
