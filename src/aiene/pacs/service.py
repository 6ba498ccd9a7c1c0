"""The service behind `aiene dicom listen`: its C-STORE and C-ECHO port; studies settle and are worked on.

The port says who may call, what is kept, and what every caller is told. Studies are worked on one by one.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any, Final

from aiene.errors import UsageError, need
from aiene.pacs.config import Listen, Settings, is_loopback
from aiene.pacs.dimse import netdicom
from aiene.pacs.http import status_port, stow_port
from aiene.pacs.push import PUSH_MODEL, pause_s, read_report
from aiene.pacs.queue import Outcome, Queue, State, Study
from aiene.pacs.store import NotKeptError, Receiver, Store, Trail
from aiene.parallel import Crew

GB: Final = 1e9
_VERIFICATION: Final = "1.2.840.10008.1.1"
_SUCCESS: Final = 0x0000
_OUT_OF_RESOURCES: Final = 0xA700
_CANNOT_UNDERSTAND: Final = 0xC000
_UNKNOWN_CALLER: Final = (1, 1, 3)  # result, source, diagnostic (PS3.8 9.3.4): permanent
_UNKNOWN_TITLE: Final = (1, 1, 7)
_NO_ROOM: Final = (2, 3, 2)  # transient: local limit exceeded

OnReport = Callable[[str, Sequence[str], Sequence[str]], None]
OnBreak = Callable[[set[str], bool], None]


class Listener:
    """The service on its port; a context.

    Parameters
    ----------
    free_bytes : tells the room on the disk of the journal.
    on_report : told of an archive's answer on storage commitment: transaction, UIDs held, UIDs lost.
    on_end : told which studies an association has sent to, and whether it broke off.

    Raises
    ------
    UsageError : the port cannot be opened.
    """

    def __init__(
        self,
        settings: Listen,
        receiver: Receiver,
        trail: Trail,
        *,
        free_bytes: Callable[[], int],
        on_report: OnReport,
        on_end: OnBreak,
    ) -> None:
        self._settings, self._receiver, self._trail = settings, receiver, trail
        self._free_bytes, self._on_report, self._on_end = free_bytes, on_report, on_end
        self._lock = threading.Lock()
        self._sent: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._inside: list[Any] = []
        self._server = self._open()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    @property
    def port(self) -> int:
        """The port that is open."""
        return int(self._server.server_address[1])

    def _open(self) -> Any:
        pynetdicom = netdicom("aiene dicom listen")
        from pynetdicom import AllStoragePresentationContexts, evt
        from pynetdicom._globals import ALL_TRANSFER_SYNTAXES

        settings = self._settings
        entity = pynetdicom.AE(ae_title=settings.ae_title)
        entity.maximum_associations = sys.maxsize  # it would count callers that were refused a moment ago
        entity.network_timeout = entity.dimse_timeout = entity.acse_timeout = settings.network_timeout_s
        entity.maximum_pdu_size = 0  # as large as the caller likes: fewer pieces
        for storage in AllStoragePresentationContexts:
            entity.add_supported_context(storage.abstract_syntax, ALL_TRANSFER_SYNTAXES)
        entity.add_supported_context(_VERIFICATION)
        entity.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
        handlers = [
            (evt.EVT_REQUESTED, self._on_request),
            (evt.EVT_C_ECHO, self._on_echo),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_EVENT_REPORT, self._on_event_report),
            (evt.EVT_RELEASED, self._end, [False]),
            (evt.EVT_ABORTED, self._end, [True]),
            (evt.EVT_CONN_CLOSE, self._end, [True]),
        ]
        tls = None if settings.tls is None else settings.tls.context()
        try:
            server = entity.make_server(
                (settings.host, settings.port),
                evt_handlers=handlers,
                server_class=_server_class(
                    tls, settings.network_timeout_s, 4 * settings.max_associations + 32, self._on_tls_refused
                ),
            )
        except OSError as error:
            raise UsageError(
                f"{settings.host}:{settings.port}: the port cannot be opened ({error.strerror}); "
                "end the program that has it, or choose another under listen."
            ) from error
        entity._servers.append(server)
        threading.Thread(target=server.serve_forever, name="DICOM service", daemon=True).start()
        return server

    def _on_request(self, event: Any) -> None:
        """Refuse here, in one place, whoever may not come in; with the right word for it."""
        asked = event.assoc.requestor.primitive  # the association itself does not know the titles yet
        title, called = asked.calling_ae_title.strip(), asked.called_ae_title.strip()
        address = str(event.assoc.requestor.address)
        refusal, why = self._why_not(title, called, address)
        if refusal is None:
            refusal, why = self._enter(event.assoc)
        if refusal is None:
            return
        self._trail.audit("association_refused", caller=title, address=address, called=called, reason=why)
        event.assoc.acse.send_reject(*refusal)
        event.assoc.kill()

    def _why_not(self, title: str, called: str, address: str) -> tuple[tuple[int, int, int] | None, str]:
        settings = self._settings
        if called != settings.ae_title:
            return _UNKNOWN_TITLE, f"we are not called {called}"
        if settings.callers and not any(c.allows(title, address) for c in settings.callers):
            return _UNKNOWN_CALLER, "it is not among the callers"
        if not settings.callers and not is_loopback(address.removeprefix("::ffff:")):
            return _UNKNOWN_CALLER, "no callers are named"
        if self._free_bytes() < settings.min_free_gb * GB:
            return _NO_ROOM, "the disk is nearly full"
        return None, ""

    def _enter(self, association: Any) -> tuple[tuple[int, int, int] | None, str]:
        """Count an association in, where there is a place for it."""
        with self._lock:
            self._inside = [a for a in self._inside if a.is_alive() and not (a.is_released or a.is_aborted)]
            if len(self._inside) >= self._settings.max_associations:
                return _NO_ROOM, "too many associations"
            self._inside.append(association)
            return None, ""

    def _on_tls_refused(self, address: str, error: OSError) -> None:
        why = getattr(error, "reason", None) or error.strerror or type(error).__name__
        self._trail.audit("tls_refused", address=address, reason=str(why))

    def _on_echo(self, event: Any) -> int:
        self._trail.event("echo", caller=event.assoc.requestor.ae_title.strip())
        return _SUCCESS

    def _on_store(self, event: Any) -> int:
        """Success is answered when the object is on the disk, and not before."""
        caller = event.assoc.requestor.ae_title.strip()
        try:
            content = event.encoded_dataset()
            taken = self._receiver.take(content, expected_uid=str(event.request.AffectedSOPInstanceUID))
        except NotKeptError as error:
            self._trail.event("not_kept", caller=caller, reason=str(error))
            return _OUT_OF_RESOURCES if error.lack else _CANNOT_UNDERSTAND
        with self._lock:
            self._sent[id(event.assoc)][taken.study] += 1
        self._trail.event(
            "stored", caller=caller, study=taken.study, study_uid=taken.study_uid, was=taken.status
        )
        return _SUCCESS

    def _on_event_report(self, event: Any) -> tuple[int, None]:
        self._on_report(*read_report(event))
        return _SUCCESS, None

    def _end(self, event: Any, broken: bool) -> None:
        """Told once of each association: the first of release, abort and closed connection counts."""
        association = event.assoc
        with self._lock:
            sent = dict(self._sent.pop(id(association), {}))
        if not sent:
            return
        self._on_end(set(sent), broken)
        for study, count in sent.items():
            self._trail.audit(
                "sent_to_us",
                caller=association.requestor.ae_title.strip(),
                address=str(association.requestor.address),
                study=study,
                instances=count,
                broken_off=broken or None,
            )


def _server_class(
    tls: ssl.SSLContext | None, timeout_s: float, at_most: int, on_refused: Callable[[str, OSError], None]
) -> type[Any]:
    """pynetdicom's server, for callers that hang: it reads without a limit of time, and speaks TLS while it
    accepts, so that one caller that says nothing would keep all others out.

    Parameters
    ----------
    at_most : connections at once, those included that have not asked for an association yet.
    """
    from pynetdicom.transport import ThreadedAssociationServer

    class Server(ThreadedAssociationServer):
        daemon_threads = True

        def get_request(self) -> tuple[socket.socket, Any]:
            if self.socket is None:
                raise OSError("the port is closed")
            accepted, address = self.socket.accept()
            accepted.settimeout(timeout_s)
            return accepted, address

        def verify_request(self, request: Any, client_address: Any) -> bool:
            return len(self.active_associations) < at_most

        def finish_request(self, request: Any, client_address: Any) -> None:
            if tls is not None:
                try:
                    request = tls.wrap_socket(request, server_side=True)
                except OSError as error:
                    on_refused(str(client_address[0]), error)
                    self.shutdown_request(request)
                    return
            super().finish_request(request, client_address)

    return Server


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
        self._crew = self._crew or self._new_crew()
        self._busy = study, self._crew.submit(self._work, self._settings, study.name, study.generation)

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
