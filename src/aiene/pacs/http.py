"""What the loop answers over HTTP: a STOW-RS receiver and a status page, each on a port of its own.

The receiver (PS3.18 10.5) is for gateways that speak DICOMweb only, and fills the same journal as C-STORE.
The page shows the queue as rows, as figures for Prometheus and as HTML; it changes nothing.
"""

from __future__ import annotations

import hmac
import html
import json
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final

from aiene.errors import UsageError
from aiene.pacs.config import WebPort, secret
from aiene.pacs.queue import STATES, Queue, Study
from aiene.pacs.store import NotKeptError, Receiver, Taken, Trail
from aiene.report.document import RESEARCH_ONLY

_HANGING_S: Final = 60.0


class HttpPort:
    """A port for HTTP with its thread; a context.

    Parameters
    ----------
    handler : answers a request.
    facts : class attributes that it needs.

    Raises
    ------
    UsageError : the port cannot be opened.
    """

    def __init__(self, settings: WebPort, handler: type[Quiet], **facts: Any) -> None:
        token = None if settings.token_file is None else secret(settings.token_file)
        handler = type(handler.__name__, (handler,), {"token": token, **facts})
        try:
            self._server = ThreadingHTTPServer((settings.host, settings.port), handler)
        except OSError as error:
            raise UsageError(
                f"{settings.host}:{settings.port}: the port cannot be opened ({error.strerror}); "
                "end the program that has it, or choose another."
            ) from error
        self._server.daemon_threads = True
        if settings.tls is not None:
            tls = settings.tls.context()
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, name="HTTP service", daemon=True).start()

    def __enter__(self) -> HttpPort:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Quiet(BaseHTTPRequestHandler):
    """A handler that logs nothing by itself: a path may hold a UID."""

    timeout = _HANGING_S
    server_version = "aiene"
    sys_version = ""
    token: str | None = None

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name in http.server)
        """Nothing."""

    def answer(self, code: int, content: bytes, kind: str) -> None:
        """Send a whole answer."""
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def is_allowed(self) -> bool:
        """Whether the caller has the token, where one is asked for."""
        if self.token is None:
            return True
        given = self.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode())


_BLOCK: Final = 1 << 16
_LARGEST_OBJECT: Final = 2 << 30  # bytes; a DICOM element's length has 32 bits
_LONGEST_HEADER: Final = 1 << 16
_PATH: Final = re.compile(r"(?:/[\w-]+)*/studies(?:/(?P<study>[0-9.]{1,64}))?/?")
_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.I)


class BadRequestError(Exception):
    """A request that is no STOW-RS request."""


class _Stow(Quiet):
    receiver: Receiver
    trail: Trail
    has_room: Callable[[], bool]

    def do_POST(self) -> None:
        """Store what was sent."""
        self.close_connection = True  # a request that is refused has not been read
        found = _PATH.fullmatch(self.path.split("?", 1)[0])
        if found is None:
            self.answer(404, b"", "text/plain")
        elif not self.is_allowed:
            self._refuse(401, "no valid token")
        elif not self.has_room():
            self._refuse(503, "the disk is nearly full")
        else:
            self._store(found["study"])

    def _refuse(self, code: int, reason: str) -> None:
        self.trail.audit("stow_refused", address=self.client_address[0], reason=reason)
        self.answer(code, reason.encode(), "text/plain")

    def _store(self, study: str | None) -> None:
        stored: list[Taken] = []
        failed: list[tuple[str, int]] = []
        try:
            for part in parts(self._body(), self.headers.get("Content-Type", "")):
                try:
                    stored.append(self.receiver.take(part, expected_study=study))
                except NotKeptError as error:
                    self.trail.event("not_kept", address=self.client_address[0], reason=str(error))
                    failed.append((error.sop_instance_uid, 0xA700 if error.lack else 0xC000))
        except (BadRequestError, OSError) as error:
            if not stored:
                self.answer(400, str(error).encode(), "text/plain")
                return
            failed.append(("", 0xC000))  # what came after the break
        for name, count in Counter(taken.study for taken in stored).items():
            self.trail.audit(
                "sent_to_us", address=self.client_address[0], study=name, instances=count, by="STOW-RS"
            )
        code = 200 if not failed else 202 if stored else 409
        self.answer(code, json.dumps(_told(stored, failed)).encode(), "application/dicom+json")

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return _chunks(self.rfile)
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            raise BadRequestError("no Content-Length") from None
        return _blocks(self.rfile, length)


def stow_port(settings: WebPort, receiver: Receiver, trail: Trail, has_room: Callable[[], bool]) -> HttpPort:
    """Open the receiver.

    Parameters
    ----------
    has_room : tells whether the disk has room for more.

    Raises
    ------
    UsageError : the port cannot be opened.
    """
    return HttpPort(settings, _Stow, receiver=receiver, trail=trail, has_room=staticmethod(has_room))


def _blocks(stream: BufferedIOBase, length: int) -> Iterator[bytes]:
    while length > 0:
        block = stream.read(min(_BLOCK, length))
        if not block:
            raise BadRequestError("the request ended early")
        length -= len(block)
        yield block


def _chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    while True:
        try:
            size = int(stream.readline(_LONGEST_HEADER).split(b";")[0], 16)
        except ValueError:
            raise BadRequestError("the request ended early") from None
        if size == 0:
            return
        yield from _blocks(stream, size)
        stream.readline(3)


def parts(body: Iterator[bytes], content_type: str) -> Iterator[bytes]:
    """The parts of a multipart body, one after the other; memory holds one of them.

    Raises
    ------
    BadRequestError : it is none, or breaks off.
    """
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().lstrip().startswith("multipart/related") or found is None:
        raise BadRequestError("the request is not multipart/related with a boundary")
    mark = b"\r\n--" + (found[1] or found[2]).encode()
    held = bytearray(b"\r\n")  # the first boundary may stand at the very start
    _upto(held, body, mark)
    while True:
        while len(held) < 2:
            _more(held, body)
        if held[:2] == b"--":
            return
        _upto(held, body, b"\r\n\r\n", limit=_LONGEST_HEADER)
        yield _upto(held, body, mark)


def _upto(held: bytearray, body: Iterator[bytes], mark: bytes, limit: int = _LARGEST_OBJECT) -> bytes:
    """What comes before a mark; it and the mark are gone from `held` afterwards."""
    start = 0
    while True:
        at = held.find(mark, start)
        if at >= 0:
            before = bytes(held[:at])
            del held[: at + len(mark)]
            return before
        if len(held) > limit:
            raise BadRequestError("a part of the request is too large")
        start = max(0, len(held) - len(mark))
        _more(held, body)


def _more(held: bytearray, body: Iterator[bytes]) -> None:
    block = next(body, None)
    if block is None:
        raise BadRequestError("the request ended early")
    held += block


def _told(stored: list[Taken], failed: list[tuple[str, int]]) -> dict[str, Any]:
    def uid(value: str) -> dict[str, Any]:
        return {"vr": "UI", "Value": [value]} if value else {"vr": "UI"}

    answer: dict[str, Any] = {}
    if stored:
        items = [{"00081150": uid(t.sop_class_uid), "00081155": uid(t.sop_instance_uid)} for t in stored]
        answer["00081199"] = {"vr": "SQ", "Value": items}
    if failed:
        items = [{"00081155": uid(uid_), "00081197": {"vr": "US", "Value": [code]}} for uid_, code in failed]
        answer["00081198"] = {"vr": "SQ", "Value": items}
    return answer


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


_TOTALS: Final = {
    "received": ("instances_received", "Objects received."),
    "sent": ("studies_done", "Studies that were sent back."),
    "failed": ("studies_failed", "Studies that failed."),
    "objects_sent": ("objects_sent", "Objects that archives accepted."),
    "seconds": ("study_seconds", "Seconds from the last image to the end of the work, over all studies."),
}
"""By counter of the queue, its name and its meaning in Prometheus."""


def prometheus(queue: Queue) -> str:
    """Figures in Prometheus' text format, version 0.0.4."""
    counters, studies = queue.counters(), queue.studies()
    told = [
        (f"aiene_{name}_total", "counter", words, counters.get(counter, 0))
        for counter, (name, words) in _TOTALS.items()
    ]
    waiting = sum(s.state not in ("sent", "failed") for s in studies)
    told.append(("aiene_queue_length", "gauge", "Studies that are not done.", waiting))
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
    queue: Queue

    def do_GET(self) -> None:
        """The page, the figures, or the same as JSON."""
        shown = _SHOWN_AT.get(self.path.split("?", 1)[0])
        if not self.is_allowed:
            self.answer(401, b"", "text/plain")
        elif shown is None:
            self.answer(404, b"", "text/plain")
        else:
            made, kind = shown
            self.answer(200, made(self.queue).encode(), kind)

    do_HEAD = do_GET  # noqa: N815 (the name in http.server)


_SHOWN_AT: Final[dict[str, tuple[Callable[[Queue], str], str]]] = {
    "/": (page, "text/html; charset=utf-8"),
    "/status.json": (lambda queue: json.dumps(snapshot(queue)), "application/json"),
    "/metrics": (prometheus, "text/plain; version=0.0.4; charset=utf-8"),
}


def status_port(settings: WebPort, queue: Queue) -> HttpPort:
    """Open the page: `/`, `/status.json` and `/metrics`.

    Raises
    ------
    UsageError : the port cannot be opened.
    """
    return HttpPort(settings, _Status, queue=queue)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
