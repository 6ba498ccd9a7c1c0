"""Cases prepared side by side in other processes, a few ahead of the networks.

For networks on a GPU: they stay in the calling process, loaded once, and the machine's cores prepare what
they take next. A registration runs on one core, so that it repeats bit for bit. Without a GPU a process does
the whole case (`case_worker`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from aiene.device import available_cores, keep_freed_memory
from aiene.ingest.case import Case
from aiene.models.bundle import Bundle
from aiene.parallel import Crew, InOrder, unless_ended
from aiene.pipeline import PreprocessedCase, preprocess_case
from aiene.preprocess.preprocess import Preparation, load_preparation
from aiene.preprocess.profile import Grade

GetPreprocessed = Callable[[], PreprocessedCase]
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
    registration : see `load_preparation`.
    """

    def __init__(
        self,
        bundle: Bundle,
        masks: Path | None,
        jobs: int,
        *,
        room: Path | None = None,
        registration: Grade = "exact",
    ) -> None:
        self._masks, self._jobs, self._room = masks, jobs, room
        self._workers = InOrder(
            partial(_preprocess_here, masks=masks, room=room),
            lambda count: Crew(count, _start, (bundle, registration, max(1, available_cores() // count))),
            jobs=jobs,
            waiting=jobs + _CASES_AHEAD,
        )

    def __enter__(self) -> Preparers:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.__exit__()

    def each(self, cases: Sequence[Case], preparation: Preparation) -> Iterator[tuple[Case, GetPreprocessed]]:
        """Every case with a function that waits for its preparation, or raises what that raised."""
        if self._jobs == 1:
            for case in cases:
                yield case, partial(preprocess_case, case, preparation, self._masks, room=self._room)
            return
        for case, result in self._workers.each(cases):
            yield case, partial(unless_ended, result)


def _start(bundle: Bundle, registration: Grade, threads: int) -> None:
    global _preparation
    keep_freed_memory()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    _preparation = load_preparation(bundle, registration)


def _preprocess_here(case: Case, masks: Path | None, room: Path | None) -> PreprocessedCase:
    if _preparation is None:
        raise RuntimeError("a worker process without its preparation")
    return preprocess_case(case, _preparation, masks, room=room)
