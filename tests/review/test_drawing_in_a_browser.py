"""Drawing with the mouse in a real browser: the mask on disk is what was drawn, in the patient's geometry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest
from selenium.webdriver.common.by import By

from aiene.geometry.grid import ORDERS
from builders.browsers import browser, complaints, wait_for
from builders.review_pages import drag, on_disk, opened, saved, served
from builders.viewer_runs import write_patterned_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser(width=1300, height=1000) as one:
        yield one


@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[29], ORDERS[46]], ids=str)
def test_what_is_drawn_lies_where_it_was_drawn(order: Any, driver: Any, tmp_path: Path) -> None:
    run = write_patterned_run(tmp_path, order)
    with served(run) as url:
        opened(driver, url)
        driver.execute_script("aiene.viewer.look(aiene.viewer.nodes.get(1).key)")
        x, y, z = driver.execute_script("return aiene.viewer.voxel()")
        size = driver.execute_script("return aiene.labels.size")
        column = x + 14 if x < size[0] / 2 else x - 14
        driver.find_element(By.CSS_SELECTOR, "[data-edit=new]").click()
        drag(
            driver, [[column, y, z], [column, y - 6, z], [column + 3, y - 6, z]]
        )  # an L, no mirror of itself
        expected_value = 3
        drawn = driver.execute_script(
            "const l = aiene.labels, out = []; for (let i = 0; i < l.values.length; i++)"
            f" if (l.values[i] === {expected_value}) out.push(i); return out"
        )
        assert len(drawn) > 15
        affine = np.array(driver.execute_script("return aiene.state.affine"))
        saved(driver)
        mask, to_ras = on_disk(run)
        native = nib.load(run.series / "case.nii.gz")
        np.testing.assert_allclose(to_ras, native.affine, atol=1e-4)
        nx, ny, _ = size
        index = np.array([[i % nx, i // nx % ny, i // (nx * ny)] for i in drawn])
        lps = index @ affine[:, :3].T + affine[:, 3]
        ras = lps * [-1, -1, 1]
        at = np.rint((np.c_[ras, np.ones(len(ras))] @ np.linalg.inv(native.affine).T)[:, :3]).astype(int)
        new = (mask == 2) & (np.asarray(nib.load(run.out / "cases/case/labels.nii.gz").dataobj) == 0)
        want = np.zeros_like(new)
        want[tuple(at.T)] = True
        np.testing.assert_array_equal(new, want)
        # and where the mouse went is where the patient has it: the corner of the L
        corner = np.array([column, y - 6, z]) @ affine[:, :3].T + affine[:, 3]
        assert np.linalg.norm(lps - corner, axis=1).min() < 2.5
        # loaded again, it is still there
        driver.get(url.split("?")[0] + "case/case")
        wait_for(driver, "document.body && document.body.classList.contains('ready')")
        again = driver.execute_script("return Array.from(arguments[0], i => aiene.labels.values[i])", drawn)
        assert set(again) == {again[0]}
        assert again[0] not in (0, 255)
        assert complaints(driver) == []


def test_strokes_outlive_the_server_and_count_and_group_follow(driver: Any, tmp_path: Path) -> None:
    run = write_patterned_run(tmp_path)
    with served(run) as url:
        opened(driver, url)
        assert driver.find_element(By.CSS_SELECTOR, "#figures b").text == "1"
        driver.execute_script("aiene.viewer.look(aiene.viewer.nodes.get(1).key)")
        x, y, z = driver.execute_script("return aiene.viewer.voxel()")
        driver.find_element(By.CSS_SELECTOR, "[data-tool=erase]").click()
        drag(driver, [[x, y, z], [x + 2, y, z]])
        wait_for(driver, "localStorage.length > 0")
        erased = driver.execute_script(f"return aiene.labels.at([{x}, {y}, {z}])")
        assert erased == 0
    # the server is gone: saving is told, nothing is lost, and its next start has the same address
    driver.find_element(By.CSS_SELECTOR, "[data-save=corrected]").click()
    wait_for(driver, "document.getElementById('told').textContent.includes('does not answer')")
    with served(run, urlsplit(url).port or 0) as url:
        driver.execute_script("window.onbeforeunload = null")
        opened(driver, url)
        assert "unsaved strokes" in driver.find_element(By.ID, "told").text
        assert driver.execute_script(f"return aiene.labels.at([{x}, {y}, {z}])") == 0
        saved(driver)
        driver.find_element(By.CSS_SELECTOR, "[data-edit=undo]").click()
        # both nodes are rejected, with a reason: no node, no ENE
        for value in (1, 2):
            driver.find_element(By.ID, "reason").send_keys("no node")
            driver.execute_script(f"document.querySelector('tr[data-value=\"{value}\"]').click()")
            driver.find_element(By.CSS_SELECTOR, "[data-edit=reject]").click()
        saved(driver)
        wait_for(driver, "document.querySelector('#figures b').textContent === '0'")
        assert (on_disk(run)[0] == 2).sum() == 0
        assert driver.execute_script("return aiene.state.versions.length") == 2
