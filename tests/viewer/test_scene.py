"""A block of a CT reaches a page in one order of axes, and what is drawn there comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiene.geometry.grid import ORDERS, Grid, Volume
from aiene.viewer.scene import PRIMARY, ras_order, scene_of
from builders.export_runs import FOOT_GRID, OBLIQUE, OBLIQUE_DOWN, foot

GRID = Grid((9, 11, 13), (3.0, 2.1, 1.7), (-31.0, 12.5, 700.0), OBLIQUE)
DOWN = Grid((9, 11, 13), (3.0, 2.1, 1.7), (-31.0, 12.5, 700.0), OBLIQUE_DOWN)


def stored(grid: Grid, order: Any) -> tuple[Volume, Volume, Volume]:
    """CT, nodes and labels of an asymmetric scene, stored in another order."""
    hu = np.arange(foot.size, dtype=np.float32).reshape(foot.shape) - 500
    labels = np.where(foot > 0, 2, 0).astype(np.uint8)
    labels[7, 1, 1] = 1
    volumes = (Volume(hu, grid), Volume(foot, grid), Volume(labels, grid))
    ct, nodes, marks = (volume.reordered(order) for volume in volumes)
    return ct, nodes, marks


@pytest.mark.parametrize("grid", [GRID, DOWN, FOOT_GRID], ids=["oblique", "left-handed", "turned far"])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_every_storage_order_gives_one_scene_and_takes_the_drawing_back(grid: Grid, order: Any) -> None:
    ct, nodes, labels = stored(grid, order)
    scene = scene_of(ct, nodes, labels, None, None)
    whole = scene_of(*stored(grid, ORDERS[0]), None, None)
    np.testing.assert_array_equal(scene.labels.array, whole.labels.array)
    assert scene.ct is not None
    assert whole.ct is not None
    np.testing.assert_array_equal(scene.ct.array, whole.ct.array)
    assert scene.grid.differences(whole.grid)[0] < 1e-6

    # what is drawn comes back: every voxel of the block to where the patient has it
    drawn = np.arange(1, scene.labels.array.size + 1, dtype=np.int32).reshape(scene.grid.size)
    back = scene.into_native(drawn, np.zeros(nodes.grid.size, np.int32))
    for voxel in [(0, 0, 0), tuple(n - 1 for n in scene.grid.size), (1, 2, 3)]:
        point = scene.grid.points(np.array(voxel))
        at = np.rint(nodes.grid.indices(point)).astype(int)
        assert back[tuple(at)] == drawn[voxel]
    np.testing.assert_array_equal(
        scene.into_native(scene.labels.array, np.zeros(nodes.grid.size, np.uint8)),
        np.where(nodes.array > 0, nodes.array, np.where(labels.array == 1, PRIMARY, 0)),
    )


@pytest.mark.parametrize("grid", [GRID, DOWN], ids=["oblique", "left-handed"])
def test_the_axes_of_a_page_run_to_head_front_and_right(grid: Grid) -> None:
    for order in ORDERS:
        page = grid.reordered(order).reordered(ras_order(grid.reordered(order)))
        z, y, x = np.array(page.direction)
        assert z[2] > 0.7, "z to the head"
        assert y[1] < -0.7, "y to the front"
        assert x[0] < -0.7, "x to the right"


def test_the_block_holds_crop_and_nodes_and_stays_within_the_ct() -> None:
    grid = Grid((40, 60, 50), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    nodes = np.zeros(grid.size, np.uint16)
    nodes[20, 30, 25] = 1
    volume = Volume(nodes, grid)
    scene = scene_of(None, volume, volume.with_array(nodes.astype(np.uint8)), None, None)
    assert scene.ct is None
    assert scene.grid.size == (11, 31, 31)  # 15 mm to each side: 5 voxels along z, 15 along y and x
    nodes[0, 0, 0] = 2
    scene = scene_of(None, volume, volume.with_array(nodes.astype(np.uint8)), None, None)
    assert scene.grid.size == (26, 46, 41)
    assert np.unique(scene.labels.array).tolist() == [0, 1, 2]


def test_a_drawing_of_another_size_is_refused() -> None:
    _, nodes, labels = stored(GRID, ORDERS[0])
    scene = scene_of(None, nodes, labels, None, None)
    with pytest.raises(ValueError, match="block"):
        scene.into_native(np.zeros((2, 2, 2), np.uint8), np.zeros(GRID.size, np.uint8))
