"""The one owner of worker processes: tasks in order or jobs by weight, none lost, none outliving its parent.

Knows no stage of the pipeline: what is worked on comes as a function and its tasks.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

from aiene.device import available_cores
from aiene.errors import CaseError

# Worker processes that end with the process they work for, however that ends.


@dataclass(frozen=True)
class Elsewhere:
    """Workers beyond this machine, in the place of its own processes.

    Parameters
    ----------
    pool : makes what hands them functions. A task whose worker was ended raises `BrokenProcessPool`.
    workers : how many there are.
    """

    pool: Callable[[], Executor]
    workers: int


_elsewhere_now: ContextVar[Elsewhere | None] = ContextVar("elsewhere", default=None)


@contextmanager
def elsewhere(workers: Elsewhere) -> Iterator[None]:
    """Within it, every crew is made of these workers; no result depends on it."""
    token = _elsewhere_now.set(workers)
    try:
        yield
    finally:
        _elsewhere_now.reset(token)


def _beginning_with(
    start: Callable[..., None], arguments: tuple[Any, ...], function: Callable[..., Result], *given: Any
) -> Result:
    """A function on a worker that other functions use as well: what makes it ready is called each time."""
    start(*arguments)
    return function(*given)


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
        self._start, self._arguments = start, arguments
        self._workers: list[BaseProcess] = []
        away = _elsewhere_now.get()
        self.pool: Executor = (
            ProcessPoolExecutor(
                jobs,
                mp_context=get_context("spawn"),
                initializer=_begin,
                initargs=(os.getpid(), start, arguments),
            )
            if away is None
            else away.pool()
        )

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
        if _elsewhere_now.get() is not None:
            if self._start is not None:
                function = partial(_beginning_with, self._start, self._arguments, function)
            return self.pool.submit(function, *arguments)
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
    "the process that worked on this case was ended by the system, usually for lack of memory; "
    "try again with --jobs 1, or on a machine with more memory."
)


def unless_ended(result: Callable[[], Result]) -> Result:
    """What a process made of a case.

    Raises
    ------
    CaseError : the process was ended by the system.
    """
    try:
        return result()
    except BrokenProcessPool as error:
        problem = "the process that worked on this CT was ended by the system, usually for lack of memory"
        raise CaseError(problem, "try again with --jobs 1, or on a machine with more memory") from error


_AHEAD = 2  # cases handed out per process: bounds what waits in memory


class InOrder(Generic[Task, Result]):
    """Tasks worked on in other processes, some ahead of the caller; a context that ends them.

    A process that the system ends costs no task: the one that is waited for is tried again alone, the others
    go to new processes.

    Parameters
    ----------
    function : of a module, or a `partial` of one, so that other processes find it.
    crew : makes the processes, given how many.
    jobs : how many.
    waiting : most tasks that are handed out at a time; bounds what waits in memory.
    """

    def __init__(
        self, function: Callable[[Task], Result], crew: Callable[[int], Crew], *, jobs: int, waiting: int
    ) -> None:
        self._function, self._new_crew, self._jobs, self._most = function, crew, jobs, waiting
        self._crew: Crew | None = None
        self._waiting: deque[tuple[Task, Future[Result]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def each(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Callable[[], Result]]]:
        """Every task in order, with a function that waits for its result, or raises what that raised.

        That function raises `BrokenProcessPool` where the task's process was ended twice, the second time
        alone.
        """
        to_come = iter(tasks)
        while True:
            for task in islice(to_come, self._most - len(self._waiting)):
                self._waiting.append((task, self._submit(task)))
            if not self._waiting:
                return
            task, future = self._waiting.popleft()
            yield task, partial(self._result, task, future)

    def _submit(self, task: Task) -> Future[Result]:
        if self._crew is None:
            self._crew = self._new_crew(self._jobs)
        try:
            return self._crew.submit(self._function, task)
        except BrokenProcessPool as error:  # told where the task is waited for, and tried again
            future: Future[Result] = Future()
            future.set_exception(error)
            return future

    def _result(self, task: Task, future: Future[Result]) -> Result:
        try:
            return future.result()
        except BrokenProcessPool:
            self._stop()
        try:
            with self._new_crew(1) as alone:
                return alone.submit(self._function, task).result()
        finally:
            again = [task for task, _ in self._waiting]
            self._waiting = deque((task, self._submit(task)) for task in again)

    def _stop(self) -> None:
        if self._crew is not None:
            self._crew.stop()
            self._crew = None


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
    away = _elsewhere_now.get()
    if away is not None:
        jobs = away.workers
    if away is None and not apart and (jobs == 1 or len(tasks) < 2):
        with limited(threads) if tasks else nullcontext():
            for task in tasks:
                yield task, function(task)
        return
    count = min(jobs, len(tasks))
    with InOrder(
        function, lambda jobs: Crew(jobs, limit_threads, (threads,)), jobs=count, waiting=count * _AHEAD
    ) as crew:
        for task, result in crew.each(tasks):
            try:
                yield task, result()
            except BrokenProcessPool:
                yield task, lost(task)


def limit_threads(threads: int) -> None:
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
    away = _elsewhere_now.get()
    if away is not None:
        workers = away.workers
    count = min(available_cores() if workers is None else workers, len(jobs))
    done, total = 0.0, sum(job.weight for job in jobs)
    results: list[Any] = [None] * len(jobs)

    def finish(number: int, result: Any) -> None:
        nonlocal done
        results[number] = result
        done += jobs[number].weight
        if on_progress:
            on_progress(Progress(done, total, jobs[number].name))

    if (count <= 1 and away is None) or total < WORTH_A_PROCESS:
        for number, job in enumerate(jobs):
            finish(number, job.function(*job.arguments))
        return results
    heaviest_first = sorted(range(len(jobs)), key=lambda i: (-jobs[i].weight, i))
    with _one_thread_each(), Crew(count) as crew:
        futures = {crew.submit(jobs[i].function, *jobs[i].arguments): i for i in heaviest_first}
        for future in as_completed(futures):
            finish(futures[future], future.result())
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
