"""One study through run, export and sending back; in a process of its own, so nothing stops the listener."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from pydicom.uid import generate_uid

from aiene.cohort import RunSummary, Selection, run_cohort
from aiene.errors import AieneError, OutputError
from aiene.export.run import export_run
from aiene.pacs.config import Settings
from aiene.pacs.dimse import Delivery, Outgoing, PeerError, read_outgoing
from aiene.pacs.push import Answers, ask, push
from aiene.pacs.queue import Outcome, Queue
from aiene.pacs.store import Store

RunStudy = Callable[[Settings, Store, str], RunSummary]


class _Sent:
    """The queue's word on what an archive has."""

    def __init__(self, queue: Queue, store: Store, peer: str, study: str) -> None:
        self._queue, self._store, self._peer, self._study = queue, store, peer, study

    def has(self, item: Outgoing) -> bool:
        return self._queue.was_sent(self._peer, self._name(item), item.sha256)

    def add(self, item: Outgoing) -> None:
        if not self.has(item):
            self._queue.note_sent(self._peer, self._name(item), item.sha256, self._study)

    def _name(self, item: Outgoing) -> str:
        return self._store.name_of("instance", item.sop_instance)


def work(settings: Settings, name: str, generation: int, run: RunStudy | None = None) -> Outcome:
    """Run a study, make its objects and send them.

    Parameters
    ----------
    name : of the study in the store.
    generation : of its images; nothing is sent where another one has begun.
    run : how a study is run; `aiene run` if None.
    """
    store, queue = _opened(settings.store)
    study = queue.study(name)
    if study is None or study.generation != generation:
        return Outcome("stale")
    gone = [i for i in queue.instances(name) if not store.instance_file(name, i).is_file()]
    if gone:
        return Outcome(
            "failed",
            f"{len(gone)} of its {study.images} images were deleted meanwhile; send the whole study again.",
        )
    try:
        summary = (run or run_study)(settings, store, name)
        files, problems = _export(settings, store, name, summary)
    except OutputError as error:
        return Outcome("later", str(error))
    except AieneError as error:
        return Outcome("failed", str(error))
    if not queue.move(name, "exporting", expected=("running", "exporting"), generation=generation):
        return Outcome("stale")
    sent = _send(settings, store, queue, name, files)
    if sent.status == "done" and problems:
        return Outcome("failed", problems[0], sent.objects)
    return sent


@cache
def _opened(root: Path) -> tuple[Store, Queue]:
    store = Store(root)
    return store, Queue(store.queue_file)


def run_study(settings: Settings, store: Store, name: str) -> RunSummary:
    """What `aiene run` leaves, in the study's folder of results."""
    words = settings.run
    return run_cohort(
        store.incoming / name,
        store.results / name,
        model=words.model,
        device=words.device,
        selection=Selection(format="dicom"),
        include_short_axes=words.include_short_axes,
        ene_threshold=words.ene_threshold,
        jobs=words.jobs,
    )


def _export(settings: Settings, store: Store, name: str, summary: RunSummary) -> tuple[list[Path], list[str]]:
    """The files of the objects, and what could not be done."""
    out = store.results / name
    mine = {result.case_id for result in summary.results}
    rows = [row for row in export_run(out, settings.export, overwrite=True).rows if row.case_id in mine]
    problems = [r.reason for r in summary.results if r.status == "failed"]
    problems += [row.reason for row in rows if row.status == "failed"]
    return [out / file for row in rows for file in row.files], problems


def _send(settings: Settings, store: Store, queue: Queue, name: str, files: list[Path]) -> Outcome:
    objects = [read_outgoing(file) for file in files]
    counts: list[tuple[str, int]] = []
    later = refused = note = ""
    for peer_name in settings.send_to:
        peer = settings.peers[peer_name]
        sent, title = _Sent(queue, store, peer_name, name), settings.listen.ae_title
        found = push(objects, peer, title, has=sent.has, on_kept=sent.add) if objects else []
        queue.count("objects_sent", sum(d.status == "accepted" for d in found))
        counts.append((peer_name, sum(d.is_there for d in found)))
        later = later or _first(found, "unreached", peer_name)
        refused = refused or _first(found, "refused", peer_name)
        if peer.commitment and found and all(d.is_there for d in found):
            note = note or _ask_commitment(settings, store, queue, name, peer_name, objects)
    if refused:
        return Outcome("failed", refused, tuple(counts))
    return Outcome("later" if later else "done", later or note, tuple(counts))


def _first(found: list[Delivery], status: str, peer_name: str) -> str:
    return next((f"{peer_name}: {d.object.kind}: {d.reason}" for d in found if d.status == status), "")


def _ask_commitment(
    settings: Settings, store: Store, queue: Queue, name: str, peer_name: str, objects: list[Outgoing]
) -> str:
    """Ask; the answer comes to the listener, whenever the archive likes. What to say where it does not."""
    transaction = str(generate_uid())
    queue.note_asked(transaction, peer_name, name)
    peer, title = settings.peers[peer_name], settings.listen.ae_title
    try:
        answer = ask(objects, peer, title, answers=Answers(), transaction=transaction, wait_s=0)
    except PeerError as error:  # the objects are there; only the promise is not
        return f"{peer_name}: no storage commitment: {error}"
    if answer is not None:
        held, lost = ([store.name_of("instance", uid) for uid in uids] for uids in answer)
        queue.note_committed(transaction, held, lost)
    return ""
