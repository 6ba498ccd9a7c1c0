"""OHIF beside an archive, on this machine alone: its files, our configuration, and the archive's DICOMweb.

    npm pack @ohif/app && tar xzf ohif-app-*.tgz          # package/dist is the viewer, ready to be served
    python serve.py package/dist --archive http://127.0.0.1:8042/dicom-web

Then http://127.0.0.1:3000/viewer?StudyInstanceUIDs=UID shows a study; SEG and RTSTRUCT open by a double
click. It only reads. To look at results, not to be put before users: it has no log-in.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONFIG = Path(__file__).with_name("app-config.js")
ROOT = "/dicom-web"
HOSTS = ("127.0.0.1", "localhost")


class Handler(SimpleHTTPRequestHandler):
    """Files of the viewer; what it does not have is the viewer's own page, as single-page applications want.

    Parameters
    ----------
    archive : address of the DICOMweb service that stands behind `/dicom-web`.
    """

    def __init__(self, *words: object, archive: str, directory: str) -> None:
        self.archive = archive.rstrip("/")
        super().__init__(*words, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """A file, the archive's answer, our configuration, or the viewer's page."""
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in HOSTS:
            return self.send_error(403, "this server answers only at its own address")
        path = self.path.split("?")[0]
        if path == ROOT or path.startswith(f"{ROOT}/"):
            return self._from_archive(self.path.removeprefix(ROOT))
        if path == "/app-config.js":
            return self._send(200, "text/javascript", CONFIG.read_bytes())
        if not Path(self.translate_path(path)).is_file():
            self.path = "/index.html"
        return super().do_GET()

    def end_headers(self) -> None:
        """With what the viewer's workers need to share memory."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *words: object) -> None:
        """Nothing: addresses hold UIDs."""

    def _from_archive(self, rest: str) -> None:
        asked = urllib.request.Request(
            self.archive + rest, headers={"Accept": self.headers.get("Accept", "*/*")}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            answer = opener.open(asked, timeout=60)
        except urllib.error.HTTPError as refused:
            answer = refused
        except OSError:
            return self._send(502, "text/plain", b"the archive does not answer")
        with answer:
            self.send_response(answer.status or 200)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/octet-stream"))
            self.send_header("Connection", "close")
            self.end_headers()
            shutil.copyfileobj(answer, self.wfile)
            self.close_connection = True
        return None

    def _send(self, code: int, kind: str, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def server(viewer: Path, archive: str, port: int) -> ThreadingHTTPServer:
    """The server on 127.0.0.1, not running yet."""
    return ThreadingHTTPServer(
        ("127.0.0.1", port), partial(Handler, archive=archive, directory=str(viewer.resolve()))
    )


def main(words: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("viewer", type=Path)
    parser.add_argument("--archive", default="http://127.0.0.1:8042/dicom-web")
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args(words)
    if not (given.viewer / "index.html").is_file():
        parser.error(f"{given.viewer.name}: no index.html lies there; name the folder dist of @ohif/app.")
    if not given.archive.startswith(("http://", "https://")):
        parser.error("--archive is an address of http or https.")
    with server(given.viewer, given.archive, given.port) as running:
        running.serve_forever()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
