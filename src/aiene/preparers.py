"""Preparing cases side by side in other processes, a few ahead of the networks.

A registration runs on one core, so that it repeats bit for bit; several cases fill a machine. The networks
stay in the calling process: they are loaded once, and their result does not depend on how many processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from aiene.device import available_cores
from aiene.errors import CaseError
from aiene.ingest import Case
from aiene.models.bundle import Bundle
from aiene.orphans import Crew
from aiene.pipeline import Preparation, Ready, load_preparation, ready

GetReady = Callable[[], Ready]
_AHEAD = 1  # prepared cases that wait for the networks, beyond those in work: bounds the memory

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
        while len(self._waiting) < self._jobs + _AHEAD:
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
