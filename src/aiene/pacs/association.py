"""An association with a peer, and in one sentence why there is none."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pydicom.uid import UID

from aiene.errors import ProblemError
from aiene.extras import need
from aiene.pacs.config import Peer

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

EXTRA: Final = "hospital"
_SERVICE_USER: Final = 1
_TRANSIENT: Final = 2
_REJECTED: Final = {
    (1, 3): (
        "it does not know our AE title {own}",
        "enter {own} with this machine's address in its configuration",
    ),
    (1, 7): ("it is not called {title}", "correct the AE title of the peer"),
    (1, 2): ("it does not accept the application context", "check that it is a DICOM port"),
    (3, 1): ("it is busy", "try again later"),
    (3, 2): ("it has as many associations as it allows, or no room", "try again later"),
}
"""By source and diagnostic of an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""


class PeerError(ProblemError):
    """A peer that cannot be worked with now.

    Parameters
    ----------
    problem, remedy : as for every error.
    passing : whether it may pass by itself, so that another try makes sense.
    """

    def __init__(self, problem: str, remedy: str, passing: bool = False) -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, passing)
        self.passing = passing


def netdicom(purpose: str) -> Any:
    """pynetdicom, silent: what it logs may hold names, and what matters is told by us.

    Raises
    ------
    MissingExtraError : it is not installed.
    """
    module = need("pynetdicom", extra=EXTRA, purpose=purpose)
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    return module


def context(abstract_syntax: str, *syntaxes: str) -> PresentationContext:
    """A presentation context; of the default transfer syntaxes where none is named."""
    from pynetdicom.presentation import build_context

    return build_context(abstract_syntax, list(syntaxes) if syntaxes else None)


@contextmanager
def associated(
    peer: Peer,
    own_title: str,
    contexts: Sequence[PresentationContext],
    *,
    handlers: Sequence[Any] = (),
    negotiation: Sequence[Any] = (),
) -> Iterator[Association]:
    """An association, released at the end.

    Parameters
    ----------
    own_title : by which the peer knows us.
    contexts : exactly what will be used.
    handlers : pynetdicom's pairs of event and function.
    negotiation : further items, such as role selections.

    Raises
    ------
    PeerError : there is none, with the reason; `passing` where another try makes sense.
    """
    pynetdicom = netdicom("Talking to an archive")
    if peer.ae_title is None or peer.port is None:
        raise PeerError("it is a DICOMweb address", "name it as AET@HOST:PORT")
    entity = pynetdicom.AE(ae_title=own_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = peer.timeout_s
    entity.connection_timeout = peer.timeout_s
    tls = None if peer.tls is None else (peer.tls.context(), peer.host)
    try:
        found = entity.associate(
            peer.host,
            peer.port,
            contexts=list(contexts),
            ae_title=peer.ae_title,
            evt_handlers=list(handlers),
            ext_neg=list(negotiation) or None,
            tls_args=tls,
        )
    except OSError as error:  # no host of this name
        raise _unreachable(peer) from error
    if not found.is_established:
        raise _refusal(found, peer, own_title)
    try:
        yield found
    finally:
        if found.is_established:
            found.release()
        elif found.is_alive():
            found.abort()


def _refusal(found: Association, peer: Peer, own_title: str) -> PeerError:
    primitive = found.acceptor.primitive
    if found.is_rejected and primitive is not None:
        source, why = int(primitive.result_source or 0), int(primitive.diagnostic or 0)
        words = {"own": own_title, "title": peer.ae_title}
        problem, remedy = _REJECTED.get(
            (source, why), ("it refused the association without a reason", "look at its log")
        )
        # a caller that it does not know stays unknown, whatever "transient" it says
        passing = primitive.result == _TRANSIENT and source != _SERVICE_USER
        return PeerError(f"{peer.address}: {problem.format(**words)}", remedy.format(**words), passing)
    if found.rejected_contexts and not found.accepted_contexts:
        names = sorted({str(UID(str(cx.abstract_syntax)).name) for cx in found.rejected_contexts})
        return PeerError(
            f"{peer.address}: it accepts none of {', '.join(names)}",
            "allow these classes in its configuration",
        )
    return _unreachable(peer)


def _unreachable(peer: Peer) -> PeerError:
    """Look at the port once, by hand, since pynetdicom does not tell why there was no connection."""
    try:
        with socket.create_connection((peer.host, peer.port or 0), timeout=peer.timeout_s) as there:
            if peer.tls is not None:
                with peer.tls.context().wrap_socket(there, server_hostname=peer.host) as secured:
                    secured.settimeout(peer.timeout_s)
                    if (
                        secured.version() == "TLSv1.3"
                    ):  # a refused client certificate shows with the first read
                        secured.settimeout(1.0)
                        secured.recv(1)
    except ssl.SSLCertVerificationError as error:
        return PeerError(
            f"{peer.address}: its certificate is refused ({error.verify_message})",
            "correct tls.ca of the peer",
        )
    except TimeoutError:
        if peer.tls is None:
            return PeerError(f"{peer.address}: no answer", "check host, port and firewall", passing=True)
    except ConnectionRefusedError:
        return PeerError(
            f"{peer.address}: nothing listens there", "check host and port, or start it", passing=True
        )
    except socket.gaierror:
        return PeerError(f"{peer.address}: there is no host of this name", "correct the host", passing=True)
    except ssl.SSLError as error:
        why = (error.reason or "no TLS").replace("_", " ").lower()
        return PeerError(
            f"{peer.address}: TLS failed ({why})", "check that both sides speak TLS and trust each other"
        )
    except OSError as error:
        return PeerError(f"{peer.address}: {error.strerror or error}", "check host and network", passing=True)
    return PeerError(
        f"{peer.address}: it closed the connection without a DICOM answer",
        "check that the port speaks DICOM, with TLS or without as configured",
        passing=True,
    )
