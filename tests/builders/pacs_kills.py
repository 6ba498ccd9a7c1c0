"""A listener that is killed again and again while studies come, and what is there in the end."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from aiene.export.run import export_run
from aiene.pacs.config import Settings
from aiene.pacs.http import open_queue
from aiene.pacs.queue import Study
from builders.export_runs import write_run
from builders.orthanc import Orthanc
from builders.pacs_site import calling, oblique_series, settings_for, uid_of_study, until

HERE = Path(__file__).resolve().parents[1]
_SERVE = """
import sys
from pathlib import Path
from builders.pacs_light import {work}
from aiene.pacs.config import Settings
from aiene.pacs.service import Service
if __name__ == "__main__":
    settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())
    Service(settings, work={work}).run(lambda where: print(where, flush=True))
"""


@dataclass(frozen=True)
class Kills:
    """What a trial ended with.

    Parameters
    ----------
    states : of the studies at each kill.
    arrived, expected : objects in the archive and of an undisturbed run, by study: SOP instance UIDs, each
        with the hash of all that the object holds but dates and times.
    failed : the reason of each study that failed.
    """

    kills: int
    states: tuple[str, ...]
    arrived: dict[str, list[str]]
    expected: dict[str, list[str]]
    failed: dict[str, str]


class Listener:
    """A listener in a process of its own, which can be killed."""

    def __init__(self, folder: Path, settings: Settings, work: str = "planted_work") -> None:
        self._file, self._log = folder / "settings.json", folder / "listener.log"
        self._file.write_text(settings.model_dump_json())
        (folder / "serve.py").write_text(_SERVE.format(work=work))
        self._words = [sys.executable, "-W", "ignore", str(folder / "serve.py"), str(self._file)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        path = os.pathsep.join([str(HERE), str(HERE.parent / "src")])
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._words, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": path}
            )
        until(self.answers, "the listener", 120)

    def answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-3000:]
        with calling() as found:
            return bool(found.is_established and found.send_c_echo().Status == 0)

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def trial(folder: Path, archive: Orthanc, *, studies: int, kills: int, seed: int, longest_s: float) -> Kills:
    """Send some studies, kill the listener at random moments meanwhile, and let it come to an end.

    The studies start one after the other, spread over the kills, so that each kill meets work.
    """
    peers: dict[str, Any] = {"archive": {"ae_title": "ORTHANC", "port": 4242}}
    settings = settings_for(folder / "store", send_to=["archive"], peers=peers)
    series = [oblique_series(folder / f"ct{n}", f"killed{n}") for n in range(studies)]
    expected = {
        uid_of_study(files): _undisturbed(folder / f"plain{n}", files) for n, files in enumerate(series)
    }
    listener, choose, states = Listener(folder, settings), random.Random(seed), []
    starts = [threading.Event() for _ in series]
    sender = threading.Thread(target=_send_all, args=(series, starts), daemon=True)
    listener.start()
    sender.start()
    for number in range(kills):
        for start in starts[: 1 + number * studies // kills]:
            start.set()
        time.sleep(choose.uniform(0.0, longest_s))
        listener.kill()
        states.append(",".join(sorted(_states(settings).values())))
        listener.start()
    for start in starts:
        start.set()
    sender.join(timeout=600)
    assert not sender.is_alive()
    until(
        lambda: len(now := _states(settings)) == studies and set(now.values()) <= {"sent", "failed"},
        f"the end: {_states(settings)}",
        600,
    )
    listener.kill()
    arrived = {}
    for uid in expected:
        found = archive.objects(uid)
        arrived[uid] = sorted(_content(d) for kind in found.values() for d in kind)
    return Kills(kills, tuple(states), arrived, expected, _failures(settings))


def _undisturbed(folder: Path, files: Sequence[Path]) -> list[str]:
    """The objects of a run that nobody disturbed."""
    out = folder / "out"
    write_run(out, files[0].parent)
    rows = export_run(out, ["dicom-seg", "dicom-sr", "rtstruct"]).rows
    return sorted(_content(pydicom.dcmread(out / f)) for row in rows for f in row.files)


def _content(instance: pydicom.Dataset) -> str:
    """Its UID, and a hash of all its values, pixels and contours too, but dates and times."""
    digest = hashlib.sha256()
    for element in instance.iterall():
        if element.VR not in ("DA", "TM", "DT", "SQ"):
            digest.update(f"{element.tag} {element.VR} {element.value!r}\n".encode())
    return f"{instance.SOPInstanceUID} {digest.hexdigest()}"


def _send_all(series: Sequence[Sequence[Path]], starts: Sequence[threading.Event]) -> None:
    """As an archive does: what was not confirmed is sent again."""
    for files, start in zip(series, starts, strict=True):
        start.wait(600)
        left = list(files)
        while left:
            with suppress(RuntimeError, OSError), calling() as found:
                while left and found.is_established:
                    if found.send_c_store(pydicom.dcmread(left[0])).get("Status") != 0:
                        break
                    left.pop(0)
            time.sleep(0.2)


def _studies(settings: Settings) -> list[Study]:
    queue = open_queue(settings.store)
    try:
        return queue.studies()
    finally:
        queue.close()


def _states(settings: Settings) -> dict[str, str]:
    return {s.uid: s.state for s in _studies(settings)}


def _failures(settings: Settings) -> dict[str, str]:
    return {s.uid: s.reason for s in _studies(settings) if s.state == "failed"}
