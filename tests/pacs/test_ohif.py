"""OHIF beside the archive: our server of it, and where the viewer is there, our objects in it."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest

from aiene.export.run import export_run
from builders.browsers import browser, screenshot, wait_for
from builders.export_runs import write_run
from builders.orthanc import Orthanc
from builders.pacs_site import oblique_series, uid_of_study

FOLDER = Path(__file__).resolve().parents[2] / "integrations" / "ohif"
_VIEWER = os.environ.get("AIENE_OHIF", "")


@contextmanager
def served(viewer: Path, archive: str) -> Iterator[int]:
    """Its port."""
    spec = importlib.util.spec_from_file_location("serve", FOLDER / "serve.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.server(viewer, archive, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield int(running.server_address[1])
        running.shutdown()


def asked(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        link.request("GET", path, headers=headers)
        answer = link.getresponse()
        return answer.status, answer.read()
    finally:
        link.close()


@pytest.mark.slow
def test_viewer_archive_and_configuration_come_from_one_address(
    empty_archive: Orthanc, tmp_path: Path
) -> None:
    viewer = tmp_path / "dist"
    viewer.mkdir()
    (viewer / "index.html").write_text("the viewer")
    (viewer / "app.js").write_text("its script")
    (tmp_path / "secret.txt").write_text("secret")
    files = oblique_series(tmp_path / "ct", "ohif")
    empty_archive.store(files)
    uid = uid_of_study(files)
    with served(viewer, empty_archive.web) as port:
        assert asked(port, "/app.js") == (200, b"its script")
        assert asked(port, f"/viewer?StudyInstanceUIDs={uid}") == (200, b"the viewer")
        assert asked(port, "/app-config.js")[1] == (FOLDER / "app-config.js").read_bytes()
        (study,) = json.loads(asked(port, "/dicom-web/studies", Accept="application/dicom+json")[1])
        assert study["0020000D"]["Value"] == [uid]
        assert asked(port, "/dicom-web/studies/1.2.3/metadata")[0] == 404
        for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/dicom-web/../../secret.txt"):
            assert asked(port, path)[1] != b"secret"
        assert asked(port, "/dicom-web/studies", Host="evil.example")[0] == 403
    with served(viewer, "http://127.0.0.1:1/dicom-web") as port:
        assert asked(port, "/dicom-web/studies")[0] == 502


@pytest.mark.slow
@pytest.mark.skipif(not _VIEWER, reason="AIENE_OHIF names no folder dist of npm's @ohif/app")
@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_ohif_shows_the_nodes(kind: str, empty_archive: Orthanc, tmp_path: Path) -> None:
    files = oblique_series(tmp_path / "ct", f"ohif{kind}")
    write_run(tmp_path / "out", tmp_path / "ct")
    rows = export_run(tmp_path / "out", ["dicom-seg", "rtstruct"]).rows
    objects = [tmp_path / "out" / file for row in rows for file in row.files]
    empty_archive.store([*files, *objects])
    heads = [pydicom.dcmread(file, stop_before_pixels=True) for file in objects]
    (series,) = [head.SeriesInstanceUID for head in heads if head.Modality == kind]
    with served(Path(_VIEWER), empty_archive.web) as port, browser(width=1400, height=900) as driver:
        words = f"StudyInstanceUIDs={uid_of_study(files)}&initialSeriesInstanceUID={series}"
        driver.get(f"http://127.0.0.1:{port}/viewer?{words}")
        wait_for(driver, "document.body.innerText.includes('AI-ENE')")
        pick(driver, "Skip all")
        driver.execute_script(
            "document.elementFromPoint(innerWidth - 18, 101)"
            ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
        )
        wait_for(driver, "['GTVn_01', 'GTVn_02', 'GTVp'].every(n => document.body.innerText.includes(n))")
        pick(driver, "GTVn_01")
        end = time.monotonic() + 60
        while coloured(driver) < 40:
            assert time.monotonic() < end, "no outline on the picture"
            time.sleep(1)


def pick(driver: Any, words: str) -> None:
    """Click on what says just these words, as soon as it is there."""
    found = (
        "[...document.querySelectorAll('button, a, span, div')]"
        f".filter(e => !e.children.length && e.textContent.trim() === {json.dumps(words)}).at(-1)"
    )
    wait_for(driver, f"Boolean({found})")
    driver.execute_script(f"{found}.click()")


def coloured(driver: Any) -> int:
    """Pixels of the picture, between the panels, that are not grey."""
    picture = screenshot(driver)[100:800, 320:1080].astype(int)
    return int((picture.max(axis=2) - picture.min(axis=2) > 80).sum())
