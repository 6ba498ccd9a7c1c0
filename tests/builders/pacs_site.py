"""A hospital in small: a listener with its configuration, callers, and work that needs no network."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]

from aiene.cohort import RunSummary
from aiene.geometry.grid import Grid
from aiene.nodes.node import CountingRule
from aiene.pacs.config import Settings
from aiene.pacs.http import open_queue
from aiene.pacs.queue import Outcome, Study
from aiene.pacs.service import Service
from aiene.pacs.store import Store
from aiene.pacs.worker import work
from aiene.parallel import Crew
from aiene.results.store import RunStore
from builders.export_runs import OBLIQUE, small_grid, write_run, write_series


def planted_run(settings: Settings, store: Store, name: str) -> RunSummary:
    """In place of the networks: two nodes and a primary, at places that a test can work out."""
    made = write_run(store.results / name, store.incoming / name)
    results = RunStore(store.results / name).results([made.result.case_id])
    return RunSummary(tuple(results), {}, "Trained on phantoms.", (), CountingRule(0.3))


def planted_work(settings: Settings, name: str, generation: int) -> Outcome:
    return work(settings, name, generation, run=planted_run)


def oblique_series(folder: Path, name: str = "case", grid: Grid | None = None) -> list[Path]:
    """A small oblique CT; not square, no two spacings alike."""
    return write_series(folder, grid or small_grid(OBLIQUE), name=name)


def uid_of_study(files: Sequence[Path]) -> str:
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def settings_for(store: Path, **more: Any) -> Settings:
    """A listener on a free port that settles quickly."""
    listen = {"port": 11112, "min_free_gb": 0, **more.pop("listen", {})}
    values = {"store": store, "listen": listen, "settle_s": 0.5, "broken_off_wait_s": 1.0, **more}
    return Settings.model_validate(values)


class ThreadCrew:
    """In place of a process, which takes some seconds to start."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.submit(function, *arguments)

    def stop(self) -> None:
        self._pool.shutdown(wait=True)


class Site:
    """A service that runs in a thread of this process, its work in a process of its own or in `new_crew`."""

    def __init__(
        self,
        settings: Settings,
        work: Callable[..., Outcome] = planted_work,
        *,
        new_crew: Callable[[], Any] = lambda: Crew(1),
    ) -> None:
        self.settings = settings
        self.service = Service(settings, work=work, new_crew=new_crew)
        self._thread = threading.Thread(target=self.service.run, daemon=True)

    def __enter__(self) -> Site:
        self._thread.start()
        until(lambda: self._answers(), "the listener")
        return self

    def __exit__(self, *_: object) -> None:
        self.service.stop()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()

    def _answers(self) -> bool:
        assert self._thread.is_alive(), "the service ended"
        log = self.settings.store / "log" / "events.jsonl"
        return log.is_file() and '"started"' in log.read_text()

    def studies(self) -> dict[str, Study]:
        """By StudyInstanceUID."""
        queue = open_queue(self.settings.store)
        try:
            return {s.uid: s for s in queue.studies()}
        finally:
            queue.close()

    def state(self, uid: str) -> str:
        found = self.studies().get(uid)
        return "unknown" if found is None else found.state

    def wait_for(self, uid: str, *states: str, seconds: float = 120) -> Study:
        until(lambda: self.state(uid) in states, f"{states} (is {self.state(uid)})", seconds)
        return self.studies()[uid]

    def lines(self, name: str) -> list[dict[str, Any]]:
        text = (self.settings.store / "log" / name).read_text()
        return [json.loads(line) for line in text.splitlines()]


def until(true: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait for something; the limit only keeps a test that is wrong from hanging."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


@contextmanager
def calling(title: str = "CT1", called: str = "AIENE", port: int = 11112, **options: Any) -> Iterator[Any]:
    """An association of a scanner's with a listener."""
    entity = AE(ae_title=title)
    entity.add_requested_context(CTImageStorage)
    entity.add_requested_context(Verification)
    found = entity.associate("127.0.0.1", port, ae_title=called, **options)
    try:
        yield found
    finally:
        if found.is_established:
            found.release()


def send(files: Sequence[Path], **options: Any) -> list[int]:
    """The status of each file's C-STORE."""
    with calling(**options) as found:
        assert found.is_established
        return [int(found.send_c_store(pydicom.dcmread(file)).Status) for file in files]


def same_mask(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool((one == other).all())
