"""Objects to an archive: only what it has not yet, again where that may help, and no further where not.

For the objects of a run there is a table of what became of each. Storage commitment (PS3.4 J), where asked
for, is the archive's word that it will keep what it was sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any, Final, NamedTuple

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from aiene.csv_tables import rows_bytes
from aiene.errors import UsageError
from aiene.pacs.config import Peer
from aiene.pacs.dimse import (
    Delivery,
    Outgoing,
    PeerError,
    associated,
    context,
    netdicom,
    read_outgoing,
    send,
    there_already,
)
from aiene.pacs.web import WebArchive
from aiene.results.atomic import read_json
from aiene.results.ownership import Owned

FIRST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 3600.0


def pause_s(tries: int) -> float:
    """How long to wait after so many tries in vain: 2 s, doubled each time, an hour at most."""
    return float(min(FIRST_PAUSE_S * 2 ** max(0, tries - 1), LONGEST_PAUSE_S))


def push(
    objects: Sequence[Outgoing],
    peer: Peer,
    own_title: str,
    *,
    has: Callable[[Outgoing], bool] = lambda _: False,
    on_kept: Callable[[Outgoing], object] = lambda _: None,
    tries: int = 1,
    on_pause: Callable[[str, float], None] = lambda _reason, _seconds: None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Delivery]:
    """Send what the archive has not.

    The archive is asked first. Where it answers no queries, `has` counts.

    Parameters
    ----------
    own_title : our AE title.
    has : whether the archive has said before that it has these bytes.
    on_kept : told of every object that the archive has.
    tries : how often, where the reason may pass by itself; a caller that is refused for good is not.
    on_pause : told the reason before each pause, and its length.

    Returns
    -------
    A delivery for each object, in their order.
    """
    done: dict[int, Delivery] = {}

    def tell(delivery: Delivery) -> None:
        if delivery.is_there:
            on_kept(delivery.object)

    for attempt in range(1, tries + 1):
        left = [o for o in objects if id(o) not in done or done[id(o)].status == "unreached"]
        passing, reason = True, ""
        try:
            for delivery in _once(left, peer, own_title, has, tell):
                done[id(delivery.object)] = delivery
        except PeerError as error:
            passing, reason = error.passing, str(error)
            for item in left:
                if id(item) not in done or done[id(item)].status == "unreached":
                    done[id(item)] = Delivery(item, "unreached" if passing else "refused", reason)
        waiting = [d for d in done.values() if d.status == "unreached"]
        if not waiting or not passing or attempt == tries:
            break
        on_pause(reason or waiting[0].reason, pause_s(attempt))
        sleep(pause_s(attempt))
    return [done[id(o)] for o in objects]


def _once(
    objects: Sequence[Outgoing],
    peer: Peer,
    own_title: str,
    has: Callable[[Outgoing], bool],
    tell: Callable[[Delivery], None],
) -> list[Delivery]:
    web = WebArchive(peer) if peer.url is not None else None
    there = web.there_already(objects) if web else there_already(objects, peer, own_title)
    found = [
        Delivery(item, "there")
        for item in objects
        if (has(item) if there is None else item.sop_instance in there)
    ]
    for delivery in found:
        tell(delivery)
    known = {id(d.object) for d in found}
    left = [o for o in objects if id(o) not in known]
    if not left:
        return found
    sent = web.send(left, tell) if web else send(left, peer, own_title, tell)
    return [*found, *sent]


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
        status = "" if code is None else f" (status {code:04X})"
        problem = f"it refused the request for storage commitment{status}"
        raise PeerError.of(peer, problem, "look at its log", passing=code is None)


CSV: Final = "push.csv"
JSON: Final = "push.json"
_WAIT_S: Final = 60.0


class Commitment(NamedTuple):
    """That an archive is asked to commit itself, and where it answers.

    Parameters
    ----------
    port : host and port of ours; None where it answers on the association that asked.
    """

    port: tuple[str, int] | None
    wait_s: float = _WAIT_S


@dataclass(frozen=True)
class PushSummary:
    """What a push ended with.

    Parameters
    ----------
    deliveries : of every object.
    commitment : what to say of storage commitment; empty where it was not asked for.
    """

    peer: str
    deliveries: tuple[Delivery, ...]
    commitment: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """How many objects of each status."""
        every = [d.status for d in self.deliveries]
        return {s: every.count(s) for s in ("accepted", "there", "refused", "unreached") if s in every}

    @property
    def exit_code(self) -> int:
        """0 where the archive has every object, and commits itself where it said a word on that."""
        return int(any(not d.is_there or d.committed is False for d in self.deliveries))

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "exit_code": self.exit_code,
            "peer": self.peer,
            "counts": self.counts,
            "commitment": self.commitment,
            "objects": [_row(self.peer, d) for d in self.deliveries],
        }


class _Table:
    """`push.csv` and `push.json` of a run's folder: a row an archive and object, kept over several pushes."""

    def __init__(self, out: Path, peer: str) -> None:
        self._out, self._peer, self._owned = out, peer, Owned(out)
        self._owned.check(CSV, JSON)
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        try:
            for row in (read_json(out / JSON) or {})["objects"]:
                self._rows[row["peer"], row["file"]] = row
        except (KeyError, TypeError):
            self._rows = {}

    def has(self, item: Outgoing) -> bool:
        row = self._rows.get((self._peer, self._name(item)))
        return row is not None and row["status"] in ("accepted", "there") and row["sha256"] == item.sha256

    def write(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            name = self._name(delivery.object)
            row = {
                **_row(self._peer, delivery),
                "file": name,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            self._rows[self._peer, name] = row
        rows = [self._rows[key] for key in sorted(self._rows)]
        head = list(rows[0]) if rows else ["peer"]
        self._owned.write(
            self._out / CSV, rows_bytes([head, *([row[name] for name in head] for row in rows)])
        )
        self._owned.write_json(self._out / JSON, {"format": 1, "objects": rows})

    def _name(self, item: Outgoing) -> str:
        return item.file.relative_to(self._out).as_posix()


def push_run(
    out: Path,
    peer: Peer,
    own_title: str,
    *,
    tries: int = 1,
    commitment: Commitment | None = None,
    on_pause: Callable[[str, float], None] = lambda _reason, _seconds: None,
    sleep: Callable[[float], None] = time.sleep,
) -> PushSummary:
    """Send the objects that `aiene export` made of a run.

    Raises
    ------
    UsageError : there are none in `out`, or a table of the user's lies in the place of ours.
    InputError : one cannot be read.
    """
    files = sorted(out.glob("cases/*/dicom/*.dcm"))
    if not files:
        raise UsageError(
            f"{out.name}: no DICOM objects here; make them with aiene export OUT --to dicom-seg,..."
        )
    objects = [read_outgoing(file) for file in files]
    table = _Table(out, peer.address)
    deliveries = push(objects, peer, own_title, has=table.has, tries=tries, on_pause=on_pause, sleep=sleep)
    said = ""
    if commitment is not None:
        deliveries, said = _committed(deliveries, peer, own_title, commitment)
    table.write(deliveries)
    return PushSummary(peer.address, tuple(deliveries), said)


def _committed(
    deliveries: Sequence[Delivery], peer: Peer, own_title: str, wanted: Commitment
) -> tuple[list[Delivery], str]:
    there = [d.object for d in deliveries if d.is_there]
    if not there:
        return list(deliveries), ""
    if peer.url is not None:
        return list(deliveries), "DICOMweb has no storage commitment; name the archive as AET@HOST:PORT."
    try:
        answer = ask(there, peer, own_title, answers=Answers(), port=wanted.port, wait_s=wanted.wait_s)
    except PeerError as error:
        return list(deliveries), f"No storage commitment: {error}"
    if answer is None:
        return list(deliveries), "The archive has not yet answered the request for storage commitment."
    held, lost = (set(uids) for uids in answer)
    word = dict.fromkeys(lost, False) | dict.fromkeys(held, True)
    marked = [replace(d, committed=word.get(d.object.sop_instance)) for d in deliveries]
    return marked, f"The archive committed to storing {len(held)} of {len(there)} objects."


def _row(peer: str, delivery: Delivery) -> dict[str, Any]:
    return {
        "peer": peer,
        "file": delivery.object.file.name,
        "kind": delivery.object.kind,
        "status": delivery.status,
        "reason": delivery.reason,
        "committed": delivery.committed,
        "sha256": delivery.object.sha256,
    }
