"""A file to send with a report of a fault: what was found, versions and the machine; no patient data."""

from __future__ import annotations

import json
import os
import platform
import re
import zipfile
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from aiene.doctor.machine import Diagnosis, installed
from aiene.errors import OutputError
from aiene.pacs.config import Settings
from aiene.pacs.http import open_queue
from aiene.provenance import machine
from aiene.results.atomic import write_bytes

_TELLING: Final = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "AIENE_CONTAINER",
)
"""Variables whose values say nothing of a person or a place; others are told as set or not."""

_SET_OR_NOT: Final = ("AIENE_MODELS", "TMPDIR", "HF_HOME", "PYTHONPATH")
_READ_ME: Final = """\
What aiene doctor found, for a report of a fault. Look at it before you send it.
It holds no images, no names or ids of patients, no UIDs, no paths, and no words of your own files.
"""


def write_report(file: Path, found: Diagnosis, settings: Settings | None = None) -> list[str]:
    """Write the ZIP; the names of what is in it.

    Parameters
    ----------
    settings : of a listener; the states of its studies are told by count and by what kind of reason.

    Raises
    ------
    OutputError : it is there already, or cannot be written.
    """
    if file.exists():
        raise OutputError(file, "a file of this name exists", "choose another name with --bundle")
    parts: dict[str, Any] = {
        "doctor.json": _without_places(found.to_json()),
        "machine.json": {**machine("cpu"), "kernel": platform.release()},
        "packages.json": installed(),
        "environment.json": {name: os.environ.get(name) for name in _TELLING}
        | {name: "set" if name in os.environ else None for name in _SET_OR_NOT},
    }
    if settings is not None:
        parts["listener.json"] = _listener(settings)
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", _READ_ME + f"Made {datetime.now(UTC):%Y-%m-%d}.\n")
        for name, content in parts.items():
            archive.writestr(name, json.dumps(content, indent=2, ensure_ascii=True, default=str))
    write_bytes(file, stream.getvalue(), private=True)
    return ["README.txt", *parts]


def _listener(settings: Settings) -> dict[str, Any]:
    queue = open_queue(settings.store)
    try:
        studies, counters = queue.studies(), queue.counters()
    finally:
        queue.close()
    plain = settings.model_dump(
        mode="json",
        include={"settle_s", "broken_off_wait_s", "keep_days", "give_up_after_h", "export", "run"},
    )
    return {
        "settings": {
            **plain,
            "run": {**plain["run"], "model": "named" if plain["run"]["model"] != "default" else "default"},
        },
        "counters": counters,
        "studies": [
            {
                "state": s.state,
                "series": s.series,
                "images": s.images,
                "seconds": round(s.seconds, 1),
                "tries": s.tries,
                "reason": _plain(s.reason),
            }
            for s in studies
        ],
    }


_HOST: Final = re.compile(r"\S+@\S+:\d+|https?://\S+")
_PATH: Final = re.compile(r"(?:~|[A-Za-z]:)?[/\\][^\s,;:()]+")
_NAME: Final = re.compile(r"[\w.~-]+(?=: )")
_UID: Final = re.compile(r"\d+(?:\.\d+){3,}")


def _plain(text: str) -> str:
    """A sentence of ours without addresses, paths, UIDs, and names before a colon."""
    for pattern, word in ((_HOST, "PEER"), (_UID, "UID"), (_PATH, "PATH"), (_NAME, "NAME")):
        text = pattern.sub(word, text)
    return text


def _without_places(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_places(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_places(value) for value in content]
    return _plain(content) if isinstance(content, str) else content
