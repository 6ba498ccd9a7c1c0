"""How long `aiene --help` takes, from the shell's point of view: a new process each time.

    python -m tools.measurements.help_speed [--repeats 20] [-o RESULT.json]

Prints the least and the median wall time and the processor time of one call. The first call, which may have
to compile the modules and read them from the disk, is left out. Aim: under 0.5 s on a quiet machine. The test
suite checks only that no heavy package is imported, since a time says as much about the machine as about the
program.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMAND = (sys.executable, "-m", "aiene", "--help")
AIM_SECONDS = 0.5


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("-o", "--out", type=Path)
    words = parser.parse_args()
    subprocess.run(COMMAND, check=True, stdout=subprocess.DEVNULL)
    wall, before = [], os.times()
    for _ in range(words.repeats):
        start = time.perf_counter()
        subprocess.run(COMMAND, check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - start)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    content = {
        "command": "aiene --help",
        "machine": platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "repeats": words.repeats,
        "least_seconds": round(min(wall), 3),
        "median_seconds": round(statistics.median(wall), 3),
        "processor_seconds": round(processor / words.repeats, 3),
        "aim_seconds": AIM_SECONDS,
    }
    print(json.dumps(content, indent=1))
    if words.out:
        words.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
