"""The pages in Firefox: from the disk, with WebGL and without (pixels: test_in_a_browser)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiene.viewer.run import report_run
from builders.browsers import complaints, requests, wait_for
from builders.firefoxes import firefox as started_firefox
from builders.viewer_runs import write_patterned_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The patient's page and the cohort's."""
    run = write_patterned_run(tmp_path_factory.mktemp("firefox"))
    summary = report_run(run.out, jobs=1)
    return run.out / "cases" / "case" / "report.html", summary.cohort


def middle_of(driver: Any, element: str) -> tuple[float, float]:
    """Of an element's box on the window, scrolled into view."""
    x, y = driver.execute_script(
        f"const e = {element}; e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
        "return [b.left + b.width / 2, b.top + b.height / 2]"
    )
    return x, y


def test_a_node_and_its_slice_find_each_other_in_firefox(firefox: Any, pages: tuple[Path, Path]) -> None:
    page, _ = pages
    complaints(firefox), requests(firefox)
    firefox.get(page.as_uri())
    wait_for(firefox, "document.body.classList.contains('ready')")
    firefox.click(*middle_of(firefox, "document.querySelector('tr[data-value=\"2\"] button')"))
    wait_for(firefox, "aiene.viewer.chosen === 2")
    assert firefox.execute_script("return aiene.viewer.voxel()") == firefox.execute_script(
        "return aiene.viewer.nodes.get(2).key"
    )
    assert "GTVn_02" in firefox.execute_script("return document.getElementById('readout').textContent")
    # and back: a click on the first node, in the axial plane
    firefox.execute_script("aiene.viewer.canvas.scrollIntoView({block: 'center'})")
    spot = firefox.execute_script(
        "const v = aiene.viewer; v.look(v.nodes.get(1).key); v.chosen = 2;"
        "const t = v.nv.screenSlices.findIndex(t => t.axCorSag === 0);"
        "const {plane, map} = v.tileMap(v.nv.screenSlices[t], t);"
        "const box = v.canvas.getBoundingClientRect();"
        "const [x, y] = map(...plane.axes.map(a => v.voxel()[a] + 0.5)); return [box.left + x, box.top + y]"
    )
    firefox.click(*spot)
    wait_for(firefox, "aiene.viewer.chosen === 1")
    assert complaints(firefox) == []
    assert [url for url in requests(firefox) if not url.startswith(("data:", "blob:", "file:"))] == []


def test_the_cohorts_page_in_firefox(firefox: Any, pages: tuple[Path, Path]) -> None:
    firefox.get(pages[1].as_uri())
    wait_for(firefox, "document.body.classList.contains('ready')")
    assert firefox.execute_script("return document.querySelectorAll('#table tbody tr').length") == 1
    firefox.click(*middle_of(firefox, "document.getElementById('sheet')"))
    wait_for(firefox, "[...document.querySelectorAll('#cards img')].some(i => i.naturalWidth > 50)")
    assert complaints(firefox) == []


def test_firefox_without_webgl_shows_pictures(pages: tuple[Path, Path]) -> None:
    with started_firefox(gl=False) as driver:
        driver.get(pages[0].as_uri())
        wait_for(driver, "document.body.classList.contains('pictures-only')")
        widths = "[...document.querySelectorAll('.keyslices img')].map(i => i.naturalWidth)"
        assert min(driver.execute_script(f"return {widths}")) > 500
        assert complaints(driver) == []
