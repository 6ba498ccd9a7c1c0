"""Every tool of the review by the mouse in a real browser: the mask on the disk is what the hand meant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from aiene.geometry.grid import ORDERS
from aiene.review.session import Change
from builders.browsers import browser, complaints, wait_for
from builders.export_runs import Run
from builders.review_pages import (
    PRIMARY,
    as_native,
    drag,
    drawing,
    look,
    on_disk,
    opened,
    press,
    saved,
    served,
)
from builders.reviews import CountingReview
from builders.viewer_runs import write_patterned_run

pytestmark = pytest.mark.slow

ORDER = ORDERS[29]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser(width=1300, height=1000) as one:
        yield one


@dataclass
class Page:
    """A case that is open in the browser."""

    driver: Any
    run: Run

    def check(self, wanted: np.ndarray) -> None:
        """What is drawn is as wanted; saved, it lies so in the CT's own voxels, and nowhere else."""
        np.testing.assert_array_equal(drawing(self.driver), wanted)
        native = as_native(self.driver, self.run, wanted)
        saved(self.driver)
        np.testing.assert_array_equal(on_disk(self.run)[0], native)
        assert complaints(self.driver) == []

    def record(self) -> dict[str, Any]:
        (newest,) = (self.run.out / "review" / "anna" / "cases" / "case").glob("v0001")
        found: dict[str, Any] = json.loads((newest / "review.json").read_text())
        return found


@pytest.fixture
def page(driver: Any, tmp_path: Path) -> Iterator[Page]:
    run = write_patterned_run(tmp_path, ORDER)
    with served(run) as url:
        opened(driver, url)
        driver.execute_script("localStorage.clear()")
        driver.find_element(By.CSS_SELECTOR, "#pen option").click()  # one voxel wide
        yield Page(driver, run)
        driver.execute_script("window.onbeforeunload = null; localStorage.clear()")


def empty_corner(drawn: np.ndarray, z: int, size: int) -> tuple[int, int]:
    """(x, y) of a square on a slice, in which nothing is drawn, nor on the three slices above."""
    for y in range(2, drawn.shape[1] - size - 2):
        for x in range(2, drawn.shape[2] - size - 2):
            if not drawn[z : z + 4, y - 1 : y + size + 1, x - 1 : x + size + 1].any():
                return x, y
    raise AssertionError("no room")


def middle(drawn: np.ndarray, value: int) -> tuple[int, int, int]:
    """(x, y, z) within a node, on the slice where it is largest."""
    z = int((drawn == value).sum(axis=(1, 2)).argmax())
    places = np.argwhere(drawn[z] == value)
    y, x = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()]
    return int(x), int(y), z


def choose(driver: Any, value: int) -> None:
    driver.find_element(By.CSS_SELECTOR, f"tr[data-value='{value}'] button").click()


def test_draw_and_erase(page: Page) -> None:
    before = drawing(page.driver)
    x, y, z = middle(before, 1)
    look(page.driver, (x, y, z))
    press(page.driver, "[data-tool=erase]")
    drag(page.driver, [(x, y, z), (x + 2, y, z)])
    wanted = before.copy()
    wanted[z, y, x : x + 3] = 0
    press(page.driver, "[data-edit=new]")
    a, b = empty_corner(wanted, z, 8)
    drag(page.driver, [(a, b, z), (a + 6, b, z), (a + 6, b + 2, z)])
    wanted[z, b, a : a + 7] = 3
    wanted[z, b : b + 3, a + 6] = 3
    page.check(wanted)


def test_what_is_drawn_already_is_not_drawn_over(page: Page) -> None:
    before = drawing(page.driver)
    x, y, z = middle(before, 1)
    look(page.driver, (x, y, z))
    press(page.driver, "[data-edit=new]")
    row = before[z, y]
    first, last = int(np.flatnonzero(row == 1)[0]) - 2, int(np.flatnonzero(row == 1)[-1]) + 2
    drag(page.driver, [(first, y, z), (last, y, z)])
    wanted = before.copy()
    part = wanted[z, y, first : last + 1]
    part[part == 0] = 3
    page.check(wanted)


def square(driver: Any, x: int, y: int, z: int, side: int) -> None:
    """A closed line around a square of the axial slice."""
    far = side - 1
    drag(driver, [(x, y, z), (x + far, y, z), (x + far, y + far, z), (x, y + far, z), (x, y, z)])


def test_fill_undo_and_interpolate(page: Page) -> None:
    before = drawing(page.driver)
    z = middle(before, 1)[2]
    x, y = empty_corner(before, z, 8)
    look(page.driver, (x, y, z))
    press(page.driver, "[data-edit=new]")
    square(page.driver, x, y, z, 8)
    wanted = before.copy()
    wanted[z, y : y + 8, x : x + 8] = 3  # a line that is closed encloses
    np.testing.assert_array_equal(drawing(page.driver), wanted)

    press(page.driver, "[data-tool=erase]")
    drag(page.driver, [(x + 3, y + 3, z), (x + 4, y + 3, z)])
    hole = wanted.copy()
    hole[z, y + 3, x + 3 : x + 5] = 0
    np.testing.assert_array_equal(drawing(page.driver), hole)
    press(page.driver, "[data-edit=fill]")
    np.testing.assert_array_equal(drawing(page.driver), wanted)
    press(page.driver, "[data-edit=undo]")
    np.testing.assert_array_equal(drawing(page.driver), hole)
    press(page.driver, "[data-edit=undo]")
    np.testing.assert_array_equal(drawing(page.driver), wanted)

    look(page.driver, (x, y, z + 3))
    press(page.driver, "[data-tool=draw]")
    square(page.driver, x, y, z + 3, 8)
    press(page.driver, "[data-edit=interpolate]")
    wanted[z : z + 4, y : y + 8, x : x + 8] = 3  # the same on both ends: the same in between
    page.check(wanted)


def test_a_node_by_a_click(page: Page) -> None:
    before = drawing(page.driver)
    z = middle(before, 1)[2]
    x, y = (corner + 4 for corner in empty_corner(before, z, 9))
    look(page.driver, (x, y, z))
    press(page.driver, "[data-tool=grow]")
    drag(page.driver, [(x, y, z)])
    wait_for(page.driver, "aiene.viewer.chosen === 3")
    now = drawing(page.driver)
    np.testing.assert_array_equal(np.where(now == 3, 0, now), before)
    places = np.argwhere(now == 3)
    spacing = np.array(page.driver.execute_script("return aiene.labels.spacing"))[::-1]
    assert now[z, y, x] == 3
    assert len(places) > 20
    assert np.linalg.norm((places - (z, y, x)) * spacing, axis=1).max() < 14 + 4
    page.check(now)


def test_split_by_a_line(page: Page) -> None:
    before = drawing(page.driver)
    x, y, z = middle(before, 1)
    look(page.driver, (x, y, z))
    choose(page.driver, 1)
    press(page.driver, "[data-tool=cut]")
    columns = np.flatnonzero((before[z] == 1).any(axis=0))
    drag(page.driver, [(columns[0] - 3, y, z), (columns[-1] + 3, y, z)])
    wait_for(page.driver, "aiene.viewer.nodes.has(3)")
    now = drawing(page.driver)
    assert not ((now > 0) & (before == 0)).any()
    taken = (before == 1) & (now == 0)
    assert set(np.argwhere(taken)[:, 1]) == {y}  # one row: a spacing of 2.3 mm is more than the gap
    np.testing.assert_array_equal(taken, (before == 1) & (np.indices(before.shape)[1] == y))
    rows = {value: set(np.argwhere(now == value)[:, 1] > y) for value in (1, 3)}
    assert sorted(map(sorted, rows.values())) == [[False], [True]]
    page.check(now)
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "tr[data-value]")) >= 3


def test_remove_with_a_reason_and_its_undo(page: Page) -> None:
    before = drawing(page.driver)
    choose(page.driver, 2)
    press(page.driver, "[data-edit=reject]")
    assert "reason" in page.driver.find_element(By.ID, "doing").text
    np.testing.assert_array_equal(drawing(page.driver), before)
    page.driver.find_element(By.ID, "reason").send_keys("a vessel")
    for value in (2, 1):
        choose(page.driver, value)
        press(page.driver, "[data-edit=reject]")
    assert set(np.unique(drawing(page.driver))) == {0, PRIMARY}
    press(page.driver, "[data-edit=undo]")
    page.check(np.where(before == 2, 0, before))
    assert [(r["name"], r["reason"]) for r in page.record()["rejected"]] == [("GTVn_02", "a vessel")]


def test_a_new_node_does_not_take_the_place_of_one_that_was_removed(page: Page) -> None:
    page.driver.find_element(By.ID, "reason").send_keys("a vessel")
    choose(page.driver, 1)
    press(page.driver, "[data-edit=reject]")
    now = drawing(page.driver)
    z = middle(now, 2)[2]
    x, y = empty_corner(now, z, 4)
    look(page.driver, (x, y, z))
    press(page.driver, "[data-edit=new]")
    drag(page.driver, [(x, y, z), (x + 3, y, z)])
    names = [e.text for e in page.driver.find_elements(By.CSS_SELECTOR, "tr[data-value] button")]
    assert names == ["GTVn_02", "new 3"]
    now[z, y, x : x + 4] = 3
    page.check(now)
    assert [r["name"] for r in page.record()["rejected"]] == ["GTVn_01"]


def test_merge_and_its_undo(page: Page) -> None:
    before = drawing(page.driver)

    def merged() -> None:
        choose(page.driver, 1)
        press(page.driver, "[data-edit=merge]")
        choose(page.driver, 2)
        assert "GTVn_01 and GTVn_02 count as one" in page.driver.find_element(By.ID, "doing").text

    merged()
    press(page.driver, "[data-edit=undo]")
    merged()
    page.check(before)
    (join,) = page.record()["joins"]
    affine = np.array(page.driver.execute_script("return aiene.state.affine"))
    voxels = [np.rint(np.linalg.solve(affine[:, :3], np.array(p) - affine[:, 3])).astype(int) for p in join]
    assert [int(before[z, y, x]) for x, y, z in voxels] == [1, 2]


def test_change_label_both_ways(page: Page) -> None:
    before = drawing(page.driver)
    choose(page.driver, 2)
    press(page.driver, "[data-edit=primary]")
    wanted = np.where(before == 2, PRIMARY, before)
    page.check(wanted)
    look(page.driver, middle(before, PRIMARY))
    page.driver.execute_script("aiene.viewer.chosen = 0")
    press(page.driver, "[data-edit=primary]")
    now = drawing(page.driver)
    np.testing.assert_array_equal(now > 0, before > 0)
    assert not (now == PRIMARY).any()
    saved(page.driver)
    np.testing.assert_array_equal(on_disk(page.run)[0], as_native(page.driver, page.run, now))
    assert set(np.unique(on_disk(page.run)[0])) == {0, 2}


def test_a_key_takes_a_tool_also_after_the_pen_was_chosen(page: Page) -> None:
    for key, act in (("d", "draw"), ("e", "erase"), ("g", "grow"), ("x", "cut"), ("v", "look")):
        ActionChains(page.driver).send_keys(key).perform()
        pressed = page.driver.find_element(By.CSS_SELECTOR, f"[data-tool={act}]")
        assert pressed.get_attribute("aria-pressed") == "true", act


def test_a_second_window_is_told_and_can_save_as_a_further_version(page: Page) -> None:
    before = drawing(page.driver)
    CountingReview(page.run.out).save("case", Change(None, 0, "set aside"))
    x, y, z = middle(before, 1)
    look(page.driver, (x, y, z))
    press(page.driver, "[data-tool=erase]")
    drag(page.driver, [(x, y, z)])
    press(page.driver, "[data-save=accepted]")
    told = page.driver.find_element(By.ID, "told").text
    assert "saved in another window" in told
    assert "kept in this browser" in told
    press(page.driver, "#anyway")
    wait_for(page.driver, "aiene.state.base === 2")
    wanted = before.copy()
    wanted[z, y, x] = 0
    np.testing.assert_array_equal(on_disk(page.run)[0], as_native(page.driver, page.run, wanted))
    assert page.driver.execute_script("return aiene.state.versions.map(v => v.status)") == [
        "set aside",
        "accepted",
    ]


def test_without_webgl_the_page_says_that_nothing_can_be_drawn(tmp_path: Path) -> None:
    with served(write_patterned_run(tmp_path)) as url, browser(gl=False) as plain:
        plain.get(url)
        plain.find_element(By.LINK_TEXT, "case").click()
        wait_for(plain, "document.getElementById('told')?.textContent.includes('no WebGL')")
