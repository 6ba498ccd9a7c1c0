"""nnU-Net's process: started on the right device, and never left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from aiene.errors import ModelError, OutputError
from aiene.results.atomic import write_bytes, writing
from aiene.training.nnunet import MARK, TIED, Job

_POSIX: Final = os.name == "posix"
_GRACE_S: Final = 10.0
"""For a worker that was asked to end; a checkpoint is whole or not there, so it may be killed after that."""
_NO_ROOM: Final = ("No space left", "Disk quota", "PytorchStreamWriter failed", "the disk is full")


def run_worker(job: Job, work: Path, device: str, lock: int) -> Generator[dict[str, Any], None, None]:
    """What the worker reports, line by line; its own words go to a log.

    It and the helpers that it starts are a process group of their own, which ends with this generator, with
    this process, and where the worker itself fails.

    Parameters
    ----------
    job : what it is to do.
    work : its folder.
    device : cpu, mps, cuda or cuda:N.
    lock : descriptor that holds `work`; the worker holds it too, so that nobody comes in before it has ended.

    Raises
    ------
    ModelError, OutputError : it failed.
    """
    file, log = work / "job.json", work / "nnunet.log"
    write_bytes(file, job.to_json().encode())
    folders = {name: str(work / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    environment = {
        **os.environ,
        **folders,
        **visible_gpu(device, os.environ),
        "nnUNet_n_proc_DA": str(max(1, job.processes)),  # the planner takes no 0
        "nnUNet_def_n_proc": str(max(1, job.processes)),
        "nnUNet_compile": "f",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    line = [sys.executable, "-m", "aiene.training.nnunet", str(file), TIED, str(os.getpid())]
    with writing(log):
        words = log.open("a", encoding="utf-8", buffering=1)  # whole also after a kill
    with words:
        process = subprocess.Popen(
            line,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=_POSIX,
            pass_fds=(lock,) if _POSIX else (),
        )
        watch = threading.Thread(target=_end_helpers_after, args=(process,), daemon=True)
        watch.start()
        try:
            for said in process.stdout or ():
                if said.startswith(MARK):
                    yield json.loads(said.removeprefix(MARK))
                else:
                    with writing(log):
                        words.write(said)
            process.wait()
        finally:
            _end(process)
            watch.join(_GRACE_S)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
    if process.returncode:
        raise failure(log, process.returncode)


def visible_gpu(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment that makes `cuda:N` the only GPU, since nnU-Net takes the first that it sees.

    Parameters
    ----------
    device : cpu, mps, cuda or cuda:N, where N counts the GPUs that this process sees.
    environment : of this process.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number:
        return {}
    seen = environment.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in seen.split(",")] if seen else []
    return {"CUDA_VISIBLE_DEVICES": names[int(number)] if int(number) < len(names) else number}


def failure(log: Path, code: int) -> ModelError | OutputError:
    """What to tell where the worker ended with a code other than 0."""
    tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    if any(said in tail for said in _NO_ROOM):
        return OutputError(log.parent, "the disk is full", "free some space, and continue with --continue")
    if "Read-only file system" in tail:
        return OutputError(log.parent, "the file system is read-only", "choose another folder with -o")
    if "out of memory" in tail or code == -signal.SIGKILL.value:
        return OutputError(log.parent, "the training ran out of memory", "lower --gpu-memory")
    return ModelError(
        log, f"nnU-Net ended with code {code}", "read the end of that log, and continue with --continue"
    )


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the worker to end, then make it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            process.wait()


def _end_helpers_after(process: subprocess.Popen[str]) -> None:
    """Helpers of a worker that has ended would hold its output open, and wait for ever."""
    process.wait()
    _kill_group(process)


def _kill_group(process: subprocess.Popen[str]) -> None:
    if _POSIX:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
