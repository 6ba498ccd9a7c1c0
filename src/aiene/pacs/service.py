"""The service behind `aiene dicom listen`: studies settle and are worked on one by one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Final

from aiene.errors import need
from aiene.pacs.config import Settings
from aiene.pacs.http import status_port, stow_port
from aiene.pacs.listener import GB, Listener
from aiene.pacs.push import pause_s
from aiene.pacs.queue import Outcome, Queue, State, Study
from aiene.pacs.store import Receiver, Store, Trail
from aiene.parallel import Crew

log = logging.getLogger(__name__)

_TICK_S: Final = 0.5
_ENDED_AT_MOST: Final = 3
"""How often the system may end the process that works on a study before it is given up."""

_AT_WORK: Final[tuple[State, ...]] = ("running", "exporting")
_SWEEP_EVERY_S: Final = 600.0
_COUNTED_QUIET_S: Final = 2.0
"""Quiet that is waited for where every series has the number of images that it says."""

Work = Callable[[Settings, str, int], Outcome]


class Service:
    """The loop.

    Parameters
    ----------
    settings : checked.
    show_uids : whether UIDs stand in the log.
    retry_failed : give failed studies another chance first.
    work : what is done with a study; in use `worker.work`.
    new_crew : makes the process that does it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        show_uids: bool = False,
        retry_failed: bool = False,
        work: Work,
        new_crew: Callable[[], Crew] = lambda: Crew(1),
    ) -> None:
        self._settings, self._show_uids, self._retry_failed = settings, show_uids, retry_failed
        self._work, self._new_crew = work, new_crew
        self._crew: Crew | None = None
        self._arrived: dict[str, float] = {}
        self._busy: tuple[Study, Future[Outcome]] | None = None
        self._stop = threading.Event()
        self._swept_at = -_SWEEP_EVERY_S

    def stop(self) -> None:
        """Ask the loop to end."""
        self._stop.set()

    def run(self, on_ready: Callable[[str], None] = lambda _: None) -> None:
        """Serve until stopped.

        Parameters
        ----------
        on_ready : told once, in one sentence, where the service listens.

        Raises
        ------
        UsageError : another listener works with the store, or a port cannot be opened.
        OutputError : the store cannot be written.
        InputError : a file of a secret or a certificate cannot be used.
        """
        need("highdicom", extra="dicom", purpose="Writing DICOM objects")
        settings = self._settings
        with ExitStack() as held:
            self._store = store = Store(settings.store)
            held.enter_context(store.alone())
            self._queue = queue = Queue(store.queue_file)
            held.callback(queue.close)
            self._trail = Trail(store.root / "log", show_uids=self._show_uids)
            held.callback(self._trail.close)
            receiver = Receiver(store, queue, self._note_arrival)
            self._take_up(receiver)
            held.callback(self._stop_crew)
            if settings.status is not None:
                held.enter_context(status_port(settings.status, queue))
            if settings.stow is not None:
                held.enter_context(stow_port(settings.stow, receiver, self._trail, self._has_room))
            listener = held.enter_context(
                Listener(
                    settings.listen,
                    receiver,
                    self._trail,
                    free_bytes=lambda: store.free_bytes,
                    on_report=self._on_report,
                    on_end=self._on_end,
                )
            )
            where = f"{settings.listen.ae_title}@{settings.listen.host}:{listener.port}"
            self._trail.event("started", listening=where)
            on_ready(where)
            while not self._stop.wait(_TICK_S):
                self.step()
            self._trail.event("stopped")

    def step(self) -> None:
        """One turn of the loop."""
        self._settle()
        self._finish()
        self._start_next()
        now = time.monotonic()
        if now - self._swept_at >= _SWEEP_EVERY_S:
            self._swept_at = now
            self._sweep()

    def _take_up(self, receiver: Receiver) -> None:
        """After a start, of whatever end: what was on its way goes on."""
        self._store.clear_halves()
        self._store.empty_trash()
        found = receiver.note_unnoted()
        broken = self._queue.take_up()
        again = self._queue.retry_failed() if self._retry_failed else 0
        for study in self._queue.studies("received"):
            self._note_arrival(study.name)
        if found or broken or again:
            self._trail.event("taken_up", instances=found, studies=len(broken), retried=again)

    def _note_arrival(self, name: str) -> None:
        self._arrived[name] = time.monotonic()

    def _on_end(self, studies: set[str], broken: bool) -> None:
        for name in studies:
            self._queue.note(name, broken_off=int(broken))
            self._note_arrival(name)

    def _on_report(self, transaction: str, held: Sequence[str], lost: Sequence[str]) -> None:
        names = [[self._store.name_of("instance", uid) for uid in uids] for uids in (held, lost)]
        study = self._queue.note_committed(transaction, *names)
        self._trail.audit("commitment", study=study, held=len(held), lost=len(lost))

    def _has_room(self) -> bool:
        return self._store.free_bytes >= self._settings.listen.min_free_gb * GB

    def _settle(self) -> None:
        """Studies of which nothing came for a while wait for their turn from now on."""
        for study in self._queue.studies("received"):
            quiet = time.monotonic() - self._arrived.setdefault(study.name, time.monotonic())
            needed = self._settings.broken_off_wait_s if study.broken_off else self._settings.settle_s
            if quiet < needed and not study.broken_off and quiet >= min(_COUNTED_QUIET_S, needed):
                needed = 0.0 if self._queue.counts_reached(study.name) else needed
            if quiet >= needed and self._queue.move(
                study.name, "waiting", expected=("received",), generation=study.generation
            ):
                self._arrived.pop(study.name, None)
                self._tell(study, "waiting")

    def _start_next(self) -> None:
        if self._busy is not None:
            return
        study = self._queue.next()
        if study is None or not self._queue.move(
            study.name, "running", expected=("waiting", "exporting"), generation=study.generation
        ):
            return
        self._tell(study, "running")
        self._busy = study, self._submit(study)

    def _submit(self, study: Study) -> Future[Outcome]:
        if self._crew is None:
            self._crew = self._new_crew()
        return self._crew.submit(self._work, self._settings, study.name, study.generation)

    def _stop_crew(self) -> None:
        if self._crew is not None:
            self._crew.stop()
            self._crew = None

    def _finish(self) -> None:
        if self._busy is None or not self._busy[1].done():
            return
        (study, future), self._busy = self._busy, None
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            self._stop_crew()
            self._ended(study)
        elif error is not None:
            log.error("a study of the queue", exc_info=error)
            self._end(study, Outcome("failed", f"internal error ({type(error).__name__}), see the log."))
        else:
            self._end(study, future.result())

    def _ended(self, study: Study) -> None:
        """The system ended the process: as a rule for lack of memory."""
        ended = study.ended + 1
        reason = "the process that worked on it was ended by the system, usually for lack of memory"
        if ended >= _ENDED_AT_MOST:
            self._end(study, Outcome("failed", f"{reason}, {ended} times; try a machine with more memory."))
            return
        self._queue.note(study.name, ended=ended)
        self._end(study, Outcome("later", f"{reason}; it is tried again."))

    def _end(self, study: Study, outcome: Outcome) -> None:
        now = self._queue.study(study.name)
        if now is None:
            return
        if outcome.status == "stale" or not self._ended_as(study, now, outcome):
            self._queue.move(study.name, "received", expected=_AT_WORK)
            self._arrived.setdefault(study.name, time.monotonic())
            self._tell(study, "received", reason="new images came")
        for peer, count in outcome.objects:
            self._trail.audit("sent_by_us", study=study.name, study_uid=study.uid, peer=peer, objects=count)

    def _ended_as(self, study: Study, now: Study, outcome: Outcome) -> bool:
        """Give a study the state in which its work ended; False where new images came meanwhile."""
        name, generation, reason = study.name, study.generation, outcome.reason
        state: State
        tries = now.tries + 1
        waited_s = sum(pause_s(number) for number in range(1, tries))
        if outcome.status == "later" and waited_s <= self._settings.give_up_after_h * 3600:
            pause = pause_s(tries)
            state = "exporting" if now.state == "exporting" else "waiting"
            self._tell(study, "later", reason=reason, tries=tries, pause_s=pause)
            again = {"tries": tries, "next_try": time.time() + pause}
            return self._queue.move(
                name, state, expected=_AT_WORK, generation=generation, reason=reason, **again
            )
        state = "sent" if outcome.status == "done" else "failed"
        if outcome.status == "later":
            reason = f"given up after {tries} tries: {reason}"
        seconds = max(0.0, time.time() - now.last_at)
        ended = {"seconds": seconds, "tries": 0}
        if not self._queue.move(
            name, state, expected=_AT_WORK, generation=generation, reason=reason, **ended
        ):
            return False
        self._queue.count("seconds", seconds)
        self._tell(study, state, reason=reason or None, seconds=round(seconds, 1))
        return True

    def _sweep(self) -> None:
        """Received images of studies that are done go after `keep_days`."""
        before = time.time() - self._settings.keep_days * 86400
        for study in self._queue.studies("sent", "failed"):
            if study.dropped or study.changed_at > before:
                continue
            with self._queue.lock:
                if self._queue.move(
                    study.name,
                    study.state,
                    expected=(study.state,),
                    reason=study.reason,
                    dropped=study.images,
                ):
                    self._store.drop_images(study.name)
            self._tell(study, "images_deleted", images=study.images)
        self._store.empty_trash()

    def _tell(self, study: Study, what: str, **facts: object) -> None:
        self._trail.event(f"study_{what}", study=study.name, study_uid=study.uid, **facts)
