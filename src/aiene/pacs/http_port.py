"""A port for HTTP: its thread, its token, its answers."""

from __future__ import annotations

import hmac
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from aiene.errors import UsageError
from aiene.pacs.config import WebPort, secret

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
