"""The review's server is killed between and within saves: what it answered for is there, and work goes on."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiene.results.reviews import ReviewStore
from builders.export_runs import Run
from builders.review_pages import served
from builders.reviews import CountingReview

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parents[1]
_SERVE = """
import sys
from pathlib import Path
import uvicorn
from aiene.review.server import make_app
from builders.reviews import CountingReview
name = f"127.0.0.1:{sys.argv[2]}"
app = make_app(CountingReview(Path(sys.argv[1])), "key", frozenset({name}))
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""


def ask(port: int, where: str, content: dict[str, Any]) -> dict[str, Any]:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    words = {"Cookie": "aiene_review=key", "Content-Type": "application/json"}
    link.request("POST", f"/{where}/case", json.dumps(content), words)
    answer = link.getresponse()
    told: dict[str, Any] = json.loads(answer.read())
    assert answer.status == 200, told
    return told


@contextmanager
def process(run: Run) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server in a process of its own, and its port; killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    words = [sys.executable, "-W", "ignore", "-c", _SERVE, str(run.out), str(port)]
    server = subprocess.Popen(words, env=os.environ | {"PYTHONPATH": path})
    try:
        for _ in range(1200):
            assert server.poll() is None
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                break
            time.sleep(0.1)
        yield server, port
    finally:
        server.kill()
        server.wait()


def test_kills_lose_no_version_that_was_answered_for(run: Run) -> None:
    choose, answered = random.Random(5), 0
    drawing = CountingReview(run.out).open("case").scene.labels.array.copy()
    for number in range(4):
        with process(run) as (server, port):
            state = ask(port, "state", {})
            assert state["base"] >= answered
            drawing[drawing == 2] = 0
            drawing[2, 2 : 4 + number, 3:9] = 3
            packed = b64encode(gzip.compress(drawing.tobytes())).decode()
            body = {"drawing": packed, "size": state["size"], "base": state["base"], "status": "corrected"}
            told: list[int] = []

            def save(body: dict[str, Any] = body, port: int = port, told: list[int] = told) -> None:
                with suppress(OSError, http.client.HTTPException):
                    told.append(ask(port, "save", body)["base"])

            saving = threading.Thread(target=save)
            saving.start()
            if number == 0:
                saving.join()  # between two saves
            else:
                time.sleep(choose.uniform(0.0, 0.15))  # within one
            server.kill()
            saving.join()
            answered = max([answered, *told])
        store = ReviewStore(run.out, "anna")
        versions = [store.read("case", n + 1).version for n in range(len(store.history("case")))]
        assert [v.number for v in versions] == list(range(1, len(versions) + 1))
        assert len(versions) >= answered
    with process(run) as (_, port):
        state = ask(port, "state", {})
        assert ask(port, "save", {"base": state["base"], "status": "accepted"})["base"] == state["base"] + 1
    assert answered >= 1
    assert (run.out / "review" / "anna" / "patients.csv").is_file()


def test_two_gigabytes_are_refused_before_they_are_read(run: Run) -> None:
    with served(run) as url:
        host = url.split("/")[2]
        words = {"Host": host, "Cookie": "aiene_review=key"}
        link = http.client.HTTPConnection(host, timeout=60)
        link.putrequest("POST", "/save/case", skip_host=True)
        for name, value in {**words, "Content-Length": str(2_000_000_000)}.items():
            link.putheader(name, value)
        link.endheaders(np.zeros(1000, np.uint8).tobytes())
        assert link.getresponse().status == 413
        link.close()

        # without a length: it ends at the bound, long before two gigabytes
        sent = 0

        def pieces() -> Iterator[bytes]:
            nonlocal sent
            while sent < 2_000_000_000:
                sent += 1_000_000
                yield b" " * 1_000_000

        link = http.client.HTTPConnection(host, timeout=60)
        with suppress(ConnectionError):
            link.request("POST", "/save/case", pieces(), words, encode_chunked=True)
        with suppress(ConnectionError):
            assert link.getresponse().status == 413
        assert sent < 200_000_000
        link.close()
