"""A real Chromium without a screen, with WebGL in software; tests skip where there is none."""

from __future__ import annotations

import io
import json
import shutil
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_GL = ("--disable-gpu", "--disable-3d-apis")


@contextmanager
def browser(*, gl: bool = True, width: int = 1200, height: int = 900) -> Iterator[Any]:
    """A driver of Chromium (selenium); its window has a fixed size, one pixel a CSS pixel."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no Chromium with its driver (Debian: chromium, chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    quiet = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars")
    for word in (*quiet, f"--window-size={width},{height}", *(SOFTWARE_GL if gl else NO_GL)):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(chromedriver))
    try:
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        driver.set_script_timeout(120)
        yield driver
    finally:
        driver.quit()


def wait_for(driver: Any, condition: str, seconds: float = 120) -> Any:
    """The value of an expression of JavaScript as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = driver.execute_script(f"return ({condition})")
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"never true: {condition}; {complaints(driver)}")


def complaints(driver: Any) -> list[str]:
    """What the page's console said since the last look, but for what the software renderer says of itself."""
    lines = [
        entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]
    return [line for line in lines if "GPU stall" not in line and "software" not in line.lower()]


def requests(driver: Any) -> list[str]:
    """The addresses that were asked for since the last look."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def screenshot(driver: Any) -> np.ndarray:
    """uint8 (row, column, RGB) of the window."""
    png = b64decode(driver.get_screenshot_as_base64())
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
