"""Cases on the workers of a Dask scheduler: one task a case, the networks loaded once in each worker.

A worker reads the CT from where the case says it lies, so the input must be on a folder that every worker
sees. What it makes comes back as the bytes of the case's files, which the client writes: results are the same
bytes as on one machine, and lie where the client wants them. Workers may come and go; the client may be
killed and started again, and goes on from the cases that are written.
"""

from __future__ import annotations

import io
import os
import platform
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final

from aiene.case_worker import Made, Order, make
from aiene.errors import CaseError, InputError, ModelError, UsageError
from aiene.extras import need
from aiene.ingest.case import Case
from aiene.models.bundle import Bundle, read_bundle, verify_bundle
from aiene.provenance import version

if TYPE_CHECKING:
    from distributed import Client, Future

_CONNECT_S: Final = 20
_AHEAD: Final = 3  # cases handed out per worker: none waits for work, and a kill of the client loses few
_KILLS_FORGIVEN: Final = 0
"""By Dask, which blames every case that a worker held when it ended: each is tried again here, alone."""


def versions() -> tuple[tuple[str, str], ...]:
    """What must be the same on the client and on a worker."""
    import torch

    return (("aiene", version()), ("python", platform.python_version()), ("torch", str(torch.__version__)))


@contextmanager
def connected(words: str, jobs: int) -> Iterator[Client]:
    """The client of the scheduler that `--scheduler` names.

    Parameters
    ----------
    words : `local`, `slurm`, the address of a scheduler (`tcp://HOST:8786`, `tls://...`), or a YAML file: the
        name of a class of `dask_jobqueue` as `cluster`, its options, and `jobs`, how many to ask for.
    jobs : workers of `local`; jobs of `slurm`.

    Raises
    ------
    MissingExtraError : the extra `cluster` is not installed.
    UsageError : nothing answers there, or the words name no scheduler.
    """
    distributed = need("distributed", extra="cluster", purpose="--scheduler")
    dask = need("dask", extra="cluster", purpose="--scheduler")
    dask.config.set({"distributed.scheduler.allowed-failures": _KILLS_FORGIVEN})
    with ExitStack() as stack:
        if "://" in words:
            address: Any = words
        elif words == "local":
            address = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=jobs, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
                )
            )
        else:
            address = stack.enter_context(_queued(words, jobs))
        try:
            client = stack.enter_context(
                distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(
                f"--scheduler {words}: no scheduler answers there; start one with `dask scheduler`, or mend "
                "the address."
            ) from error
        yield client


@contextmanager
def _queued(words: str, jobs: int) -> Iterator[Any]:
    """A cluster whose workers are jobs of a batch system."""
    options: dict[str, Any] = {"cluster": "SLURMCluster"} if words == "slurm" else _options(Path(words))
    jobqueue = need("dask_jobqueue", extra="cluster", purpose="Workers as jobs of a batch system")
    kind = getattr(jobqueue, str(options.pop("cluster", "")), None)
    if kind is None:
        raise UsageError(
            f"--scheduler {words}: `cluster` names no class of dask_jobqueue, such as SLURMCluster."
        )
    jobs = int(options.pop("jobs", jobs))
    with kind(**options) as cluster:
        cluster.scale(jobs=jobs)
        yield cluster


def _options(file: Path) -> dict[str, Any]:
    import yaml

    if file.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(
            f"--scheduler {file.name}: say local, slurm, an address such as tcp://HOST:8786, or a .yaml file."
        )
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(file, "it cannot be read as YAML", "mend it") from error
    if not isinstance(content, dict):
        raise InputError(file, "it holds no options", "give `cluster: SLURMCluster` and its options")
    return content


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

    def check(self, cases: list[Case]) -> int:
        """Look at every worker that is there before the first case goes out; how many there are.

        Raises
        ------
        UsageError : no worker came, one has other versions, or one does not see the input.
        """
        self._client.wait_for_workers(1, timeout=_CONNECT_S * 3)
        looked = self._client.run(_look, str(cases[0].files[0]), self._order, on_error="ignore")
        for found in looked.values():
            wrong = [
                f"{name} {theirs} instead of {ours}"
                for (name, ours), theirs in zip(self._order.versions, found["versions"], strict=True)
                if ours != theirs
            ]
            if wrong:
                raise UsageError(f"a worker has {', '.join(wrong)}; install the same versions everywhere.")
            if not found["sees_input"]:
                raise UsageError(
                    "a worker does not see the input; put it on a folder that is shared under one path."
                )
        if not all(found["sees_bundle"] for found in looked.values()):
            self._sent = self._client.scatter(_zipped(self._bundle))
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

        workers = max(1, len(self._client.scheduler_info()["workers"]))
        first = [submit(case) for case in islice(to_come, workers * _AHEAD)]
        running = as_completed(first, loop=self._client.loop)
        suspects = []
        for future in running:
            following = next(to_come, None)
            if following is not None:
                running.add(submit(following))
            case = out.pop(future)
            if _brought_down(future):
                suspects.append(case)
                future.release()
            else:
                yield case, partial(_result, future)
        for case in suspects:
            alone = submit(case)  # who asks for its result waits, before the next one is submitted
            yield out.pop(alone), partial(_result, alone)


def _brought_down(future: Future) -> bool:
    """Whether a worker ended while it held this case, which need not be at fault."""
    from distributed import KilledWorker

    return future.status == "error" and isinstance(future.exception(), KilledWorker)


def _result(future: Future) -> Made:
    from distributed import KilledWorker

    try:
        made: Made = future.result()
    except KilledWorker as error:
        raise CaseError(
            "2 workers ended while they were at this CT, as a rule for lack of memory",
            "give the workers more memory, or fewer tasks at a time",
        ) from error
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
    """What a worker is and sees."""
    return {
        "versions": [mine for _, mine in versions()],
        "sees_input": os.path.exists(file),  # noqa: PTH110 (a path of another machine's form may be odd)
        "sees_bundle": _is_bundle(Path(order.bundle_folder), order.bundle_sha256),
    }
