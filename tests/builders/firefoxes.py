"""A real Firefox without a screen; tests skip where there is none.

Debian ships no geckodriver, so it is driven by WebDriver BiDi (W3C), which Firefox speaks by itself over a
WebSocket; of that protocol only what the tests need.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

_ADDRESS = re.compile(r"WebDriver BiDi listening on (ws://127\.0\.0\.1:\d+)")
_SETTINGS = {
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "remote.prefs.recommended": True,
    "webgl.force-enabled": True,  # by the software renderer of Mesa
}


@contextmanager
def firefox(*, gl: bool = True, width: int = 1200, height: int = 900) -> Iterator[Firefox]:
    """A driver of Firefox; its page has a fixed size, one pixel a CSS pixel."""
    websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("no Firefox (Debian: firefox-esr)")
    with ExitStack() as held:
        profile = held.enter_context(
            tempfile.TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True)
        )
        chosen = _SETTINGS | ({} if gl else {"webgl.disabled": True})
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in chosen.items()]
        (Path(profile) / "user.js").write_text("\n".join(lines))
        display = {"DISPLAY": held.enter_context(_screen())} if gl else {"MOZ_HEADLESS": "1"}
        words = [program, "--no-remote", "--profile", profile, "--remote-debugging-port", "0"]
        log = Path(profile) / "firefox.log"
        process = held.enter_context(_running(words, log, {"HOME": profile, **display}))
        address = _found(_ADDRESS, log, process)
        socket = websocket.create_connection(f"{address}/session", timeout=120, suppress_origin=True)
        driver = Firefox(socket)
        driver.size(width, height)
        yield driver
        driver.quit()


@contextmanager
def _screen() -> Iterator[str]:
    """A display in memory: without one, Firefox has no WebGL on Linux."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("no Xvfb (Debian: xvfb), without which Firefox has no WebGL")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        words = [program, "-displayfd", "1", "-screen", "0", "1600x1200x24", "-nolisten", "tcp"]
        with _running(words, log, {}) as process:
            yield f":{_found(re.compile(r'^([0-9]+)$', re.M), log, process)}"


@contextmanager
def _running(words: Sequence[str], log: Path, more: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stream:
        process = subprocess.Popen(words, stdout=stream, stderr=stream, env=os.environ | more)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _found(wanted: re.Pattern[str], log: Path, process: subprocess.Popen[bytes]) -> str:
    """What a program says once it is ready."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        found = wanted.search(log.read_text(errors="replace"))
        if found is not None:
            return found[1]
        time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace")[-2000:])


class Firefox:
    """One tab, by the names of selenium's methods where there are any.

    Parameters
    ----------
    socket : a WebSocket to Firefox's own end of BiDi.
    """

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self._events: list[dict[str, Any]] = []
        self._said("session.new", capabilities={})
        self._tab = self._said("browsingContext.getTree")["contexts"][0]["context"]
        self._said("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])

    def get(self, url: str) -> None:
        self._said("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def execute_script(self, script: str, *arguments: Any) -> Any:
        """The JSON value of a function's body; arguments are JSON values."""
        body = f"(() => {{ const value = (function () {{ {script} }}).apply(null, {json.dumps(arguments)});"
        told = self._said(
            "script.evaluate",
            expression=f"{body} return value === undefined ? 'null' : JSON.stringify(value) }})()",
            target={"context": self._tab},
            awaitPromise=False,
        )
        assert told["type"] == "success", told
        return json.loads(told["result"]["value"])

    def click(self, x: float, y: float) -> None:
        """The left button at a place on the page, in CSS pixels."""
        self._act({"type": "pointerMove", "x": round(x), "y": round(y)}, {"type": "pointerDown", "button": 0})
        self._act({"type": "pointerUp", "button": 0})

    def size(self, width: int, height: int) -> None:
        size = {"width": width, "height": height}
        self._said("browsingContext.setViewport", context=self._tab, viewport=size, devicePixelRatio=1.0)

    def get_screenshot_as_base64(self) -> str:
        return str(self._said("browsingContext.captureScreenshot", context=self._tab)["data"])

    def get_log(self, kind: str) -> list[dict[str, Any]]:
        """What came since the last look: the console as `browser`, requests as `performance`."""
        self.execute_script("return 0")  # what is on its way comes before the answer
        method = {"browser": "log.entryAdded", "performance": "network.beforeRequestSent"}[kind]
        found = [event["params"] for event in self._events if event["method"] == method]
        self._events = [event for event in self._events if event["method"] != method]
        if kind == "browser":
            levels = {"error": "SEVERE", "warn": "WARNING"}
            return [{"level": levels.get(e["level"], "INFO"), "message": str(e["text"])} for e in found]
        asked = [{"method": "Network.requestWillBeSent", "params": one} for one in found]
        return [{"message": json.dumps({"message": one})} for one in asked]

    def quit(self) -> None:
        self._said("browser.close")

    def _act(self, *actions: dict[str, Any]) -> None:
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}}
        self._said("input.performActions", context=self._tab, actions=[{**mouse, "actions": list(actions)}])

    def _said(self, method: str, **params: Any) -> Any:
        """The result of a command; events that come meanwhile are kept."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") != number:
                self._events.append(message)
            elif message["type"] == "error":
                raise AssertionError(f"{method}: {message['error']}: {message['message']}")
            else:
                return message["result"]
