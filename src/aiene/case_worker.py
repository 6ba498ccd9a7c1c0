"""Whole cases in processes of their own: the networks loaded once in each, results as the bytes of files.

The same function works in the processes of this machine and in the workers of a Dask scheduler, so there is
one way of working a case apart, and its bytes are those of a case worked in this process: nothing in it
depends on the number of threads.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from aiene.device import available_cores, keep_freed_memory, resolve_device
from aiene.hashing import digest
from aiene.ingest.case import Case
from aiene.models.bundle import Bundle
from aiene.parallel import Crew, InOrder, limit_threads
from aiene.pipeline import Networks, Settings, infer_case, load_networks, preprocess_case
from aiene.preparers import unless_ended
from aiene.preprocess.template import Preparation, load_preparation
from aiene.results.records import CaseResult
from aiene.results.store import CaseFiles, case_files

_GIB: Final = 2**30
_CASE_BYTES: Final = 3 * _GIB
"""Memory that a process takes for a CT of thin slices, with the networks; see `docs/scale.md`."""
_AHEAD: Final = 1  # cases handed out per process beyond that in work


@dataclass(frozen=True)
class Order:
    """What all cases of a run have in common.

    Parameters
    ----------
    bundle_folder, bundle_sha256 : the bundle; where a worker does not see the folder, it is sent.
    device : as for `resolve_device`, asked for on the worker.
    own_masks : no segmenter is needed.
    versions : of the client; a worker of others would not give the same bytes.
    """

    bundle_folder: str
    bundle_sha256: str
    settings: Settings
    device: str
    own_masks: bool
    versions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Made:
    """What a worker made of a case.

    Parameters
    ----------
    files : content of the case's images by name.
    engine : what computed the segmenter; None where there was none.
    worker : name of the process: its machine and number.
    seconds : that it took, loading the networks included.
    peak_mb : most memory that the process has held so far; None where the system does not say.
    """

    result: CaseResult
    files: CaseFiles
    engine: str | None = None
    worker: str = ""
    seconds: float = 0.0
    peak_mb: int | None = None


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a process keeps from one case to the next."""

    preparation: Preparation
    networks: Networks
    bundle: Bundle


def cases_at_once(jobs: int | None) -> int:
    """How many cases to work on side by side.

    Parameters
    ----------
    jobs : the user's choice; None: one a core, as far as the memory reaches.
    """
    return jobs or max(1, min(available_cores(), psutil.virtual_memory().available // _CASE_BYTES))


def load(bundle: Bundle, order: Order) -> Loaded:
    """Template and networks of a run.

    Raises
    ------
    ModelError : the bundle cannot be used.
    """
    networks = load_networks(
        bundle,
        resolve_device(order.device),
        own_masks=order.own_masks,
        operating_point=order.settings.operating_point,
        engine=order.settings.engine,
    )
    return Loaded(load_preparation(bundle, order.settings.registration), networks, bundle)


_loaded: dict[str, Loaded] = {}  # of this process


def kept(order: Order, bundle: Callable[[], Bundle]) -> Loaded:
    """What this process has loaded for a run, which is loaded at its first case."""
    key = digest(
        [
            order.bundle_sha256,
            order.device,
            order.own_masks,
            order.settings.operating_point,
            order.settings.engine,
            order.settings.registration,
        ]
    )
    if key not in _loaded:
        found = load(bundle(), order)
        _loaded.clear()  # the networks of an earlier run with other settings
        _loaded[key] = found
    return _loaded[key]


def make(case: Case, order: Order, bundle: Callable[[], Bundle], room: Path | None = None) -> Made:
    """One case, from its files to the content of its results.

    Parameters
    ----------
    bundle : gives the bundle, where it is not loaded yet.
    room : where zip archives are unpacked; None is the system's place for temporary files.

    Raises
    ------
    AieneError : as `preprocess_case`; a ModelError where the bundle is not to be had.
    """
    began = time.monotonic()
    loaded = kept(order, bundle)
    settings, segmenter = order.settings, loaded.networks.segmenter
    result, arrays = infer_case(
        preprocess_case(case, loaded.preparation, settings.masks, room=room),
        loaded.networks,
        settings,
        labels=loaded.bundle.card.labels,
        midline_x=loaded.preparation.midline_x,
    )
    files = case_files(arrays)
    return Made(
        result,
        files,
        None if segmenter is None else segmenter.engine.name,
        f"{platform.node()}:{os.getpid()}",
        round(time.monotonic() - began, 3),
        _peak_mb(),
    )


def _peak_mb() -> int | None:
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class CaseWorkers:
    """Whole cases in `jobs` processes of this machine. A context manager: leaving it ends the processes.

    Parameters
    ----------
    bundle : of the run, verified.
    order : what its cases have in common.
    room : where zip archives are unpacked.
    """

    def __init__(self, bundle: Bundle, order: Order, jobs: int, *, room: Path | None = None) -> None:
        self._workers = InOrder(
            partial(_make_here, order=order, bundle=bundle, room=room),
            lambda count: Crew(count, _start, (max(1, available_cores() // count),)),
            jobs=jobs,
            waiting=jobs * (1 + _AHEAD),
        )

    def __enter__(self) -> CaseWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.__exit__()

    def each(self, cases: Sequence[Case]) -> Iterator[tuple[Case, Callable[[], Made]]]:
        """Every case in order, with a function that waits for what was made of it, or raises its error."""
        for case, result in self._workers.each(cases):
            yield case, partial(unless_ended, result)


def _start(threads: int) -> None:
    keep_freed_memory()
    limit_threads(threads)


def _make_here(case: Case, order: Order, bundle: Bundle, room: Path | None) -> Made:
    return make(case, order, lambda: bundle, room)
