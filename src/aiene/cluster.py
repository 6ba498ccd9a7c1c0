"""The Dask scheduler that `--scheduler` names, a client of it, and its workers as a crew of `parallel`."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiene.device import available_cores
from aiene.errors import InputError, UsageError, file_name, joined, need, ours, said
from aiene.parallel import Elsewhere, elsewhere
from aiene.provenance import version
from aiene.results.atomic import make_folder

if TYPE_CHECKING:
    from distributed import Client

Result = TypeVar("Result")

CONNECT_S: Final = 20
WATCH_S, EMPTY_S = 2.0, 30.0
"""How often a local cluster is looked at, and how long it may lack workers: starting one takes 2 to 10 s."""
WORKER_S: Final = 60
_KILLS_FORGIVEN: Final = 0
"""By Dask, which blames every case that a worker held when it ended: each is tried again here, alone."""


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
            stack.enter_context(_never_empty(address, jobs))
        else:
            address = stack.enter_context(_queued(words, jobs))
        try:
            client = stack.enter_context(distributed.Client(address, timeout=CONNECT_S, set_as_default=False))
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(
                said(
                    "--scheduler {}: no scheduler answers there; start one with `dask scheduler`, or "
                    "correct the address.",
                    words,
                )
            ) from error
        yield client


@contextmanager
def _never_empty(cluster: Any, jobs: int) -> Iterator[None]:
    """Start workers anew where all have gone and none comes back, so that no task waits for ever.

    Each worker has a keeper that starts it again after it was ended; a keeper that fails at this gives up.
    """
    over = threading.Event()

    def watch() -> None:
        empty_since: float | None = None
        while not over.wait(WATCH_S):
            if cluster.scheduler_info["workers"]:
                empty_since = None
            elif empty_since is None:
                empty_since = time.monotonic()
            elif time.monotonic() - empty_since >= EMPTY_S:
                cluster.scale(0)
                cluster.scale(jobs)
                empty_since = None

    watcher = threading.Thread(target=watch, name="workers of the local cluster", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextmanager
def _queued(words: str, jobs: int) -> Iterator[Any]:
    options: dict[str, Any] = {"cluster": "SLURMCluster"} if words == "slurm" else _options(Path(words))
    jobqueue = need("dask_jobqueue", extra="cluster", purpose="Workers as jobs of a batch system")
    kind = getattr(jobqueue, str(options.pop("cluster", "")), None)
    if kind is None:
        raise UsageError(
            said("--scheduler {}: `cluster` names no class of dask_jobqueue, such as SLURMCluster.", words)
        )
    jobs = int(options.pop("jobs", jobs))
    with kind(**options) as cluster:
        cluster.scale(jobs=jobs)
        yield cluster


def _options(file: Path) -> dict[str, Any]:
    import yaml

    if file.suffix.lower() not in (".yaml", ".yml"):
        template = "--scheduler {}: use local, slurm, an address such as tcp://HOST:8786, or a .yaml file."
        raise UsageError(said(template, file_name(file)))
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(file, "it cannot be read as YAML", "correct it") from error
    if not isinstance(content, dict):
        raise InputError(file, "it holds no options", "give `cluster: SLURMCluster` and its options")
    return content


@contextmanager
def crews_of(
    words: str | None, jobs: int | None, *, sees: Sequence[Path | None] = (), writes: Path | None = None
) -> Iterator[None]:
    """Within it, `parallel` works on the workers of a scheduler: the same functions, the same results.

    Parameters
    ----------
    words, jobs : as for `connected`; where the words are None, this machine works. Jobs None: one a core.
    sees : folders that every worker must see.
    writes : folder that every worker must share; made if needed.

    Raises
    ------
    UsageError : nothing answers, no worker comes, or one has other versions or does not see a folder.
    """
    if words is None:
        yield
        return
    with connected(words, jobs or available_cores()) as client:
        await_worker(client)
        for theirs in client.run(plain_versions).values():
            refuse_versions(plain_versions(), theirs)
        for folder in (*sees, *([writes] if writes is not None else ())):
            if folder is not None:
                _refuse_unshared(client, folder, make=folder is writes)
        workers = max(1, len(client.nthreads()))
        with elsewhere(Elsewhere(lambda: _Pool(client), workers)):
            yield


def await_worker(client: Client) -> None:
    """Wait until a worker is there; as long as it takes where workers are jobs in a queue.

    Raises
    ------
    UsageError : none came in a minute.
    """
    queued = type(client.cluster).__module__.startswith("dask_jobqueue")
    try:
        client.wait_for_workers(1, timeout=None if queued else WORKER_S)
    except TimeoutError as error:
        raise UsageError(
            "the scheduler has no workers, and none came in a minute; start some with `dask worker`."
        ) from error


def plain_versions() -> tuple[tuple[str, str], ...]:
    """What must be the same here and on a worker, whatever it works on."""
    return (("aiene", version()), ("python", platform.python_version()))


def refuse_versions(here: tuple[tuple[str, str], ...], there: tuple[tuple[str, str], ...]) -> None:
    """Refuse a worker whose results might not be the same bytes.

    Raises
    ------
    UsageError : it has other versions, which are named.
    """
    wrong = [
        said("{} {} instead of {}", ours(name), ours(other), ours(own))
        for (name, own), (_, other) in zip(here, there, strict=True)
        if own != other
    ]
    if wrong:
        raise UsageError(said("a worker has {}; install the same versions everywhere.", joined(", ", wrong)))


def _refuse_unshared(client: Client, folder: Path, *, make: bool) -> None:
    """Refuse workers that do not see a folder as we do.

    Raises
    ------
    UsageError : so it is.
    """
    if make:
        make_folder(folder)
    here = folder.resolve()
    names = sorted(path.name for path in here.iterdir())[:1] if here.is_dir() else []
    if not all(client.run(_sees, str(here), names).values()):
        template = "a worker does not see the folder {}; put it on a disk that is shared under one path."
        raise UsageError(said(template, file_name(folder)))


def _sees(folder: str, names: list[str]) -> bool:
    there = Path(folder)
    return there.is_dir() and all((there / name).exists() for name in names)


class _Pool(Executor):
    """The workers of a scheduler, asked as a pool of processes is.

    A task whose worker ended is tried once more; then it is told as the processes' pool tells it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._out: set[Any] = set()

    def submit(self, function: Callable[..., Result], /, *arguments: Any, **named: Any) -> Future[Result]:
        """As any executor's."""
        result: Future[Result] = Future()
        self._try(result, partial(function, *arguments, **named), again=True)
        return result

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let go of what is not done."""
        for future in list(self._out):
            future.cancel()
        self._out.clear()

    def _try(self, result: Future[Result], task: Callable[[], Result], *, again: bool) -> None:
        from distributed import KilledWorker

        future = self._client.submit(task, pure=False)
        self._out.add(future)

        def settle(done: Any) -> None:
            self._out.discard(done)
            if done.status == "cancelled":
                result.cancel()
                return
            error = done.exception()
            if isinstance(error, KilledWorker) and again:
                self._try(result, task, again=False)
            elif isinstance(error, KilledWorker):
                result.set_exception(BrokenProcessPool("two workers ended while they were at this"))
            elif error is not None:
                result.set_exception(error)
            else:
                result.set_result(done.result())

        future.add_done_callback(settle)
