"""Independent jobs over the available cores; no result depends on how many."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiene.device import available_cores

WORTH_A_PROCESS = 400.0
"""Jobs whose weights add up to less run here: starting processes would take longer."""


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Parameters
    ----------
    name : said when it is done.
    function : top-level function, so that it can travel to another process.
    arguments : of it.
    weight : how much work it is, roughly; for progress and order.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    weight: float = 1.0


class Progress(NamedTuple):
    """How far the analysis is.

    Parameters
    ----------
    done, total : units of work; a bootstrap of a model comparison is about one.
    what : name of the job that has just ended.
    """

    done: float
    total: float
    what: str


OnProgress = Callable[[Progress], None]


def run_jobs(jobs: Sequence[Job], *, workers: int | None, on_progress: OnProgress | None = None) -> list[Any]:
    """The results of all jobs in their order.

    Parameters
    ----------
    workers : processes; None takes one per available core.
    """
    count = min(available_cores() if workers is None else workers, len(jobs))
    total = sum(job.weight for job in jobs)
    if count <= 1 or total < WORTH_A_PROCESS:
        return _here(jobs, total, on_progress)
    return _elsewhere(jobs, count, total, on_progress)


def _here(jobs: Sequence[Job], total: float, on_progress: OnProgress | None) -> list[Any]:
    done, results = 0.0, []
    for job in jobs:
        results.append(job.function(*job.arguments))
        done += job.weight
        if on_progress:
            on_progress(Progress(done, total, job.name))
    return results


def _elsewhere(jobs: Sequence[Job], count: int, total: float, on_progress: OnProgress | None) -> list[Any]:
    from concurrent.futures import as_completed

    from aiene.orphans import Crew

    results: list[Any] = [None] * len(jobs)
    heaviest_first = sorted(range(len(jobs)), key=lambda i: (-jobs[i].weight, i))
    done = 0.0
    with _one_thread_each(), Crew(count) as crew:
        futures = {crew.submit(jobs[i].function, *jobs[i].arguments): i for i in heaviest_first}
        for future in as_completed(futures):
            number = futures[future]
            results[number] = future.result()
            done += jobs[number].weight
            if on_progress:
                on_progress(Progress(done, total, jobs[number].name))
    return results


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Each process is one core; threads of the linear algebra would only stand in each other's way.

    Said in the environment that the processes are born with: once numpy is loaded it is too late.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
