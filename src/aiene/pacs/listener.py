"""The C-STORE and C-ECHO service: who may call, what is kept, and what every caller is told."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiene.errors import UsageError
from aiene.pacs.config import Listen, is_loopback
from aiene.pacs.dimse import netdicom
from aiene.pacs.push import PUSH_MODEL, read_report
from aiene.pacs.store import NotKeptError, Receiver, Trail

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
