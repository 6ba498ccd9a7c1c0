"""A review that is served to a browser, and a reader's mouse."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import nibabel as nib
import numpy as np
import uvicorn
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from aiene.review.server import make_app
from builders.browsers import wait_for
from builders.export_runs import Run
from builders.reviews import CountingReview

PRIMARY = 255


@contextmanager
def served(run: Run, port: int = 0) -> Iterator[str]:
    """The address of a server of our own thread; it ends with the context.

    Parameters
    ----------
    port : of a server before, since a browser keeps what it holds by address; 0: any that is free, since
        tests run side by side.
    """
    with socket.create_server(("127.0.0.1", port)) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        app = make_app(CountingReview(run.out), "key", frozenset({host}))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server ended before it answered"
            time.sleep(0.05)
        try:
            yield f"http://{host}/?token=key"
        finally:
            server.should_exit = True
            thread.join(timeout=20)


def opened(driver: Any, url: str) -> None:
    """The case's page, from the work list."""
    driver.get(url)
    driver.find_element(By.LINK_TEXT, "case").click()
    wait_for(driver, "document.body && document.body.classList.contains('ready')")


def press(driver: Any, selector: str) -> None:
    """A click on a button, and the end of what it begins at the server."""
    driver.find_element(By.CSS_SELECTOR, selector).click()
    wait_for(driver, "!document.body.classList.contains('busy')")


def drag(driver: Any, voxels: Sequence[Sequence[int]]) -> None:
    """The left button held from voxel to voxel of the axial plane; of one voxel, a click."""
    spots = driver.execute_script(
        "const v = aiene.viewer, i = v.nv.screenSlices.findIndex(t => t.axCorSag === 0);"
        "const {plane, map} = v.tileMap(v.nv.screenSlices[i], i), box = v.canvas.getBoundingClientRect();"
        "return arguments[0].map(p => { const [x, y] = map(...plane.axes.map(a => p[a] + 0.5));"
        " return [x - box.width / 2, y - box.height / 2] })",
        [list(map(int, voxel)) for voxel in voxels],
    )
    canvas = driver.find_element(By.CSS_SELECTOR, "canvas.image")
    chain = ActionChains(driver, duration=30)
    chain.move_to_element_with_offset(canvas, *(round(v) for v in spots[0])).click_and_hold()
    for spot in spots[1:]:
        chain.move_to_element_with_offset(canvas, *(round(v) for v in spot))
    chain.release().perform()
    wait_for(driver, "!document.body.classList.contains('busy')")


def look(driver: Any, voxel: Sequence[int]) -> None:
    """The crosshair on a voxel (x, y, z)."""
    driver.execute_script("aiene.viewer.look(arguments[0])", [int(v) for v in voxel])


def drawing(driver: Any) -> np.ndarray:
    """uint8 (z, y, x): what is drawn on the page's block now."""
    found = driver.execute_script(
        "const l = aiene.labels, out = []; l.values.forEach((v, i) => { if (v) out.push([i, v]) });"
        "return [l.size, out]"
    )
    (x, y, z), voxels = found
    made = np.zeros(x * y * z, np.uint8)
    for at, value in voxels:
        made[at] = value
    return made.reshape(z, y, x)


def saved(driver: Any, status: str = "corrected") -> None:
    """A click on a button of saving, and its answer."""
    before = driver.execute_script("return aiene.state.base")
    driver.find_element(By.CSS_SELECTOR, f"[data-save='{status}']").click()
    wait_for(driver, f"aiene.state.base > {before}")


def on_disk(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The saved mask (x, y, z of the file) and its affine."""
    image = nib.load(run.out / "review" / "anna" / "masks" / "case.nii.gz")
    return np.asarray(image.dataobj), image.affine


def as_native(driver: Any, run: Run, drawn: np.ndarray) -> np.ndarray:
    """The mask (x, y, z of the CT's file) that a drawing means, by the page's affine and nibabel alone."""
    affine = np.array(driver.execute_script("return aiene.state.affine"))
    native = nib.load(run.series / "case.nii.gz")
    mask = np.zeros(native.shape, np.uint8)
    z, y, x = np.nonzero(drawn)
    lps = np.c_[x, y, z] @ affine[:, :3].T + affine[:, 3]
    ras = np.c_[lps * [-1, -1, 1], np.ones(len(lps))]
    at = np.rint((ras @ np.linalg.inv(native.affine).T)[:, :3]).astype(int)
    mask[tuple(at.T)] = np.where(drawn[z, y, x] == PRIMARY, 1, 2)
    return mask
