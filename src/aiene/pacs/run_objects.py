"""The objects of a run to an archive, with a table of what became of each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiene.cells import rows_bytes
from aiene.errors import UsageError
from aiene.pacs.association import PeerError
from aiene.pacs.commitment import Answers, ask
from aiene.pacs.config import Peer
from aiene.pacs.objects import Delivery, Outgoing, read_outgoing
from aiene.pacs.push import push
from aiene.results.ownership import Owned

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
            for row in json.loads((out / JSON).read_text(encoding="utf-8"))["objects"]:
                self._rows[row["peer"], row["file"]] = row
        except (OSError, ValueError, KeyError, TypeError):
            self._rows = {}

    def has(self, item: Outgoing) -> bool:
        row = self._rows.get((self._peer, self._name(item)))
        return row is not None and row["status"] in ("accepted", "there") and row["sha256"] == item.sha256

    def add(self, item: Outgoing) -> None:
        """Kept in memory; `write` tells of it."""

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
    objects = read_outgoing(files)
    table = _Table(out, peer.address)
    deliveries = push(objects, peer, own_title, table, tries=tries, on_pause=on_pause, sleep=sleep)
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
    marked = [
        replace(
            d,
            committed=True
            if d.object.sop_instance in held
            else False
            if d.object.sop_instance in lost
            else None,
        )
        for d in deliveries
    ]
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
