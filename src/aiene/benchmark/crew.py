"""Work through cases side by side, in order, and lose none: also where the system ends a process."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from aiene.orphans import Crew

Task = TypeVar("Task")
Result = TypeVar("Result")

ENDED = (
    "the process that worked on this case was ended by the system, as a rule for lack of memory; "
    "try again with --jobs 1, or on a machine with more memory."
)
_AHEAD = 2  # cases handed out per process: bounds what waits in memory


def work_through(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    jobs: int,
    threads: int,
    lost: Callable[[Task], Result],
    apart: bool = False,
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, in the order of the tasks.

    Parameters
    ----------
    function : of a module, so that other processes find it; it raises nothing that is expected.
    jobs : processes; with 1 the work is done in this one.
    threads : cores that a process may use.
    lost : the result of a task whose process was ended twice, the second time alone.
    apart : never in this process, so that memory is measured without what else it holds.
    """
    if not tasks:
        return
    if not apart and (jobs == 1 or len(tasks) < 2):
        with limited(threads):
            for task in tasks:
                yield task, function(task)
        return
    done = 0
    try:
        for task, result in _pooled(function, tasks, min(jobs, len(tasks)), threads):
            done += 1
            yield task, result
    except BrokenProcessPool:
        for task in tasks[done:]:
            yield task, _alone(function, task, threads, lost)


def _pooled(
    function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, threads: int
) -> Iterator[tuple[Task, Result]]:
    waiting: deque[tuple[Task, Future[Result]]] = deque()
    with Crew(jobs, _limit, (threads,)) as crew:
        for task in tasks:
            waiting.append((task, crew.submit(function, task)))
            if len(waiting) >= jobs * _AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def _alone(
    function: Callable[[Task], Result], task: Task, threads: int, lost: Callable[[Task], Result]
) -> Result:
    try:
        with Crew(1, _limit, (threads,)) as crew:
            return crew.submit(function, task).result()
    except BrokenProcessPool:
        return lost(task)


def _limit(threads: int) -> None:
    """Keep this process to so many cores; libraries that are not loaded yet read it when they are."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[name] = str(threads)
    _tell(threads, threads)


def _tell(of_torch: int, of_itk: int) -> None:
    torch, sitk = sys.modules.get("torch"), sys.modules.get("SimpleITK")
    if torch is not None:
        torch.set_num_threads(of_torch)
    if sitk is not None:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(of_itk)


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Keep torch and SimpleITK to so many cores in this process, and give them back afterwards."""
    import SimpleITK as sitk
    import torch

    before = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    _tell(threads, threads)
    try:
        yield
    finally:
        _tell(*before)
