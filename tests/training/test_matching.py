"""Which found node is which planted node, on hand-made masks."""

from __future__ import annotations

import numpy as np

from tools.default_bundle.matching import match


def _numbers() -> np.ndarray:
    numbers = np.zeros((4, 20, 20), np.uint8)
    numbers[:, 2:6, 2:6] = 1  # 64 voxels
    numbers[:, 10:14, 10:14] = 2
    return numbers


def _box(y: slice, x: slice) -> np.ndarray:
    mask = np.zeros((4, 20, 20), bool)
    mask[:, y, x] = True
    return mask


def test_each_found_node_finds_its_planted_node() -> None:
    numbers = _numbers()
    result = match([numbers == 2, numbers == 1], numbers)
    assert result.partner == (2, 1)
    assert result.false == ()
    assert result.dice == {2: 1.0, 1: 1.0}


def test_a_node_elsewhere_is_false() -> None:
    result = match([_box(slice(15, 19), slice(2, 6))], _numbers())
    assert result.partner == (0,)
    assert result.false == (0,)
    assert result.dice == {}


def test_under_thirty_percent_of_the_planted_node_does_not_count() -> None:
    enough = match([_box(slice(2, 6), slice(2, 4))], _numbers())  # half of node 1
    small = match([_box(slice(2, 6), slice(5, 9))], _numbers())  # a quarter of it
    assert enough.partner == (1,)
    assert small.partner == (0,)
    assert small.fragments == (0,)


def test_the_second_part_of_a_planted_node_is_a_fragment() -> None:
    parts = [_box(slice(2, 6), slice(4, 6)), _box(slice(2, 6), slice(2, 4))]
    result = match(parts, _numbers())
    assert sorted(result.partner) == [0, 1]
    assert len(result.fragments) == 1
    assert result.false == ()


def test_one_found_node_over_two_planted_ones_finds_only_one() -> None:
    result = match([_numbers() > 0], _numbers())
    assert len(result.dice) == 1


def test_dice_is_twice_the_overlap_over_the_sizes() -> None:
    result = match([_box(slice(2, 6), slice(4, 8))], _numbers())
    assert result.dice[1] == 2 * 32 / (64 + 64)
