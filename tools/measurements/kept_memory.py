"""What keeping freed memory saves (`device.keep_freed_memory`): a segmentation with and without, in turn.

    OMP_NUM_THREADS=1 python -m tools.measurements.kept_memory [--repeats 3]

Each in a process of its own; processor seconds of one pass of the default segmenter, and the peak of memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time

import torch

from aiene.device import keep_freed_memory
from aiene.models.bundle import find_bundle
from aiene.segment.segmenter import load_bundle_segmenter


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--once", choices=("kept", "given back"), help="measure in this process")
    words = parser.parse_args()
    if words.once:
        print(json.dumps(measured(keep=words.once == "kept")))
        return
    command = [sys.executable, "-m", "tools.measurements.kept_memory", "--once"]
    for _ in range(words.repeats):
        for way in ("given back", "kept"):
            print(way, subprocess.check_output([*command, way], text=True).strip(), flush=True)


def measured(*, keep: bool) -> dict[str, float | str]:
    """The least processor seconds of five passes, the peak in GB, and a hash of the answer."""
    if keep:
        keep_freed_memory()
    torch.set_num_threads(1)
    segmenter = load_bundle_segmenter(find_bundle("default"))
    tile = torch.randn((1, 1, *segmenter.plan.patch), generator=torch.Generator().manual_seed(0))
    seconds = []
    with torch.inference_mode():
        for _ in range(6):
            start = time.process_time()
            answer = segmenter.engine.answers[0](tile)
            seconds.append(time.process_time() - start)
    return {
        "seconds": round(min(seconds[1:]), 3),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "sha256": hashlib.sha256(answer.numpy().tobytes()).hexdigest()[:16],
    }


if __name__ == "__main__":
    main()
