"""Whole cases in processes of their own: the networks loaded once in each, results as the bytes of files.

The same function works in the processes of this machine and in the workers of a Dask scheduler, so there is
one way of working a case apart, and its bytes are those of a case worked in this process: nothing in it
depends on the number of threads.

A worker of a scheduler reads the CT from where the case says it lies, so the input must be on a folder that
every worker sees. What it makes comes back to the client, which writes it: results lie where the client wants
them. Workers may come and go; the client may be killed and started again, and goes on from the cases that are
written.
"""

from __future__ import annotations

import io
import math
import os
import platform
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final

import psutil
import SimpleITK as sitk

from aiene import cluster
from aiene.device import available_cores, keep_freed_memory, resolve_device
from aiene.errors import CaseError, ModelError, UsageError
from aiene.hashing import digest
from aiene.ingest.case import Case
from aiene.models.bundle import Bundle, read_bundle, verify_bundle
from aiene.parallel import Crew, InOrder, Result, limit_threads, unless_ended
from aiene.pipeline import Networks, PreprocessedCase, Settings, infer_case, load_networks, preprocess_case
from aiene.preprocess.preprocess import Preparation, load_preparation
from aiene.preprocess.profile import Grade
from aiene.results.records import CaseResult
from aiene.results.store import CaseFiles, case_files

if TYPE_CHECKING:
    from distributed import Client, Future


_GIB: Final = 2**30
_CASE_BYTES: Final = 3 * _GIB
"""Memory that a process takes for a CT of thin slices, with the networks; see `docs/scale.md`."""
_AHEAD: Final = 3  # cases handed out per process beyond that in work: one slow case holds up few others
_COUNT_EVERY_S: Final = 1.0
_AHEAD_THERE: Final = 3  # per worker of a scheduler: none waits for work, and a kill of the client loses few


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
    worker : name of the process: a hash of its machine's name, and its number there.
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


def order_of(bundle: Bundle, settings: Settings, device: str, *, own_masks: bool) -> Order:
    """What all cases of a run have in common; `own_masks` where no case needs a segmenter."""
    return Order(str(bundle.path.resolve()), bundle.sha256, settings, device, own_masks, versions())


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


_loaded: dict[Order, Loaded] = {}  # of this process


def kept(order: Order, bundle: Callable[[], Bundle]) -> Loaded:
    """What this process has loaded for a run, which is loaded at its first case."""
    if order not in _loaded:
        found = load(bundle(), order)
        _loaded.clear()  # the networks of an earlier run
        _loaded[order] = found
    return _loaded[order]


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
        f"{digest(platform.node())[:6]}:{os.getpid()}",
        round(time.monotonic() - began, 3),
        _peak_mb(),
    )


def _peak_mb() -> int | None:
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class _CasesInOrder(InOrder[Case, Result]):
    def each(self, tasks: Iterable[Case]) -> Iterator[tuple[Case, Callable[[], Result]]]:
        """Every case with a function that waits for what was made of it, or raises its error."""
        for case, result in super().each(tasks):
            yield case, partial(unless_ended, result)


class CaseWorkers(_CasesInOrder[Made]):
    """Whole cases in `jobs` processes of this machine. A context manager: leaving it ends the processes.

    Parameters
    ----------
    bundle : of the run, verified.
    order : what its cases have in common.
    room : where zip archives are unpacked.
    """

    def __init__(self, bundle: Bundle, order: Order, jobs: int, *, room: Path | None = None) -> None:
        super().__init__(
            partial(_make_here, order=order, bundle=bundle, room=room),
            lambda count: Crew(count, _start, (max(1, available_cores() // count),)),
            jobs=jobs,
            waiting=jobs * (1 + _AHEAD),
        )


def _start(threads: int) -> None:
    keep_freed_memory()
    limit_threads(threads)


def _make_here(case: Case, order: Order, bundle: Bundle, room: Path | None) -> Made:
    return make(case, order, lambda: bundle, room)


def versions() -> tuple[tuple[str, str], ...]:
    """What must be the same on the client and on a worker."""
    import torch

    return (*cluster.plain_versions(), ("torch", str(torch.__version__)))


class ClusterWork:
    """The cases of a run on the workers of a scheduler.

    Parameters
    ----------
    client : of the scheduler.
    bundle : of the run.
    order : what its tasks have in common.
    """

    def __init__(self, client: Client, bundle: Bundle, order: Order) -> None:
        self._client, self._bundle, self._order = client, bundle, order
        self._sent: Any = None
        self._workers, self._counted_at = 1, -math.inf

    def check(self, cases: list[Case]) -> int:
        """Look at every worker that is there before the first case goes out; how many there are.

        Raises
        ------
        UsageError : no worker came, one has other versions, or one does not see the input.
        """
        cluster.await_worker(self._client)
        looked = self._client.run(_look, str(cases[0].files[0]), self._order, on_error="ignore")
        for found in looked.values():
            cluster.refuse_versions(self._order.versions, found["versions"])
            if not found["sees_input"]:
                raise UsageError(
                    "a worker does not see the input; put it on a folder that is shared under one path."
                )
        if not all(found["sees_bundle"] for found in looked.values()):
            self._sent = self._client.scatter(_zipped(self._bundle), broadcast=True)
        return len(looked)

    def each(self, cases: Iterable[Case]) -> Iterator[tuple[Case, Callable[[], Made]]]:
        """Every case when it is done, with a function that gives its result, or raises what that raised."""
        from distributed import as_completed

        to_come = iter(cases)
        out: dict[Future, Case] = {}

        def submit(case: Case) -> Future:
            future = self._client.submit(work, case, self._order, self._sent, pure=False)
            out[future] = case
            return future

        running = as_completed(loop=self._client.loop)

        def fill() -> None:
            """Hand out cases for the workers that are there by now."""
            for case in islice(to_come, max(0, self._wanted() - len(out))):
                running.add(submit(case))

        fill()
        suspects = []
        for future in running:
            case = out.pop(future)
            fill()
            if _brought_down(future):
                suspects.append(case)
                future.release()
            else:
                yield case, partial(_result, future)
        for case in suspects:
            alone = submit(case)  # who asks for its result waits, before the next one is submitted
            yield out.pop(alone), partial(_result, alone)

    def _wanted(self) -> int:
        """How many cases to have out; workers come and go, and are counted once a second."""
        if time.monotonic() - self._counted_at >= _COUNT_EVERY_S:
            self._workers = max(1, len(self._client.nthreads()))
            self._counted_at = time.monotonic()
        return self._workers * _AHEAD_THERE


def _brought_down(future: Future) -> bool:
    """Whether a worker ended while it held this case, which need not be at fault."""
    from distributed import KilledWorker

    return future.status == "error" and isinstance(future.exception(), KilledWorker)


def _result(future: Future) -> Made:
    from distributed import KilledWorker

    try:
        made: Made = future.result()
    except KilledWorker as error:
        problem = "2 workers ended while processing this CT, usually for lack of memory"
        raise CaseError(problem, "give the workers more memory, or fewer tasks at a time") from error
    finally:
        future.release()
    return made


# On the worker.


def work(case: Case, order: Order, sent: bytes | None) -> Made:
    """One case, on a worker.

    Raises
    ------
    AieneError : as `preprocess_case`; a ModelError where the bundle is not to be had.
    """
    _use_own_cores()
    return make(case, order, lambda: _bundle(order, sent))


def _bundle(order: Order, sent: bytes | None) -> Bundle:
    """The bundle where the client has it, or as it was sent; the same to the last byte."""
    folder = Path(order.bundle_folder)
    if not _is_bundle(folder, order.bundle_sha256):
        if sent is None:
            raise ModelError(folder, "this worker does not see the bundle", "share its folder")
        folder = Path(gettempdir()) / f"aiene-{os.getpid()}-{order.bundle_sha256[:16]}"
        with zipfile.ZipFile(io.BytesIO(sent)) as archive:
            archive.extractall(folder)
    bundle = read_bundle(folder)
    verify_bundle(bundle)
    return bundle


def _is_bundle(folder: Path, sha256: str) -> bool:
    try:
        return read_bundle(folder).sha256 == sha256
    except ModelError:
        return False


def _zipped(bundle: Bundle) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("model.json", *bundle.card.files):
            archive.write(bundle.path / name, name)
    return stream.getvalue()


def _use_own_cores() -> None:
    """Keep libraries to the threads that the worker was given, so that workers of one machine share it."""
    import SimpleITK as sitk
    import torch
    from distributed import get_worker

    threads = get_worker().state.nthreads
    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def _look(file: str, order: Order) -> dict[str, Any]:
    return {
        "versions": versions(),
        "sees_input": os.path.exists(file),  # noqa: PTH110 (a path of another machine's form may be odd)
        "sees_bundle": _is_bundle(Path(order.bundle_folder), order.bundle_sha256),
    }


GetPreprocessed = Callable[[], PreprocessedCase]
_CASES_AHEAD = 1  # prepared cases that wait for the networks, beyond those in work: bounds the memory

_preparation: Preparation | None = None  # of a worker process, loaded once


class Preparers(_CasesInOrder[PreprocessedCase]):
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
        self._masks, self._room = masks, room
        super().__init__(
            partial(_preprocess_here, masks=masks, room=room),
            lambda count: Crew(
                count, _start_preparers, (bundle, registration, max(1, available_cores() // count))
            ),
            jobs=jobs,
            waiting=jobs + _CASES_AHEAD,
        )

    def prepared(
        self, cases: Iterable[Case], preparation: Preparation
    ) -> Iterator[tuple[Case, GetPreprocessed]]:
        """Every case with a function that waits for its preparation, or raises what that raised."""
        if self._jobs > 1:
            yield from self.each(cases)
            return
        for case in cases:
            yield case, partial(preprocess_case, case, preparation, self._masks, room=self._room)


def _start_preparers(bundle: Bundle, registration: Grade, threads: int) -> None:
    global _preparation
    keep_freed_memory()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    _preparation = load_preparation(bundle, registration)


def _preprocess_here(case: Case, masks: Path | None, room: Path | None) -> PreprocessedCase:
    if _preparation is None:
        raise RuntimeError("a worker process without its preparation")
    return preprocess_case(case, _preparation, masks, room=room)
