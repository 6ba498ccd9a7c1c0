"""Page and review of a synthetic CT of 200 x 512 x 512: megabytes, seconds to open, save to new number.

    PYTHONPATH=src:tests python -m tools.measurements.review_speed [--saves 4] [--work FOLDER] [--out FILE]

A phantom with its own true contours (`--masks`) is run by the default bundle. The page is opened in Chromium
from the disk until it says that it is ready. A save is one of `aiene review`: a voxel layer of one node is
erased, and the time runs until its sizes, probabilities and the AI-ENE number are there. The first save also
waits for the preparation of the CT, which on the page runs while the reader looks. With `--work` the run is
kept, and taken as it is by the next call.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy import ndimage

from aiene.cohort import run_cohort
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.results.nifti import write_nifti
from aiene.review.session import Change, Review
from aiene.viewer.run import report_run

_SETTINGS = PhantomSettings(size=(200, 512, 512), spacing=(1.35, 0.6, 0.6), nodes=(5, 6))
_SEED = 900_003  # not one of the demo's or of a training


def main() -> None:
    """Make the CT and its run, the page and some saves; tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--saves", type=int, default=4)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = _run(words.work or Path(name))
        made, wall, used = _timed(lambda: report_run(run, jobs=1))
        page = run / "cases" / made.cards[0].result.case_id / "report.html"
        opened = _opened(page)
        result = {
            "page_megabytes": round(page.stat().st_size / 1e6, 2),
            "page_made": _seconds(wall, used),
            "page_opened": _seconds(*opened),
            "saves": [_seconds(*one) for one in _saves(run, words.saves)],
            "load_average": round(psutil.getloadavg()[0], 1),
        }
    print(json.dumps(result, indent=2))
    if words.out is not None:
        words.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _run(work: Path) -> Path:
    out = work / "results"
    if not (out / "run.json").is_file():
        phantom = make_phantom(_SEED, _SETTINGS)
        for folder, volume in (("cts", phantom.ct), ("masks", phantom.labels)):
            (work / folder).mkdir(parents=True, exist_ok=True)
            write_nifti(volume, work / folder / "large.nii.gz")
        run_cohort(work / "cts", out, masks=work / "masks", jobs=1)
    return out


def _saves(run: Path, count: int) -> list[tuple[float, float]]:
    """Each save takes one layer of voxels from the largest node."""
    review = Review(run, "speed")
    taken = []
    for _ in range(count):
        opened = review.open("large")
        drawing = opened.scene.labels.array.copy()
        values, sizes = np.unique(drawing[(drawing > 0) & (drawing < 255)], return_counts=True)
        node = drawing == values[sizes.argmax()]
        drawing[node & ~ndimage.binary_erosion(node)] = 0
        change = Change(drawing, opened.number, "corrected")
        _, wall, used = _timed(partial(review.save, "large", change))
        taken.append((wall, used))
    return taken


def _opened(page: Path) -> tuple[float, float]:
    browsers = import_module("builders.browsers")
    with browsers.browser(width=1400, height=900) as driver:
        driver.get("about:blank")
        browser = psutil.Process(driver.service.process.pid)
        before, start = _used(browser), time.perf_counter()
        driver.get(page.as_uri())
        browsers.wait_for(driver, "document.body && document.body.classList.contains('ready')")
        return time.perf_counter() - start, _used(browser) - before


def _timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    start, before = time.perf_counter(), time.process_time()
    done = call()
    return done, time.perf_counter() - start, time.process_time() - before


def _seconds(wall: float, used: float) -> dict[str, float]:
    return {"wall_seconds": round(wall, 2), "processor_seconds": round(used, 2)}


def _used(root: psutil.Process) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in root.children(recursive=True))


if __name__ == "__main__":
    main()
