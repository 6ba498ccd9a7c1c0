"""Objects to an archive: only what it has not yet, again where that may help, and no further where not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from aiene.pacs.association import PeerError
from aiene.pacs.config import Peer
from aiene.pacs.objects import Delivery, Outgoing
from aiene.pacs.send_dimse import send, there_already
from aiene.pacs.web import WebArchive

FIRST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 3600.0


class Ledger(Protocol):
    """What we know that an archive has."""

    def has(self, item: Outgoing) -> bool:
        """Whether the archive has said so of these bytes."""
        ...

    def add(self, item: Outgoing) -> None:
        """The archive says so now."""
        ...


def pause_s(tries: int) -> float:
    """How long to wait after so many tries in vain: 2 s, doubled each time, an hour at most."""
    return float(min(FIRST_PAUSE_S * 2 ** max(0, tries - 1), LONGEST_PAUSE_S))


def push(
    objects: Sequence[Outgoing],
    peer: Peer,
    own_title: str,
    ledger: Ledger,
    *,
    tries: int = 1,
    on_delivery: Callable[[Delivery], None] = lambda _: None,
    on_pause: Callable[[str, float], None] = lambda _reason, _seconds: None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Delivery]:
    """Send what the archive has not.

    The archive is asked first. Where it answers no queries, the ledger counts.

    Parameters
    ----------
    own_title : our AE title.
    ledger : is told of every object that the archive has.
    tries : how often, where the reason may pass by itself; a caller that is refused for good is not.
    on_pause : told the reason before each pause, and its length.

    Returns
    -------
    A delivery for each object, in their order.
    """
    done: dict[int, Delivery] = {}

    def tell(delivery: Delivery) -> None:
        if delivery.is_there:
            ledger.add(delivery.object)
        on_delivery(delivery)

    for attempt in range(1, tries + 1):
        left = [o for o in objects if id(o) not in done or done[id(o)].status == "unreached"]
        passing, reason = True, ""
        try:
            for delivery in _once(left, peer, own_title, ledger, tell):
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
    objects: Sequence[Outgoing], peer: Peer, own_title: str, ledger: Ledger, tell: Callable[[Delivery], None]
) -> list[Delivery]:
    web = WebArchive(peer) if peer.url is not None else None
    there = web.there_already(objects) if web else there_already(objects, peer, own_title)
    found = [
        Delivery(item, "there")
        for item in objects
        if (ledger.has(item) if there is None else item.sop_instance in there)
    ]
    for delivery in found:
        tell(delivery)
    known = {id(d.object) for d in found}
    left = [o for o in objects if id(o) not in known]
    if not left:
        return found
    sent = web.send(left, tell) if web else send(left, peer, own_title, tell)
    return [*found, *sent]
