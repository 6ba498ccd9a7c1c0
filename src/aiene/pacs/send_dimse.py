"""Objects to an archive by C-STORE, with exactly the presentation contexts that they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from pydicom import dcmread
from pydicom.dataset import Dataset

from aiene.ingest.dicom.header import quiet
from aiene.pacs.association import PeerError, associated, context, netdicom
from aiene.pacs.config import Peer
from aiene.pacs.objects import Delivery, Outgoing

_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve, FIND
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


def judge(status: int, comment: str = "") -> tuple[Literal["accepted", "there", "refused", "unreached"], str]:
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
        with associated(peer, own_title, [context(_FIND)]) as association:
            for item in objects:
                query = Dataset()
                query.QueryRetrieveLevel = "IMAGE"
                query.StudyInstanceUID, query.SeriesInstanceUID = item.study, item.series
                query.SOPInstanceUID = item.sop_instance
                answers = matches(association, query)
                found |= {str(a.get("SOPInstanceUID")) for a in answers} & {item.sop_instance}
    except PeerError as error:
        if error.passing or "takes none of" not in error.problem:
            raise
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
        for status, identifier in association.send_c_find(query, _FIND):
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
    return PeerError(
        f"the archive refused the query (status {code:04X}{said})",
        "check what it allows us to ask",
        passing=code >> 8 == 0xA7,
    )


def echo(peer: Peer, own_title: str) -> None:
    """A C-ECHO.

    Raises
    ------
    PeerError : no answer, or not success.
    """
    with associated(peer, own_title, [context("1.2.840.10008.1.1")]) as found:
        status = found.send_c_echo().get("Status")
    if status != _SUCCESS:
        raise PeerError(
            f"{peer.address}: it did not answer C-ECHO with success",
            "look at its log",
            passing=status is None,
        )
