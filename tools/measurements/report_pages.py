"""Time and size of a run's pages, and pictures of them in Chromium.

python -m tools.measurements.report_pages OUT                      seconds and MB of the pages of a run
python -m tools.measurements.report_pages OUT --picture FILE.png   also a picture of its first patient's page
"""

from __future__ import annotations

import argparse
import io
import shutil
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver

from aiene.viewer.run import report_run

_WIDTH, _HEIGHT = 1400, 900
_COLOURS = 256  # of the picture's palette: a PNG under 300 kB


def main() -> None:
    """Make the pages, and say what they took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--picture", type=Path)
    words = parser.parse_args()
    start = time.perf_counter()
    summary = report_run(words.out, images=words.images, jobs=1)
    taken = time.perf_counter() - start
    pages = [words.out / "cases" / card.result.case_id / "report.html" for card in summary.cards if card.href]
    sizes = [page.stat().st_size / 1e6 for page in pages]
    cohort = summary.cohort.stat().st_size / 1e6
    print(f"{len(pages)} pages in {taken:.1f} s, {max(sizes):.1f} MB at most; the cohort's {cohort:.2f} MB")
    if words.picture is not None:
        shoot(pages[-1], words.picture)


def shoot(page: Path, target: Path) -> None:
    """A picture of a page as it opens, with its first node chosen."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    gl = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    for word in ("--headless=new", "--no-sandbox", "--hide-scrollbars", *gl):
        options.add_argument(word)
    service = webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
    driver: Any = webdriver.Chrome(options=options, service=service)
    screen = {"width": _WIDTH, "height": _HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    try:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        driver.get(page.resolve().as_uri())
        while not driver.execute_script("return document.body.classList.contains('ready')"):
            time.sleep(0.2)
        driver.execute_script(
            "document.querySelector('tr[data-value] button').click(); window.scrollTo(0, 0)"
        )
        time.sleep(2)
        png = b64decode(driver.get_screenshot_as_base64())
    finally:
        driver.quit()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE).save(
        target, optimize=True
    )


if __name__ == "__main__":
    main()
