"""Splitting: golden data voxel by voxel, and shapes whose answer is known."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from aiene.errors import UsageError
from aiene.geometry.grid import Grid, Volume
from aiene.nodes.node import Node, parse_fg_labels
from aiene.nodes.split import _watershed_in_seeds, dilate, split_labels, split_nodes

CROP = Grid((64, 160, 160), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
GOLDEN_CASES = [
    "six", "six_fg_any", "padded", "border", "small_components",
    "only_small", "label1_only", "empty", "shapes", "split",
]  # fmt: skip
AXES: tuple[str, ...] = ("short_axis_axial", "short_axis_coronal", "short_axis_sagittal")
AXES += ("long_axis_axial", "long_axis_coronal", "long_axis_sagittal")


def golden_nodes(golden: Path, case: str) -> tuple[Path, list[Node]]:
    source = "six" if case == "six_fg_any" else case
    labels = np.load(golden / "nodes" / source / "labels.npz")["labels"]
    fg_labels = parse_fg_labels("any" if case == "six_fg_any" else "2")
    return golden / "nodes" / case, split_nodes(Volume(labels, CROP), fg_labels=fg_labels, axes=True)


@pytest.mark.parametrize("case", GOLDEN_CASES)
@pytest.mark.slow
def test_nodes_are_the_published_ones_voxel_by_voxel(golden: Path, case: str) -> None:
    folder, nodes = golden_nodes(golden, case)
    ours = np.zeros(CROP.size, dtype=np.int64)
    for node in nodes:
        ours[node.mask] = node.number
    if (folder / "split.npz").exists():
        np.testing.assert_array_equal(ours, np.load(folder / "split.npz")["split"])
    else:
        assert not nodes
    if (folder / "dilated.npz").exists():
        dilated = np.load(folder / "dilated.npz")
        assert [f"node_{node.number}" for node in nodes] == dilated.files
        for node in nodes:
            np.testing.assert_array_equal(node.dilated, dilated[f"node_{node.number}"] != 0)


@pytest.mark.parametrize("case", GOLDEN_CASES)
@pytest.mark.slow
def test_volumes_and_axes_are_the_published_ones(golden: Path, case: str) -> None:
    folder, nodes = golden_nodes(golden, case)
    with (folder / "rows.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["node"] != "-1"]
    assert [row["node"] for row in rows] == [str(node.number) for node in nodes]
    for row, node in zip(rows, nodes, strict=True):
        assert node.axes is not None
        assert row["tumor_volume_after_dilation"] == str(node.volume_after_mm3)
        assert row["tumor_volume_before_dilation"] == str(node.volume_before_mm3)
        a = node.axes
        ours = (
            a.short_axial,
            a.short_coronal,
            a.short_sagittal,
            a.long_axial,
            a.long_coronal,
            a.long_sagittal,
        )
        theirs = [float(row[name]) for name in (*AXES, "largest_short_axis")]
        np.testing.assert_allclose([*ours, a.largest_short], theirs, rtol=0, atol=1e-9)


def ball(centre: tuple[int, int, int], radius: float, size: tuple[int, int, int] = CROP.size) -> np.ndarray:
    z, y, x = np.ogrid[: size[0], : size[1], : size[2]]
    return (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2


def labels_of(mask: np.ndarray, value: int = 2) -> Volume:
    return Volume(mask.astype(np.uint8) * value, CROP)


def test_two_balls_that_touch_become_two_nodes_in_raster_order() -> None:
    first, second = ball((30, 70, 90), 8), ball((33, 79, 80), 8)
    assert (first & second).any()
    nodes = split_nodes(labels_of(first | second), fg_labels=(2,), axes=False)
    assert [node.number for node in nodes] == [1, 2]
    assert nodes[0].mask[30, 70, 90]
    assert nodes[1].mask[33, 79, 80]
    assert not (nodes[0].mask & nodes[1].mask).any()
    assert (nodes[0].mask | nodes[1].mask)[first | second].all()


def test_two_balls_deep_in_each_other_stay_one_node() -> None:
    mask = ball((30, 70, 90), 8) | ball((30, 70, 94), 8)
    assert len(split_nodes(labels_of(mask), fg_labels=(2,), axes=False)) == 1


def test_a_node_holds_one_layer_around_its_segmentation() -> None:
    mask = np.zeros(CROP.size, dtype=bool)
    mask[20:26, 40:50, 60:80] = True
    (node,) = split_nodes(labels_of(mask), fg_labels=(2,), axes=False)
    wanted = np.zeros(CROP.size, dtype=bool)
    wanted[19:27, 39:51, 59:81] = True
    np.testing.assert_array_equal(node.mask, wanted)
    assert node.volume_before_mm3 == 8 * 12 * 22 * 3.0
    assert node.volume_after_mm3 == 8 * 20 * 30 * 3.0
    assert node.axes is None
    assert not node.touches_border


@pytest.mark.parametrize(("patch", "kept"), [((1, 3, 3), False), ((2, 4, 4), True)])
def test_seeds_under_100_voxels_are_dropped(patch: tuple[int, int, int], kept: bool) -> None:
    mask = np.zeros(CROP.size, dtype=bool)
    mask[10 : 10 + patch[0], 30 : 30 + patch[1], 30 : 30 + patch[2]] = True  # 75 and 144 seed voxels
    assert bool(split_nodes(labels_of(mask), fg_labels=(2,), axes=False)) is kept


@pytest.mark.parametrize(
    "corner", [(0, 70, 70), (63, 70, 70), (30, 0, 70), (30, 159, 70), (30, 70, 0), (30, 70, 159)]
)
def test_a_node_at_the_crops_edge_says_so(corner: tuple[int, int, int]) -> None:
    (node,) = split_nodes(labels_of(ball(corner, 7)), fg_labels=(2,), axes=True)
    assert node.touches_border


def test_other_labels_are_no_nodes_and_chosen_labels_that_touch_are_one_mask() -> None:
    labels = ball((30, 70, 90), 8).astype(np.uint8)
    labels[:, :, 90:] *= 2
    volume = Volume(labels, CROP)
    whole = split_nodes(volume, fg_labels=(1, 2), axes=False)
    half = split_nodes(volume, fg_labels=(2,), axes=False)
    assert len(whole) == len(half) == 1
    assert half[0].volume_before_mm3 < whole[0].volume_before_mm3
    assert split_nodes(volume, fg_labels=(3,), axes=False) == []
    (same,) = split_nodes(volume, fg_labels="any", axes=False)
    np.testing.assert_array_equal(same.mask, whole[0].mask)


def rough(seed: int, size: tuple[int, int, int] = (14, 22, 20)) -> np.ndarray:
    """Balls with holes and specks, many at the edge."""
    random = np.random.default_rng(seed)
    mask = random.random(size) < 0.002
    for _ in range(int(random.integers(1, 5))):
        centre = tuple(int(c) for c in random.integers(0, size))
        mask |= ball(centre, random.uniform(2, 6), size)  # type: ignore[arg-type]
    mask &= random.random(size) < 0.97
    clear = random.integers(0, 6, size=3)
    mask[: clear[0]], mask[:, : clear[1]], mask[:, :, : clear[2]] = False, False, False
    return mask


@pytest.mark.parametrize("seed", range(60))
def test_looking_at_the_bounding_box_alone_changes_nothing(seed: int) -> None:
    mask = rough(seed)
    large = np.pad(mask, ((3, 5), (0, 7), (6, 0)))
    np.testing.assert_array_equal(split_labels(large), _watershed_in_seeds(large))


def test_the_number_of_threads_changes_nothing() -> None:
    masks = [rough(seed, (40, 60, 60)) for seed in range(3)]
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    try:
        results = []
        for threads in (1, 4):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            results.append([split_labels(mask) for mask in masks])
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    np.testing.assert_array_equal(results[0], results[1])


def test_dilation_is_a_square_of_nine_in_plane_cut_off_at_the_edge() -> None:
    mask = np.zeros((3, 20, 20), dtype=bool)
    mask[1, 2, 10] = True
    wanted = np.zeros_like(mask)
    wanted[1, 0:7, 6:15] = True
    np.testing.assert_array_equal(dilate(mask), wanted)
    assert not dilate(np.zeros_like(mask)).any()


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("2", (2,)),
        (" any ", "any"),
        ("ANY", "any"),
        ("1,2", (1, 2)),
        ("2, 1,2", (1, 2)),
        ("nodes", (2,)),
        ("", (2,)),
    ],
)
def test_fg_labels_are_read_as_published(text: str, labels: object) -> None:
    assert parse_fg_labels(text) == labels


@pytest.mark.parametrize("text", ["0", "-1", "256", "1,300"])
def test_fg_labels_that_no_map_can_hold_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="1 to 255"):
        parse_fg_labels(text)
