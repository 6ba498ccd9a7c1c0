"""Worker processes that end with the process they work for, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

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
        with _interrupts_for_us_alone():
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
