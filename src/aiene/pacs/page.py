"""What stands in the queue: as rows, as figures for Prometheus, and as a small page that only shows."""

from __future__ import annotations

import html
import json
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiene.errors import UsageError
from aiene.pacs.config import WebPort
from aiene.pacs.http_port import HttpPort, Quiet
from aiene.pacs.queue import STATES, Queue, Study
from aiene.report.document import RESEARCH_ONLY

_SHOWN: Final = 500  # rows of the page, the newest
COLUMNS: Final = ("study", "state", "series", "images", "received", "changed", "seconds", "reason")


def open_queue(store: Path) -> Queue:
    """The queue of a store that is there.

    Raises
    ------
    UsageError : there is none, or it cannot be read.
    """
    file = store / "queue.sqlite"
    if not file.is_file():
        raise UsageError(
            f"{store.name}: no queue here; start aiene dicom listen with this configuration first."
        )
    try:
        return Queue(file)
    except sqlite3.Error as error:
        raise UsageError(
            f"{file.name}: it cannot be read ({error}); check the disk and its permissions."
        ) from error


def row(study: Study, *, show_uids: bool = False) -> dict[str, Any]:
    """One study as it may be shown: under the store's name for it, with its UID only where asked for."""
    return {
        "study": study.uid if show_uids else study.name,
        "state": study.state,
        "series": study.series,
        "images": study.images,
        "received": _time(study.first_at),
        "changed": _time(study.changed_at),
        "seconds": round(study.seconds, 1),
        "reason": study.reason,
        "tries": study.tries,
        "images_deleted": bool(study.dropped),
    }


def snapshot(queue: Queue, *, show_uids: bool = False) -> dict[str, Any]:
    """Everything, as JSON values."""
    studies = queue.studies()
    return {
        "time": _time(time.time()),
        "counts": {state: sum(s.state == state for s in studies) for state in STATES},
        "counters": queue.counters(),
        "studies": [row(s, show_uids=show_uids) for s in studies],
        "notice": RESEARCH_ONLY,
    }


def prometheus(queue: Queue) -> str:
    """Figures in Prometheus' text format, version 0.0.4."""
    counters, studies = queue.counters(), queue.studies()
    told = [
        ("aiene_instances_received_total", "counter", "Objects received.", counters.get("received", 0)),
        ("aiene_studies_done_total", "counter", "Studies that were sent back.", counters.get("sent", 0)),
        ("aiene_studies_failed_total", "counter", "Studies that failed.", counters.get("failed", 0)),
        (
            "aiene_objects_sent_total",
            "counter",
            "Objects that archives accepted.",
            counters.get("objects_sent", 0),
        ),
        (
            "aiene_study_seconds_total",
            "counter",
            "Seconds from the last image to the end of the work, over all studies.",
            counters.get("seconds", 0),
        ),
        (
            "aiene_queue_length",
            "gauge",
            "Studies that are not done.",
            sum(s.state not in ("sent", "failed") for s in studies),
        ),
    ]
    lines = []
    for name, kind, words, value in told:
        lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}", f"{name} {value:.17g}"]
    lines += ["# HELP aiene_studies Studies by state.", "# TYPE aiene_studies gauge"]
    lines += [
        f'aiene_studies{{state="{state}"}} {sum(s.state == state for s in studies)}' for state in STATES
    ]
    return "\n".join(lines) + "\n"


def page(queue: Queue) -> str:
    """The page: nothing to load, nothing to press; it asks for itself again every 15 seconds."""
    told = snapshot(queue)
    counts = ", ".join(f"{count} {state}" for state, count in told["counts"].items())
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    rows = "".join(
        f'<tr class="{s["state"]}">'
        + "".join(f"<td>{html.escape(str(s[name]))}</td>" for name in COLUMNS)
        + "</tr>"
        for s in reversed(told["studies"][-_SHOWN:])
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>AI-ENE queue</title>'
        '<meta http-equiv="refresh" content="15"><style>body{font:15px sans-serif;margin:2em}'
        "table{border-collapse:collapse}td,th{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:left}"
        ".failed td{color:#a00}</style></head><body><h1>Studies</h1>"
        f"<p>{told['time']}: {counts}.</p><table><tr>{head}</tr>{rows}</table>"
        f"<p><strong>{RESEARCH_ONLY}</strong></p></body></html>"
    )


class _Status(Quiet):
    """Shows the queue."""

    queue: Queue

    def do_GET(self) -> None:  # noqa: N802 (the name in http.server)
        """The page, the figures, or the same as JSON."""
        place = self.path.split("?", 1)[0]
        if not self.is_allowed:
            self.answer(401, b"", "text/plain")
        elif place == "/":
            self.answer(200, page(self.queue).encode(), "text/html; charset=utf-8")
        elif place == "/status.json":
            self.answer(200, json.dumps(snapshot(self.queue)).encode(), "application/json")
        elif place == "/metrics":
            self.answer(200, prometheus(self.queue).encode(), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self.answer(404, b"", "text/plain")

    do_HEAD = do_GET  # noqa: N815 (the name in http.server)


def status_port(settings: WebPort, queue: Queue) -> HttpPort:
    """Open the page: `/`, `/status.json` and `/metrics`.

    Raises
    ------
    UsageError : the port cannot be opened.
    """
    return HttpPort(settings, _Status, queue=queue)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
