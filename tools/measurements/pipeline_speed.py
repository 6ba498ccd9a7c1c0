"""Seconds and peak memory of each stage on a real CT, with networks of the published size.

    python -m tools.measurements.pipeline_speed CT.nii.gz [MORE.nii.gz ...] --template TEMPLATE.nrrd
                                                [--profile published|open]

Prints a table and writes `results/pipeline_speed.json`. Peak memory is the process's largest
resident set within the stage (Linux: the mark is set back before each stage).
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from aiene.geometry.grid import Volume
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from aiene.nodes.placement import native_nodes
from aiene.nodes.split import split_nodes
from aiene.pipeline import Networks, load_networks
from aiene.preprocess.preprocess import Preparation, load_preparation, prepare, to_native
from tools.measurements.published_size import make_bundle

Value = TypeVar("Value")
RESULTS = Path(__file__).parent / "results" / "pipeline_speed.json"


class Meter:
    """Measures stages, one after the other."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def __call__(self, case: str, stage: str, work: Callable[[], Value]) -> Value:
        """Run a stage and keep its seconds by the clock and of the processor, and its peak memory."""
        Path("/proc/self/clear_refs").write_text("5")
        start, busy = time.perf_counter(), time.process_time()
        value = work()
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        row = {"case": case, "stage": stage, "seconds": round(seconds, 2)}
        row |= {"processor_s": round(busy, 2), "peak_gib": round(_peak_gib(), 2)}
        self.rows.append(row)
        print(f"{case:10} {stage:10} {seconds:8.2f} s ({busy:.2f} s) {row['peak_gib']:6} GiB", flush=True)
        return value


def main() -> None:
    """Measure every CT given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cts", nargs="+", type=Path)
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--profile", choices=("published", "open"), default="published")
    words = parser.parse_args()
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder) / "bundle", words.template, words.profile)
        cpu = torch.device("cpu")
        networks = meter("-", "load", lambda: load_networks(bundle, cpu, own_masks=False))
        preparation = load_preparation(bundle)
        for path in words.cts:
            measure(meter, path, preparation, networks)
    RESULTS.parent.mkdir(exist_ok=True)
    content = {
        "profile": words.profile,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rows": meter.rows,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def measure(meter: Meter, path: Path, preparation: Preparation, networks: Networks) -> None:
    """The stages of one CT, one after the other."""
    segmenter, classifier = networks.segmenter, networks.classifier
    if segmenter is None:
        raise ValueError("the bundle was loaded without its segmenter")
    (case,) = (c for c in find_cases(path)[0] if isinstance(c, Case))
    name = path.parent.name
    ct = meter(name, "read", lambda: read_case(case))
    ready = meter(name, "prepare", lambda: prepare(ct, preparation.template, preparation.profile))
    labels = meter(name, "segment", lambda: segmenter(ready.crop))
    # random weights find noise: six balls stand in for the nodes of a patient
    balls = ready.crop.with_array(_six_balls(labels.array.shape))
    nodes = meter(name, "nodes", lambda: split_nodes(balls, fg_labels=(2,), axes=True))
    meter(name, "classify", lambda: classifier.scores(ready.crop, nodes))
    meter(
        name,
        "native",
        lambda: native_nodes(
            nodes, ready.crop.grid, _drawn(to_native(balls, ready)), ready.to_native, midline_x=0.0
        ),
    )


def _drawn(labels: Volume) -> Volume:
    return labels.with_array(labels.array > 0)


def _six_balls(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    z, y, x = np.indices(shape)
    labels = np.zeros(shape, np.uint8)
    for k, radius in enumerate((6, 8, 10, 12, 14, 16)):
        centre = (12 + 8 * k, 50 + 10 * k, 40 + 80 * (k % 2))
        inside = ((z - centre[0]) * 3) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2
        labels[inside] = 2
    return labels


def _peak_gib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 2**20
    raise RuntimeError("this system does not say the peak memory of a process")


if __name__ == "__main__":
    main()
