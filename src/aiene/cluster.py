"""The Dask scheduler that `--scheduler` names, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiene.errors import InputError, UsageError
from aiene.extras import need

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S: Final = 20
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
        else:
            address = stack.enter_context(_queued(words, jobs))
        try:
            client = stack.enter_context(distributed.Client(address, timeout=CONNECT_S, set_as_default=False))
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
