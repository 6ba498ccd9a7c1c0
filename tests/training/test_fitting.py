"""Training on a tiny set: the loss falls, a run that was cut off goes on, the folder can be run."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aiene.geometry.grid import Volume
from aiene.segment.segmenter import load_segmenter
from tools.default_bundle import fit_classifier, fit_segmenter
from tools.default_bundle.curve import false_places
from tools.default_bundle.fit_segmenter import Lesson
from tools.default_bundle.growing_store import GrowingStore, add_crop
from tools.default_bundle.phantom_crops import (
    CROP_GRID,
    NECK_SEED,
    NECK_TEST_SEED,
    NECK_VALIDATION_SEED,
    TEST_SEED,
    TRAINING_SEED,
    VALIDATION_SEED,
    Crop,
    load_crop,
    save_crop,
)

pytestmark = pytest.mark.slow

TINY = fit_segmenter.Schedule(
    steps=30, cooling=30, warm_up=1, patch=(16, 32, 32), whole_share=0.0, whole_from=2.0, learning_rate=5e-3
)


def ball_crop(seed: int) -> Crop:
    """A bright ball in a grey block; a dark core stands for extension."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:64, :160, :160]
    ene = seed % 2
    centre = np.array([30, 70, 75]) + rng.integers(-8, 9, size=3)
    distance = np.sqrt((3 * (z - centre[0])) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
    ball, core = distance < 11, ene * (distance < 7)
    image = np.clip(0.3 + 0.4 * ball - 0.5 * core + 0.03 * rng.standard_normal(ball.shape), 0, 1)
    numbers = ball.astype(np.uint8)
    return Crop(image.astype(np.float16), 2 * numbers, numbers, np.array([ene], np.float32))


@pytest.fixture(scope="module")
def crops() -> list[Crop]:
    torch.set_num_threads(1)
    return [ball_crop(seed) for seed in range(4)]


def test_a_crop_is_read_as_it_was_written(tmp_path: Path, crops: list[Crop]) -> None:
    save_crop(tmp_path / "a.npz", crops[1])
    again = load_crop(tmp_path / "a.npz")
    for name in ("image", "labels", "numbers", "ene"):
        np.testing.assert_array_equal(getattr(again, name), getattr(crops[1], name))
    assert [f.name for f in tmp_path.iterdir()] == ["a.npz"]


def test_the_segmenters_loss_falls_and_its_folder_runs(tmp_path: Path, crops: list[Crop]) -> None:
    lessons = [Lesson(crops)]
    losses = fit_segmenter.train(lessons, TINY, tmp_path, seed=0, until=20)
    losses += fit_segmenter.train(lessons, TINY, tmp_path, seed=0)
    assert len(losses) == TINY.steps
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    fit_segmenter.write_nnunet_folder(tmp_path, tmp_path / "model", half=True)
    segmenter = load_segmenter(tmp_path / "model")
    image = crops[0].image[16:32, 40:104, 40:104].astype(np.float32)
    grid = CROP_GRID.crop((16, 40, 40), image.shape)
    assert segmenter.predict(Volume(image, grid)).array.shape == image.shape


def test_a_step_draws_the_same_after_a_restart(crops: list[Crop]) -> None:
    lessons = [Lesson(crops)]
    through = list(fit_segmenter.examples(lessons, TINY, 5, range(0, 6)))
    later = list(fit_segmenter.examples(lessons, TINY, 5, range(4, 6)))
    for one, other in zip(through[4:], later, strict=True):
        assert one.step == other.step
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_two_processes_learn_what_one_does(tmp_path: Path, crops: list[Crop]) -> None:
    """From crops on disk, each process half of the batch."""
    for number, crop in enumerate(crops):
        add_crop(tmp_path / "store", f"{number}", crop, {})
    lessons = [Lesson(GrowingStore(tmp_path / "store"))]
    schedule = replace(TINY, steps=1)
    states = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        if processes == 1:
            fit_segmenter.train(lessons, schedule, folder, 0)
        else:
            fit_segmenter.train_together(lessons, schedule, folder, 0, processes)
        states.append(torch.load(folder / "segmenter_state.pth", weights_only=True)["network"])
    alone, together = (_kernels(state) for state in states)
    before = _kernels(fit_segmenter.new_network(0).state_dict())
    half = replace(schedule, batch=1)
    (tmp_path / "half").mkdir()
    fit_segmenter.train(lessons, half, tmp_path / "half", 0)
    other = _kernels(torch.load(tmp_path / "half" / "segmenter_state.pth", weights_only=True)["network"])
    moved = (alone - before).norm()
    assert (alone - together).norm() < 0.05 * moved
    assert (alone - other).norm() > 0.5 * moved


def _kernels(network: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([w.ravel() for name, w in network.items() if name.endswith("conv.weight")])


def test_hard_places_come_into_the_patches(crops: list[Crop]) -> None:
    empty = Crop(crops[0].image, np.zeros_like(crops[0].labels), crops[0].numbers, crops[0].ene)
    marked = empty.image.copy()
    marked[31:34, 8:13, 8:13] = 1
    lesson = Lesson([Crop(marked, empty.labels, empty.numbers, empty.ene)], hard=((0, 32, 10, 10),))
    seen = {
        share: sum(
            float(image.max()) > 0.9
            for batch in fit_segmenter.examples(
                [lesson], replace(TINY, hard_share=share, batch=1), 3, range(20)
            )
            for image in batch.images
        )
        for share in (0.0, 1.0)
    }
    assert seen[1.0] >= 12
    assert seen[0.0] <= 4


def test_what_is_called_and_is_none_is_a_hard_place(tmp_path: Path, crops: list[Crop]) -> None:
    """Every voxel is called a node by a network whose last bias says so."""
    fit_segmenter.train([Lesson(crops)], replace(TINY, steps=1), tmp_path, seed=0)
    fit_segmenter.write_nnunet_folder(tmp_path, tmp_path / "all", half=False, node_offset=-100)
    segmenter = load_segmenter(tmp_path / "all")
    nothing = Crop(crops[0].image, np.zeros_like(crops[0].labels), crops[0].numbers, np.zeros(0, np.float32))
    (place,) = false_places(nothing, segmenter)
    assert all(0 <= p < n for p, n in zip(place, nothing.labels.shape, strict=True))
    assert false_places(crops[0], segmenter) == []


def test_augmentation_stays_in_range_and_changes_the_image(crops: list[Crop]) -> None:
    image = crops[0].image[:8].astype(np.float32)
    changed = 0
    for seed in range(8):
        other = fit_segmenter.augmented(image, np.random.default_rng(seed))
        assert 0 <= other.min() <= other.max() <= 1
        changed += not np.array_equal(other, image)
    assert changed >= 5


def test_the_classifiers_loss_falls(tmp_path: Path, crops: list[Crop]) -> None:
    nodes = [node for crop in crops for node in fit_classifier.true_nodes(crop)]
    assert [n.ene for n in nodes] == [0, 1, 0, 1]
    false = fit_classifier.nodes_of(_emptied(crops[0]), np.roll(crops[0].labels, 45, axis=1))
    assert [(n.pos, n.ene) for n in false] == [(0.0, 0.0)]
    schedule = fit_classifier.Schedule(steps=25, batch=5, learning_rate=5e-3)
    losses = fit_classifier.train(nodes + false, schedule, tmp_path, seed=0)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    scores = fit_classifier.scores(fit_classifier.trained(tmp_path), nodes)
    assert scores.shape == (4, 2)


def _emptied(crop: Crop) -> Crop:
    """The same image, with no planted node in it."""
    nothing = np.zeros_like(crop.numbers)
    return Crop(crop.image, nothing, nothing, np.zeros(0, np.float32))


def test_the_loss_leaves_unknown_extension_out() -> None:
    logits = torch.tensor([[2.0, 5.0], [-1.0, -5.0]])
    pos = torch.tensor([1.0, 0.0])
    some = fit_classifier.loss_of(logits, pos, torch.tensor([1.0, fit_classifier.UNKNOWN]))
    other = fit_classifier.loss_of(
        torch.tensor([[2.0, 5.0], [-1.0, 9.0]]), pos, torch.tensor([1.0, fit_classifier.UNKNOWN])
    )
    assert torch.equal(some, other)


def test_training_validation_and_test_persons_never_meet() -> None:
    starts = sorted(
        (TRAINING_SEED, NECK_SEED, VALIDATION_SEED, NECK_VALIDATION_SEED, TEST_SEED, NECK_TEST_SEED)
    )
    assert min(b - a for a, b in itertools.pairwise(starts)) >= 10_000
