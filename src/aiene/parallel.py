"""Work through cases side by side, in order, and lose none: also where the system ends a process."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from aiene.device import available_cores
from aiene.errors import CaseError
from aiene.ingest import Case
from aiene.models.bundle import Bundle
from aiene.pipeline import Preparation, Ready, load_preparation, ready

# Worker processes that end with the process they work for, however that ends.


_LOOK_EVERY_S: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class Crew:
    """Processes that end with this one; a context, whose end ends them at once.

    Parameters
    ----------
    jobs : how many.
    start : called once in each of them, with `arguments`.
    """

    def __init__(
        self, jobs: int, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
    ) -> None:
        self._jobs, self._start, self._arguments = jobs, start, arguments
        self._workers: list[BaseProcess] = []
        self.pool = self._new()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """As the pool's own, which starts its processes as they are needed.

        Raises
        ------
        BrokenProcessPool : a process was ended from outside.
        """
        before = set(active_children())
        with _interrupts_for_us_alone(), _main_left_alone(function):
            future = self.pool.submit(function, *arguments)
        self._workers += [p for p in active_children() if p not in before]
        return future

    def stop(self) -> None:
        """End the processes, whatever they are at."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.terminate()
        self._workers = []

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._jobs,
            mp_context=get_context("spawn"),
            initializer=_begin,
            initargs=(os.getpid(), self._start, self._arguments),
        )


def end_with(parent: int) -> None:
    """End this process when the process that started it has gone.

    On Linux the system sees to it, at once and whatever this process is at; elsewhere, and where it could
    not, a thread looks once a second.

    Parameters
    ----------
    parent : its process id.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if not hasattr(os, "getppid"):
        return

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=look, name="looks for its parent", daemon=True).start()


def _begin(parent: int, start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    end_with(parent)
    if start is not None:
        start(*arguments)


@contextmanager
def _interrupts_for_us_alone() -> Iterator[None]:
    """Processes that are started meanwhile do not see Ctrl-C: we end them, without a traceback each."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _main_left_alone(function: Callable[..., object]) -> Iterator[None]:
    """Processes that are started meanwhile do not run the caller's script again, as `spawn` would have them.

    A script without `if __name__ == "__main__"` would start its work once more in each of them. What we send
    there is found in our own modules; only a function of the script itself needs the script. `spawn` asks the
    main module for its file and its spec and does without where it has neither, as in a notebook.
    """
    main = sys.modules["__main__"]
    if getattr(function, "__module__", None) == "__main__":
        yield
        return
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


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


# Preparing cases side by side in other processes, a few ahead of the networks.
#
# A registration runs on one core, so that it repeats bit for bit; several cases fill a machine. The networks
# stay in the calling process: they are loaded once, and their result does not depend on how many processes.


GetReady = Callable[[], Ready]
_CASES_AHEAD = 1  # prepared cases that wait for the networks, beyond those in work: bounds the memory

_preparation: Preparation | None = None  # of a worker process, loaded once


class Preparers:
    """Prepares cases in order, `jobs` at a time. A context manager: leaving it ends the processes.

    Parameters
    ----------
    bundle : whose profile and template are used.
    masks : folder of the user's own masks, or None.
    jobs : processes; with 1 the work is done in this process.
    room : where zip archives are unpacked; None is the system's place for temporary files.
    """

    def __init__(self, bundle: Bundle, masks: Path | None, jobs: int, *, room: Path | None = None) -> None:
        self._bundle, self._masks, self._jobs = bundle, masks, jobs
        self._room = room
        self._crew: Crew | None = None
        self._waiting: deque[tuple[Case, Future[Ready]]] = deque()

    def __enter__(self) -> Preparers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def each(self, cases: Sequence[Case], preparation: Preparation) -> Iterator[tuple[Case, GetReady]]:
        """Every case with a function that waits for its preparation, or raises what that raised."""
        if self._jobs == 1:
            for case in cases:
                yield case, partial(ready, case, preparation, self._masks, room=self._room)
            return
        to_come = iter(cases)
        while True:
            self._fill(to_come)
            if not self._waiting:
                return
            case, future = self._waiting.popleft()
            yield case, partial(self._result, case, future)

    def _fill(self, to_come: Iterator[Case]) -> None:
        while len(self._waiting) < self._jobs + _CASES_AHEAD:
            case = next(to_come, None)
            if case is None:
                return
            self._waiting.append((case, self._submit(case)))

    def _submit(self, case: Case) -> Future[Ready]:
        if self._crew is None:
            self._crew = self._new_crew(self._jobs)
        return self._send(self._crew, case)

    def _result(self, case: Case, future: Future[Ready]) -> Ready:
        """A case's preparation; where a process was ended from outside, the case is tried again alone."""
        try:
            return future.result()
        except BrokenProcessPool:
            self._stop()
        try:
            with self._new_crew(1) as alone:
                return self._send(alone, case).result()
        except BrokenProcessPool as error:
            raise CaseError(
                "the process that prepared this CT was ended by the system, as a rule for lack of memory",
                "try again with --jobs 1, or on a machine with more memory",
            ) from error
        finally:
            again = [case for case, _ in self._waiting]
            self._waiting = deque((case, self._submit(case)) for case in again)

    def _new_crew(self, jobs: int) -> Crew:
        return Crew(jobs, _start, (self._bundle, max(1, available_cores() // jobs)))

    def _send(self, crew: Crew, case: Case) -> Future[Ready]:
        return crew.submit(_ready_here, case, self._masks, self._room)

    def _stop(self) -> None:
        if self._crew is not None:
            self._crew.stop()
            self._crew = None


def _start(bundle: Bundle, threads: int) -> None:
    import SimpleITK as sitk

    global _preparation
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    _preparation = load_preparation(bundle)


def _ready_here(case: Case, masks: Path | None, room: Path | None) -> Ready:
    if _preparation is None:
        raise RuntimeError("a worker process without its preparation")
    return ready(case, _preparation, masks, room=room)


# Independent jobs over the available cores; no result depends on how many.


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
