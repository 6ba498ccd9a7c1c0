"""The pages in a real browser, from the disk, without a network: all is where it is in the patient."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from aiene.finished_runs import read_run
from aiene.geometry.grid import ORDERS, AxisOrder
from aiene.results.pictures import LEVEL_HU, WIDTH_HU
from aiene.results.records import CaseResult
from aiene.results.store import RunStore
from aiene.viewer import scene
from aiene.viewer.run import Card, cohort_page, report_run
from builders.browsers import browser, complaints, requests, screenshot, wait_for
from builders.viewer_runs import write_patterned_run

pytestmark = pytest.mark.slow

EVERYTHING_MM = (
    1000.0  # a margin by which the block is the whole CT, so that the test need not know the block
)
ACROSS = {"axial": 0, "coronal": 1, "sagittal": 2}


def opened(driver: Any, page: Path) -> None:
    complaints(driver), requests(driver)  # of what was before
    driver.get(page.as_uri())
    wait_for(driver, "document.body && document.body.classList.contains('ready')")


def upright(path: Path) -> np.ndarray:
    """The voxels as they are hung, by SimpleITK: z to the head, y to the back, x to the left."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    return sitk.GetArrayFromImage(image)


def tiles(driver: Any) -> list[dict[str, Any]]:
    """The rectangle of each plane on the window, and the voxel of the crosshair, as NiiVue tells."""
    return driver.execute_script(
        "const v = aiene.viewer, box = v.canvas.getBoundingClientRect();"
        "return v.nv.screenSlices.filter(t => t.axCorSag < 3).map(t => ({plane: PLANES[t.axCorSag].name,"
        " box: t.leftTopWidthHeight.map((p, i) => p / (v.canvas.width / v.canvas.clientWidth)"
        " + [box.left, box.top, 0, 0][i])}))"
    )


def plane_of(volume: np.ndarray, plane: str, voxel: tuple[int, int, int]) -> np.ndarray:
    """A slice as it is hung: head or front at the top, left on the right, front on the left."""
    cut = np.take(volume, voxel[ACROSS[plane]], axis=ACROSS[plane])
    return cut if plane == "axial" else cut[::-1]


@pytest.mark.parametrize(
    ("program", "order"),
    [*(("chromium", ORDERS[k]) for k in (0, 13, 22, 43)), ("firefox", ORDERS[22])],
    ids=str,
)
def test_pixels_and_outlines_are_those_of_an_independent_rendering(
    program: str,
    order: AxisOrder,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = request.getfixturevalue(program)
    monkeypatch.setattr(scene, "MARGIN_MM", EVERYTHING_MM)
    monkeypatch.setattr(scene, "_TISSUE_HU", -2000.0)
    run = write_patterned_run(tmp_path, order)
    report_run(run.out, jobs=1)
    opened(driver, run.out / "cases" / "case" / "report.html")
    ct = upright(run.series / "case.nii.gz").astype(float)
    nodes = upright(run.out / "cases" / "case" / "nodes.nii.gz")
    centre = tuple(int(v) for v in np.argwhere(nodes == 1).mean(axis=0))
    x_right = ct.shape[2] - 1 - centre[2]
    y_front = ct.shape[1] - 1 - centre[1]
    look = f"aiene.viewer.outlined = %s; aiene.viewer.look([{x_right}, {y_front}, {centre[0]}]); return true"
    driver.execute_script("aiene.viewer.nv.opts.crosshairWidth = 0")
    driver.execute_script(look % "false")
    bare = screenshot(driver).astype(int)
    driver.execute_script(look % "true")
    drawn = screenshot(driver).astype(int)
    assert {tile["plane"] for tile in tiles(driver)} == set(ACROSS)
    for tile in tiles(driver):
        hu = plane_of(ct, tile["plane"], centre)  # type: ignore[arg-type]
        expected = np.clip((hu - LEVEL_HU + WIDTH_HU / 2) / WIDTH_HU, 0, 1) * 255
        left, top, width, height = tile["box"]
        rows, columns = np.indices(hu.shape)
        ys = np.floor(top + (rows + 0.5) * height / hu.shape[0]).astype(int)
        xs = np.floor(left + (columns + 0.5) * width / hu.shape[1]).astype(int)
        inner = (slice(2, -2), slice(2, -2))
        seen = bare[ys, xs, 0]
        apart = np.abs(seen - expected)[inner]
        assert np.median(apart) < 8, tile["plane"]
        assert np.corrcoef(seen[inner].ravel(), expected[inner].ravel())[0, 1] > 0.97, tile["plane"]
        for turned in (
            expected[::-1],
            expected[:, ::-1],
            expected[::-1, ::-1],
        ):  # no other way up looks so alike
            assert np.median(np.abs(seen - turned)[inner]) > 2 * np.median(apart), tile["plane"]
        check_outline(drawn, bare, plane_of(nodes, tile["plane"], centre) == 1, tile["box"], tile["plane"])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_patterned_run(tmp_path_factory.mktemp("page"))
    report_run(run.out, jobs=1)
    return run.out / "cases" / "case" / "report.html"


def test_outlines_stay_in_place_whatever_the_windows_size_and_zoom(chromium: Any, page: Path) -> None:
    """Where the page draws a voxel's edges, NiiVue finds that voxel."""
    opened(chromium, page)
    for width, height in ((1200, 900), (1400, 1000), (1237, 811), (803, 977)):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for zoom in ("0", "1.7"):
            chromium.execute_script(f"aiene.viewer.zoom({zoom})")
            wait_for(chromium, "aiene.viewer.canvas.width === aiene.viewer.canvas.clientWidth")
            apart = chromium.execute_script(
                "const v = aiene.viewer; v.nv.drawScene(); return v.nv.screenSlices.flatMap((tile, i) => {"
                " const {plane, map, box, ratio} = v.tileMap(tile, i);"
                " const near = v.voxel(); near[plane.axes[0]] += 1; near[plane.axes[1]] -= 1;"
                " const at = map(...plane.axes.map(a => near[a] + 0.5));"
                " const frac = v.nv.screenXY2TextureFrac(at[0] * ratio, at[1] * ratio, i, false);"
                " const mm = v.nv.frac2mm([...frac]);"
                " return plane.axes.map(a => Math.abs(mm[a] / v.labels.spacing[a] - near[a])) })"
            )
            assert len(apart) == 6
            assert max(apart) < 0.05, (width, height, zoom)
    size = {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def check_outline(drawn: Any, bare: Any, mask: Any, box: Any, plane: Any) -> None:
    """Along each edge of the mask there is a coloured line, and none two pixels and more away from any."""
    left, top, width, height = box
    su, sv = width / mask.shape[1], height / mask.shape[0]
    padded = np.pad(mask, 1)
    across = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])  # vertical edges: (row, column of the edge)
    down = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    points = [(left + c * su, top + (r + 0.5) * sv) for r, c in across]
    points += [(left + (c + 0.5) * su, top + r * sv) for r, c in down]
    changed = np.abs(drawn - bare).max(axis=2) > 40
    orange = changed & (drawn[..., 0] > drawn[..., 2] + 40)
    hits = [orange[round(y) - 2 : round(y) + 2, round(x) - 2 : round(x) + 2].any() for x, y in points]
    assert len(hits) > 10
    assert np.mean(hits) > 0.97, plane
    rows, columns = np.nonzero(orange[round(top) : round(top + height), round(left) : round(left + width)])
    inside = [(c + round(left), r + round(top)) for r, c in zip(rows, columns, strict=True)]
    name_starts = max(x for x, _ in points) + 2  # the node's name stands to the right
    stray = [
        (x, y)
        for x, y in inside
        if x < name_starts and min(abs(x - px) + abs(y - py) for px, py in points) > max(su, sv) + 3
    ]
    assert len(stray) < 0.02 * len(inside) + 3, plane


def test_a_node_and_its_slice_find_each_other_and_nothing_is_asked_for(chromium: Any, page: Path) -> None:
    opened(chromium, page)
    rows = chromium.find_elements(By.CSS_SELECTOR, "tr[data-value]")
    assert [row.get_attribute("data-value") for row in rows] == ["1", "2"]
    rows[1].find_element(By.TAG_NAME, "button").click()
    assert "GTVn_02" in chromium.find_element(By.ID, "readout").text
    assert "chosen" in rows[1].get_attribute("class")
    # now onto the first node, in the axial plane, with the mouse
    spot = chromium.execute_script(
        "const v = aiene.viewer; v.look(v.nodes.get(1).key); v.chosen = 2;"
        "const t = v.nv.screenSlices.findIndex(t => t.axCorSag === 0);"
        "const {plane, map} = v.tileMap(v.nv.screenSlices[t], t);"
        "const box = v.canvas.getBoundingClientRect();"
        "const [x, y] = map(...plane.axes.map(a => v.voxel()[a] + 0.5));"
        "return [x - box.width / 2, y - box.height / 2]"
    )
    canvas = chromium.find_element(By.CSS_SELECTOR, "canvas.image")
    ActionChains(chromium).move_to_element_with_offset(canvas, *map(round, spot)).click().perform()
    wait_for(chromium, "aiene.viewer.chosen === 1")
    assert "chosen" in rows[0].get_attribute("class")
    assert complaints(chromium) == []
    asked = [url for url in requests(chromium) if not url.startswith(("data:", "blob:"))]
    assert asked == [page.as_uri()]


def test_all_of_it_works_with_the_keyboard(chromium: Any, page: Path) -> None:
    opened(chromium, page)
    keys = ActionChains(chromium)

    def state() -> list[int]:
        return chromium.execute_script("return aiene.viewer.voxel()")

    keys.send_keys("n").perform()
    assert chromium.execute_script("return aiene.viewer.chosen") == 1
    ActionChains(chromium).send_keys("n").perform()
    assert chromium.execute_script("return aiene.viewer.chosen") == 2
    ActionChains(chromium).send_keys("p").perform()
    assert chromium.execute_script("return aiene.viewer.chosen") == 1
    x, y, z = state()
    ActionChains(chromium).send_keys("\ue013").perform()  # arrow up: towards the head
    assert state() == [x, y, z + 1]
    ActionChains(chromium).send_keys(
        "\ue012"
    ).perform()  # arrow left: towards the image's left, the patient's right
    assert state() == [x + 1, y, z + 1]
    ActionChains(chromium).send_keys("2").perform()
    assert chromium.execute_script("return aiene.viewer.nv.volumes[0].cal_max") == 1500
    ActionChains(chromium).send_keys("o").perform()
    assert chromium.execute_script("return aiene.viewer.outlined") is False
    ActionChains(chromium).send_keys("+").perform()
    assert chromium.execute_script("return aiene.viewer.nv.scene.pan2Dxyzmm[3]") > 1
    first = chromium.find_elements(By.CSS_SELECTOR, "tr[data-value] button")[0]
    chromium.execute_script("arguments[0].focus()", first)
    ActionChains(chromium).send_keys("\ue007").perform()  # Enter on a focused node
    assert first.get_attribute("aria-pressed") == "true"
    assert complaints(chromium) == []


def test_without_webgl_there_are_pictures(page: Path) -> None:
    with browser(gl=False) as driver:
        driver.get(page.as_uri())
        wait_for(driver, "document.body.classList.contains('pictures-only')")
        assert driver.find_element(By.ID, "no-webgl").is_displayed()
        pictures = driver.find_elements(By.CSS_SELECTOR, ".keyslices img")
        assert len(pictures) == 2
        assert all(driver.execute_script("return arguments[0].naturalWidth", one) > 500 for one in pictures)
        assert not driver.find_element(By.ID, "stage").is_displayed()
        driver.find_elements(By.CSS_SELECTOR, "tr[data-value] button")[1].click()
        assert driver.execute_script("return window.scrollY") > 0
        assert complaints(driver) == []


def test_two_thousand_patients_open_and_can_be_sorted_and_filtered(chromium: Any, tmp_path: Path) -> None:
    run = write_patterned_run(tmp_path)
    summary = report_run(run.out, jobs=1)
    seen = summary.cards[0]
    cards = [
        replace(seen, result=replace(seen.result, case_id=f"pt{i:04d}", warnings=("look",) * (i % 7 == 0)))
        for i in range(1999)
    ] + [Card(CaseResult("zzz", "failed", "no neck"))]
    page = tmp_path / "report.html"
    page.write_text(cohort_page(cards, read_run(run.out)), encoding="utf-8")
    complaints(chromium)
    chromium.get(page.as_uri())
    wait_for(chromium, "document.body && document.body.classList.contains('ready')")
    names = "[...document.querySelectorAll('#table tbody td.id')].map(e => e.textContent)"
    assert chromium.execute_script(f"return {names}")[:3] == [
        "zzz",
        "pt0000",
        "pt0007",
    ]  # failures, then warnings
    chromium.find_element(By.CSS_SELECTOR, "th[data-key=id] button").click()
    assert chromium.execute_script(f"return {names}")[:2] == ["pt0000", "pt0001"]
    chromium.find_element(By.ID, "search").send_keys("pt199")
    assert len(chromium.execute_script(f"return {names}")) == 9
    chromium.find_element(By.ID, "sheet").click()
    assert len(chromium.find_elements(By.CSS_SELECTOR, "#cards .card")) == 9
    wait_for(chromium, "[...document.querySelectorAll('#cards img')].every(i => i.naturalWidth > 50)")
    assert "9 of 2000 patients" in chromium.find_element(By.ID, "told").text
    assert len(chromium.find_elements(By.CSS_SELECTOR, "#charts svg")) == 4
    assert complaints(chromium) == []


def test_markup_from_a_run_does_nothing(chromium: Any, tmp_path: Path) -> None:
    run = write_patterned_run(tmp_path)
    evil = "<img src=x onerror=document.title='got'>"
    failed = CaseResult(
        evil, "failed", f"{evil}</script><script>document.title='got'</script>", warnings=(evil,)
    )
    RunStore(run.out).write_case(failed, None)
    summary = report_run(run.out, jobs=1)
    for page in (summary.cohort, run.out / "cases" / evil / "report.html"):
        chromium.get(page.as_uri())
        wait_for(chromium, "/ready|pictures-only/.test(document.body.className)")
        assert "got" not in chromium.title or evil in chromium.title
        assert evil in chromium.find_element(By.TAG_NAME, "body").text
        assert chromium.find_elements(By.CSS_SELECTOR, "img[src=x]") == []
    chromium.get(summary.cohort.as_uri())
    wait_for(chromium, "document.body.classList.contains('ready')")
    chromium.find_element(By.LINK_TEXT, evil).click()  # the link's address is the folder's
    wait_for(chromium, "document.body.classList.contains('pictures-only')")
    assert re.search("no result for this case", chromium.find_element(By.TAG_NAME, "body").text)
