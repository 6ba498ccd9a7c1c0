"""Storage commitment: an archive says that it will keep what it was sent (PS3.4 J)."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from aiene.pacs.association import PeerError, associated, context, netdicom
from aiene.pacs.config import Peer
from aiene.pacs.objects import Outgoing

PUSH_MODEL: Final = "1.2.840.10008.1.20.1"
_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
_SAME_ASSOCIATION_S: Final = 2.0  # some answer at once on the association that asked


class Answers:
    """What archives answered, by transaction; filled by `on_report`, from any association."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[list[str], list[str]]] = {}
        self._came = Event()

    def on_report(self, event: Any) -> tuple[int, None]:
        """Handler of an N-EVENT-REPORT."""
        transaction, held, lost = read_report(event)
        self._found[transaction] = held, lost
        self._came.set()
        return 0x0000, None

    def wait(self, transaction: str, seconds: float) -> tuple[list[str], list[str]] | None:
        """SOP instance UIDs that the archive holds, and that it does not; None where no answer came."""
        if transaction not in self._found:
            self._came.wait(seconds)
        return self._found.get(transaction)


def read_report(event: Any) -> tuple[str, list[str], list[str]]:
    """Transaction, and the SOP instance UIDs that are held and that are not, of an N-EVENT-REPORT."""
    content = event.event_information
    held = [str(i.ReferencedSOPInstanceUID) for i in content.get("ReferencedSOPSequence") or []]
    lost = [str(i.ReferencedSOPInstanceUID) for i in content.get("FailedSOPSequence") or []]
    return str(content.get("TransactionUID") or ""), held, lost


def ask(
    objects: Sequence[Outgoing],
    peer: Peer,
    own_title: str,
    *,
    answers: Answers,
    transaction: str | None = None,
    port: tuple[str, int] | None = None,
    wait_s: float = _SAME_ASSOCIATION_S,
) -> tuple[list[str], list[str]] | None:
    """Ask an archive to commit itself.

    Parameters
    ----------
    transaction : UID of the request; a new one if None.
    port : where a service of ours is opened meanwhile for an answer on an association of its own; None where
        the listener takes it.
    wait_s : how long to wait for the answer.

    Returns
    -------
    What `Answers.wait` gives.

    Raises
    ------
    PeerError : it does not offer storage commitment, refuses, or cannot be reached.
    """
    pynetdicom = netdicom("Asking for storage commitment")
    uid = transaction or str(generate_uid())
    server = None
    if port is not None:
        entity = pynetdicom.AE(ae_title=own_title)
        entity.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
        try:
            server = entity.start_server(
                port, block=False, evt_handlers=[(pynetdicom.evt.EVT_N_EVENT_REPORT, answers.on_report)]
            )
        except OSError as error:
            raise PeerError(
                f"port {port[1]} for the archive's answer cannot be opened ({error.strerror})", "name another"
            ) from error
    try:
        handlers = [(pynetdicom.evt.EVT_N_EVENT_REPORT, answers.on_report)]
        with associated(peer, own_title, [context(PUSH_MODEL)], handlers=handlers) as found:
            _request(found, objects, uid, peer)
            answer = answers.wait(uid, min(wait_s, _SAME_ASSOCIATION_S))
        return answer or answers.wait(uid, wait_s)
    finally:
        if server is not None:
            server.shutdown()


def _request(found: Any, objects: Sequence[Outgoing], uid: str, peer: Peer) -> None:
    information = Dataset()
    information.TransactionUID = uid
    information.ReferencedSOPSequence = []
    for item in objects:
        reference = Dataset()
        reference.ReferencedSOPClassUID = item.sop_class
        reference.ReferencedSOPInstanceUID = item.sop_instance
        information.ReferencedSOPSequence.append(reference)
    status, _ = found.send_n_action(information, 1, PUSH_MODEL, _INSTANCE)
    code = status.get("Status")
    if code != 0x0000:
        raise PeerError(
            f"{peer.address}: it refused the request for storage commitment"
            + ("" if code is None else f" (status {code:04X})"),
            "look at its log",
            passing=code is None,
        )
