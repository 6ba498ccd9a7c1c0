"""Opening time of a large cohort's page in Chromium: processor seconds of the browser, and wall time.

    PYTHONPATH=src:tests python -m tools.measurements.cohort_opening [--patients 2000] [--out FILE]

One patient's card is repeated; the page is opened from the disk, and timed until its first frame after the
table is there. The processor seconds are those of all processes of the browser from the call to that frame.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from aiene.finished_runs import read_run
from aiene.results.records import CaseResult
from aiene.viewer.run import Card, cohort_page, report_run

_ROUNDS = 3


def main() -> None:
    """Make the page, open it some times, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patients", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    runs, browsers = import_module("builders.viewer_runs"), import_module("builders.browsers")
    with tempfile.TemporaryDirectory() as name:
        page = _page(runs.write_patterned_run(Path(name)).out, words.patients)
        with browsers.browser(width=1400, height=900) as driver:
            rounds = [_opened(driver, page) for _ in range(_ROUNDS)]
        megabytes = page.stat().st_size / 1e6
    result = {
        "patients": words.patients,
        "megabytes": round(megabytes, 1),
        "wall_seconds": [round(wall, 2) for wall, _ in rounds],
        "processor_seconds": [round(used, 2) for _, used in rounds],
        "load_average": round(psutil.getloadavg()[0], 1),
    }
    print(json.dumps(result, indent=2))
    if words.out is not None:
        words.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _page(out: Path, patients: int) -> Path:
    seen = report_run(out, jobs=1).cards[0]
    cards = [
        replace(seen, result=replace(seen.result, case_id=f"pt{i:04d}", warnings=("look",) * (i % 7 == 0)))
        for i in range(patients - 1)
    ]
    page = out / "report.html"
    page.write_text(
        cohort_page([*cards, Card(CaseResult("zzz", "failed", "no neck"))], read_run(out)), encoding="utf-8"
    )
    return page


def _opened(driver: Any, page: Path) -> tuple[float, float]:
    """Seconds to the first frame, by the clock and of the processors."""
    driver.get("about:blank")
    service = psutil.Process(driver.service.process.pid)
    before, start = _used(service), time.perf_counter()
    driver.get(page.as_uri())
    driver.execute_async_script(
        "const done = arguments[0], seen = () => document.body.classList.contains('ready')"
        " ? requestAnimationFrame(() => requestAnimationFrame(done)) : setTimeout(seen, 5); seen()"
    )
    return time.perf_counter() - start, _used(service) - before


def _used(root: psutil.Process) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in root.children(recursive=True))


if __name__ == "__main__":
    main()
