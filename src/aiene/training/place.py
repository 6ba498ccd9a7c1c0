"""Where a training writes: the bundle's folder and the work beside it.

One training at a time, and nothing that is not ours is touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from aiene.errors import ModelError, UsageError
from aiene.models.bundle import CARD, NAME, Bundle, read_bundle, verify_bundle
from aiene.results.atomic import make_folder, try_lock, write_json, writing

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
        while True:
            had = try_lock(descriptor)
            if not _is_alive(owner) if had is None else had:  # without locks the process id alone tells
                break
            if _is_alive(owner) or time.monotonic() > until:
                raise UsageError(
                    f"another training runs in {folder.name}{_said(owner)}; wait until it has ended, or "
                    "choose another -o."
                )
            time.sleep(0.2)
        with writing(file):
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode())
        try:
            yield descriptor
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


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


def _said(owner: dict[str, Any]) -> str:
    if "process" not in owner:
        return ""
    here = owner.get("host") == socket.gethostname()
    return f" (process {owner['process']}{'' if here else ' on ' + str(owner.get('host'))})"


NOTICE: Final = "Weights of your own training: judge them on your own data before you rely on them."
"""Stands on the card of every bundle that a training wrote, and on no other: it marks what is ours."""

TAKEN_FROM: Final = "taken_from"
"""Among the facts of a network that came with the bundle that a training began with."""

_ASIDE: Final = "bundle.replaced"

MARKER: Final = "aiene-training.json"
"""In every folder that a training makes for its work; a folder without it is somebody else's."""


def work_folder(out: Path) -> Path:
    """Where the crops, the dataset, the checkpoints and the logs of a training lie."""
    return out.with_name(f"{out.name}.training")


def whole_path(out: Path) -> Path:
    """The folder that `-o` names, with the links above it resolved, but not one that it is itself."""
    return out.resolve() if out.name in ("", "..") else out.parent.resolve() / out.name


def check_name(out: Path) -> None:
    """Refuse what no bundle can be called, and a link.

    Raises
    ------
    UsageError : so it is.
    """
    if not re.fullmatch(NAME, out.name):
        raise UsageError(
            f"{out.name or out} cannot be a bundle's name; use letters, digits, dots and dashes."
        )
    for path in (out, work_folder(out)):
        if path.is_symlink():
            raise UsageError(f"{path.name} is a link; name a folder of its own with -o.")


def claim(folder: Path) -> None:
    """Make a folder ours, with all that is in it.

    Raises
    ------
    UsageError : something lies there that no training made.
    OutputError : it cannot be made.
    """
    check_claim(folder)
    make_folder(folder)
    if not (folder / MARKER).is_file():
        write_json(folder / MARKER, {"made_by": "aiene train", "content": "work of a training"})


def check_claim(folder: Path) -> None:
    """Refuse a folder for our work that holds somebody else's.

    Raises
    ------
    UsageError : so it does.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder.name} is a link or a file; move it away, or choose another -o.")
    if folder.is_dir() and not (folder / MARKER).is_file() and any(folder.iterdir()):
        raise UsageError(
            f"{folder.name} holds files, but was not made by aiene train; move it away, or choose another -o."
        )


def bundle_at(out: Path) -> Bundle | None:
    """The bundle of an earlier training that lies at `-o`; None where nothing lies there.

    Raises
    ------
    UsageError : something else lies there.
    ModelError : the bundle has changed since it was written.
    """
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return None
    remedy = "choose another -o"
    if not out.is_dir() or out.is_symlink() or not (out / CARD).is_file():
        raise UsageError(
            f"{out.name} exists and is not a model bundle, so nothing in it is replaced; {remedy}."
        )
    try:
        bundle = read_bundle(out)
    except ModelError as error:
        raise UsageError(f"{out.name} exists, and its {CARD} is not a model card; {remedy}.") from error
    if bundle.card.notice != NOTICE:
        raise UsageError(
            f"{out.name} is a bundle that aiene train did not make, so it is not replaced; start from it "
            f"with --from, and {remedy}."
        )
    verify_bundle(bundle)
    return bundle


def check_not_trained(bundle: Bundle | None, which: str, training: str) -> None:
    """Refuse to replace a network that another training put into the bundle.

    Parameters
    ----------
    bundle : what lies at `-o`.
    which : `segmenter` or `classifier`.
    training : identity of this training; its own earlier result may be replaced.

    Raises
    ------
    UsageError : the network there is of another training.
    """
    facts: Any = bundle.card.provenance.get(which) if bundle else None
    if bundle is not None and isinstance(facts, dict) and TAKEN_FROM not in facts:
        if facts.get("training") == training:
            return
        raise UsageError(
            f"{bundle.path.name} holds a {which} of another training already, which is not replaced; choose "
            "another -o, or remove that folder."
        )


def put_bundle(made: Path, out: Path) -> None:
    """A complete bundle in the place of one of ours, which is only removed once the new one is there.

    Raises
    ------
    OutputError : it cannot be put there; what was there stays.
    """
    aside = work_folder(out) / _ASIDE
    with writing(out):
        shutil.rmtree(aside, ignore_errors=True)
        if out.is_dir():
            out.rename(aside)
        try:
            made.rename(out)
        except OSError:
            if aside.is_dir():
                aside.rename(out)
            raise
    shutil.rmtree(aside, ignore_errors=True)


def restore_bundle(out: Path) -> None:
    """Put back what a kill left out, in the moment between the old bundle's going and the new one's coming.

    Raises
    ------
    UsageError : another training is at work there.
    OutputError : it cannot be put there.
    """
    work = work_folder(out)
    if (work / _ASIDE).is_dir() and not os.path.lexists(out):
        with locked(work), writing(out):
            (work / _ASIDE).rename(out)
