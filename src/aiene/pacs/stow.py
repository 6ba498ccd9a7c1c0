"""A STOW-RS receiver (PS3.18 10.5): the same journal, by HTTP, for gateways that speak DICOMweb only."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import Any, Final

from aiene.pacs.config import WebPort
from aiene.pacs.http_port import HttpPort, Quiet
from aiene.pacs.receiver import NotKeptError, Receiver, Taken
from aiene.pacs.trail import Trail

_BLOCK: Final = 1 << 16
_LARGEST_OBJECT: Final = 2 << 30  # bytes; a DICOM element's length has 32 bits
_LONGEST_HEADER: Final = 1 << 16
_PATH: Final = re.compile(r"(?:/[\w-]+)*/studies(?:/(?P<study>[0-9.]{1,64}))?/?")
_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.I)


class BadRequestError(Exception):
    """A request that is no STOW-RS request."""


class _Stow(Quiet):
    """Takes requests to store."""

    receiver: Receiver
    trail: Trail
    has_room: Callable[[], bool]

    def do_POST(self) -> None:  # noqa: N802 (the name in http.server)
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
                self._take(part, study, stored, failed)
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

    def _take(
        self, part: bytes, study: str | None, stored: list[Taken], failed: list[tuple[str, int]]
    ) -> None:
        try:
            stored.append(self.receiver.take(part, expected_study=study))
        except NotKeptError as error:
            self.trail.event("not_kept", address=self.client_address[0], reason=str(error))
            failed.append((error.sop_instance_uid, 0xA700 if error.lack else 0xC000))

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
        answer["00081199"] = {
            "vr": "SQ",
            "Value": [
                {"00081150": uid(t.sop_class_uid), "00081155": uid(t.sop_instance_uid)} for t in stored
            ],
        }
    if failed:
        answer["00081198"] = {
            "vr": "SQ",
            "Value": [
                {"00081155": uid(name), "00081197": {"vr": "US", "Value": [code]}} for name, code in failed
            ],
        }
    return answer
