"""DIMSE as a caller: what is sent, an association with a peer, C-STORE, C-FIND and C-ECHO.

Where there is no association, one sentence says why. Associations for sending have exactly the presentation
contexts that the objects need.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from aiene.errors import InputError, ProblemError, need
from aiene.ingest.dicom.header import DAMAGED, quiet
from aiene.pacs.config import Peer

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext


Status = Literal["accepted", "there", "refused", "unreached"]


@dataclass(frozen=True)
class Outgoing:
    """One file.

    Parameters
    ----------
    syntax : its transfer syntax.
    sha256 : of the whole file.
    """

    file: Path
    sop_class: str
    sop_instance: str
    study: str
    series: str
    syntax: str
    sha256: str

    @property
    def kind(self) -> str:
        """Its class in words."""
        return str(UID(self.sop_class).name)


@dataclass(frozen=True)
class Delivery:
    """What became of one object.

    Parameters
    ----------
    status : `accepted`; `there`: the archive had it; `refused`: another try gives the same answer;
        `unreached`: another try may help.
    reason : one sentence where it is neither accepted nor there; a warning of the archive's where it is.
    committed : the archive's word on storage commitment; None where it gave none.
    """

    object: Outgoing
    status: Status
    reason: str = ""
    committed: bool | None = None

    @property
    def is_there(self) -> bool:
        """Whether the archive has it now."""
        return self.status in ("accepted", "there")


def read_outgoing(file: Path) -> Outgoing:
    """The object in a file.

    Raises
    ------
    InputError : it cannot be read.
    """
    try:
        content = file.read_bytes()
        with quiet():
            head = dcmread(BytesIO(content), stop_before_pixels=True)
            return Outgoing(
                file,
                str(head.SOPClassUID),
                str(head.SOPInstanceUID),
                str(head.StudyInstanceUID),
                str(head.SeriesInstanceUID),
                str(head.file_meta.TransferSyntaxUID),
                hashlib.sha256(content).hexdigest(),
            )
    except (*DAMAGED, AttributeError) as error:
        raise InputError(file, "it is not a DICOM object that can be sent", "export the run again") from error


EXTRA: Final = "hospital"
_SERVICE_USER: Final = 1
_TRANSIENT: Final = 2
_ASKED: Final = 3
_AT_ONCE_S: Final = 1.0
"""A peer that closes the connection right behind its refusal may be seen to close it first, and the reason is
lost. Who ended so soon without an answer is asked again."""
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

    @classmethod
    def of(cls, peer: Peer, problem: str, remedy: str, passing: bool = False) -> Self:
        """Of the peer at an address."""
        return cls(f"{peer.address}: {problem}", remedy, passing)


class NoClassError(PeerError):
    """A peer that we reach, and that accepts none of the classes which an association asked for."""


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
    for left in reversed(range(_ASKED)):
        began = time.monotonic()
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
        answered = found.is_established or found.is_rejected or found.rejected_contexts
        if answered or not left or time.monotonic() - began > _AT_ONCE_S:
            break
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
        return PeerError.of(peer, problem.format(**words), remedy.format(**words), passing)
    if found.rejected_contexts and not found.accepted_contexts:
        names = sorted({str(UID(str(cx.abstract_syntax)).name) for cx in found.rejected_contexts})
        problem = f"it accepts none of {', '.join(names)}"
        return NoClassError.of(peer, problem, "allow these classes in its configuration")
    return _unreachable(peer)


def _unreachable(peer: Peer) -> PeerError:
    """Look at the port once, by hand, since pynetdicom does not tell why there was no connection."""
    told = partial(PeerError.of, peer)
    try:
        with socket.create_connection((peer.host, peer.port or 0), timeout=peer.timeout_s) as there:
            if peer.tls is not None:
                with peer.tls.context().wrap_socket(there, server_hostname=peer.host) as secured:
                    secured.settimeout(peer.timeout_s)
                    if secured.version() == "TLSv1.3":
                        secured.settimeout(1.0)
                        secured.recv(1)  # a refused client certificate shows with the first read
    except ssl.SSLCertVerificationError as error:
        return told(f"its certificate is refused ({error.verify_message})", "correct tls.ca of the peer")
    except TimeoutError:
        if peer.tls is None:
            return told("no answer", "check host, port and firewall", passing=True)
    except ConnectionRefusedError:
        return told("nothing listens there", "check host and port, or start it", passing=True)
    except socket.gaierror:
        return told("there is no host of this name", "correct the host", passing=True)
    except ssl.SSLError as error:
        why = (error.reason or "no TLS").replace("_", " ").lower()
        return told(f"TLS failed ({why})", "check that both sides speak TLS and trust each other")
    except OSError as error:
        return told(str(error.strerror or error), "check host and network", passing=True)
    remedy = "check that the port speaks DICOM, with TLS or without as configured"
    return told("it closed the connection without a DICOM answer", remedy, passing=True)


FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve, FIND
_SUCCESS: Final = 0x0000
_DUPLICATE: Final = 0x0111
_WORDS: Final = {
    0x0122: "it does not accept this class of object",
    0x0124: "it does not allow us to store",
    0x0117: "it considers the object's UID invalid",
}
_MAX_CONTEXTS: Final = 128  # of an association (PS3.8 9.3.2.2)


def send(
    objects: Sequence[Outgoing], peer: Peer, own_title: str, on_delivery: Callable[[Delivery], None]
) -> list[Delivery]:
    """Send objects over one association.

    An association that breaks leaves the rest `unreached`.

    Raises
    ------
    PeerError : there is no association.
    """
    wanted = list(dict.fromkeys((o.sop_class, o.syntax) for o in objects))
    done: list[Delivery] = []
    for start in range(0, len(wanted), _MAX_CONTEXTS):
        pairs = wanted[start : start + _MAX_CONTEXTS]
        mine = [o for o in objects if (o.sop_class, o.syntax) in pairs]
        with associated(peer, own_title, [context(*pair) for pair in pairs]) as found:
            taken = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in found.accepted_contexts}
            for item in mine:
                done.append(_store(found, item, (item.sop_class, item.syntax) in taken))
                on_delivery(done[-1])
    return done


def _store(found: Any, item: Outgoing, is_taken: bool) -> Delivery:
    if not is_taken:
        return Delivery(item, "refused", f"it does not accept {item.kind} in this transfer syntax")
    if not found.is_established:
        return Delivery(item, "unreached", "it ended the association")
    try:
        with quiet():
            answer = found.send_c_store(dcmread(item.file))
    except (RuntimeError, ValueError) as error:
        return Delivery(item, "unreached" if isinstance(error, RuntimeError) else "refused", str(error))
    status = answer.get("Status")
    if status is None:
        return Delivery(item, "unreached", "it gave no answer")
    kind, reason = judge(status, str(answer.get("ErrorComment") or ""))
    return Delivery(item, kind, reason)


def judge(status: int, comment: str = "") -> tuple[Status, str]:
    """What the status of a C-STORE response means (PS3.4 B.2.3, PS3.7 C)."""
    said = f" ({comment})" if comment else ""
    if status == _SUCCESS:
        return "accepted", ""
    if status == _DUPLICATE:
        return "there", ""
    if status >> 12 == 0xB:
        return "accepted", f"with warning {status:04X}{said}"
    if status >> 8 == 0xA7:
        return "unreached", f"it is out of resources ({status:04X}){said}"
    return "refused", f"{_WORDS.get(status, 'it refused the object')} (status {status:04X}){said}"


def there_already(objects: Sequence[Outgoing], peer: Peer, own_title: str) -> set[str] | None:
    """The SOP instance UIDs among `objects` that the archive has; None where it answers no queries.

    Raises
    ------
    PeerError : it cannot be reached.
    """
    netdicom("Asking an archive")
    found: set[str] = set()
    try:
        with associated(peer, own_title, [context(FIND)]) as association:
            for item in objects:
                query = Dataset()
                query.QueryRetrieveLevel = "IMAGE"
                query.StudyInstanceUID, query.SeriesInstanceUID = item.study, item.series
                query.SOPInstanceUID = item.sop_instance
                answers = matches(association, query)
                found |= {str(a.get("SOPInstanceUID")) for a in answers} & {item.sop_instance}
    except NoClassError:
        return None
    return found


def matches(association: Any, query: Dataset) -> list[Dataset]:
    """The answers to a C-FIND.

    Raises
    ------
    PeerError : it fails or breaks off.
    """
    found: list[Dataset] = []
    try:
        for status, identifier in association.send_c_find(query, FIND):
            code = status.get("Status")
            if code in (0xFF00, 0xFF01) and identifier is not None:
                found.append(identifier)
            elif code is None or code not in (0xFF00, 0xFF01, _SUCCESS):
                raise _refused_query(code, str(status.get("ErrorComment") or ""))
    except RuntimeError as error:
        raise _refused_query(None, "") from error
    return found


def _refused_query(code: int | None, comment: str) -> PeerError:
    if code is None:
        return PeerError("the archive ended the connection while it was asked", "try again", passing=True)
    said = f": {comment}" if comment else ""
    problem = f"the archive refused the query (status {code:04X}{said})"
    return PeerError(problem, "check what it allows us to ask", passing=code >> 8 == 0xA7)


def echo(peer: Peer, own_title: str) -> None:
    """A C-ECHO.

    Raises
    ------
    PeerError : no answer, or not success.
    """
    with associated(peer, own_title, [context("1.2.840.10008.1.1")]) as found:
        status = found.send_c_echo().get("Status")
    if status != _SUCCESS:
        raise PeerError.of(
            peer, "it did not answer C-ECHO with success", "look at its log", passing=status is None
        )
