"""One training at a time in one folder."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from aiene.errors import UsageError
from aiene.results.atomic import writing
from aiene.rooms import try_lock

LOCK: Final = "in-use.json"
_PATIENCE_S: Final = 10.0
"""Its worker notices within a second that a killed training has gone, and may be writing a checkpoint."""


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a folder for this process, and for the processes that are given the descriptor.

    The system lets go of the lock when the last of them ends, however it ends: the file that is left behind
    says nothing then. Where the file system knows no locks, the process that the file names is looked up.

    Parameters
    ----------
    folder : must be there.

    Yields
    ------
    The descriptor that holds the lock.

    Raises
    ------
    UsageError : another process holds it.
    OutputError : the lock's file cannot be written.
    """
    file = folder / LOCK
    with writing(file):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        owner = _owner(descriptor)
        until = time.monotonic() + _PATIENCE_S
        while not _taken(descriptor, owner):
            if _is_alive(owner) or time.monotonic() > until:
                raise UsageError(
                    f"another training runs in {folder.name}{_said(owner)}; wait until it has ended, or "
                    "choose another -o."
                )
            time.sleep(0.2)
        with writing(file):
            _write(descriptor, {"process": os.getpid(), "host": socket.gethostname()})
        try:
            yield descriptor
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _taken(descriptor: int, owner: dict[str, Any]) -> bool:
    had = try_lock(descriptor)
    return not _is_alive(owner) if had is None else had  # without locks the process id alone tells


def _is_alive(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote the file may still run; of another computer nobody can say."""
    number = owner.get("process")
    if not isinstance(number, int) or number <= 0:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _owner(descriptor: int) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        content = json.loads(os.read(descriptor, 4096))
        if isinstance(content, dict):
            return content
    return {}


def _write(descriptor: int, content: dict[str, Any]) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(content).encode())


def _said(owner: dict[str, Any]) -> str:
    if "process" not in owner:
        return ""
    here = owner.get("host") == socket.gethostname()
    return f" (process {owner['process']}{'' if here else ' on ' + str(owner.get('host'))})"
