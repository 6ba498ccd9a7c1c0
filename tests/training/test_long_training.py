"""A training that goes on for days: partial organs, a warm start, crops that come while it runs, a kill."""

from __future__ import annotations

import functools
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aiene.models.bundle import default_folder
from aiene.segment.segmenter import load_segmenter
from tools.default_bundle import curve, fit_segmenter
from tools.default_bundle.curve import counts_of, false_places, summary
from tools.default_bundle.fit_segmenter import Lesson, Schedule, loss_of
from tools.default_bundle.growing_store import GrowingStore, add_crop, has_crop
from tools.default_bundle.long_training import alone, crops_folder, lessons_of
from tools.default_bundle.organs import CLASSES, IGNORE, NODE, OF_OPENKBP, PRIMARY
from tools.default_bundle.phantom_crops import Crop

pytestmark = pytest.mark.slow

TINY = Schedule(steps=8, cooling=8, warm_up=1, patch=(16, 32, 32), whole_share=0.0, whole_from=2.0)
PAROTID, MANDIBLE = CLASSES["parotid"], CLASSES["mandible"]


def crop_of(seed: int, organs: tuple[int, ...] = ()) -> Crop:
    """Noise with a bright node."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0.3, 0.5, (64, 160, 160)).astype(np.float16)
    labels = np.zeros(image.shape, np.uint8)
    labels[30:34, 70:82, 60:72] = NODE
    image[labels == NODE] = 0.8
    return Crop(image, labels, (labels == NODE).astype(np.uint8), np.zeros(1, np.float32), organs)


def one_hot_logits(label: int, sure: float = 12.0) -> torch.Tensor:
    logits = torch.zeros(1, len(CLASSES), 4, 4, 4)
    logits[:, label] = sure
    return logits


def test_an_organ_without_outline_may_lie_in_the_background() -> None:
    """Calling it costs nothing where nobody outlined it, and much where somebody did."""
    background = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    unknown = loss_of(one_hot_logits(PAROTID), background, organs=(MANDIBLE,))
    known = loss_of(one_hot_logits(PAROTID), background, organs=(PAROTID, MANDIBLE))
    assert float(unknown) < 0.05
    assert float(known) > 5


@pytest.mark.parametrize("label", [NODE, PRIMARY])
def test_tumour_is_never_background(label: int) -> None:
    background = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    assert float(loss_of(one_hot_logits(label), background)) > 5
    assert float(loss_of(one_hot_logits(label), torch.full_like(background, label))) < 0.1


def test_ignored_voxels_give_no_gradient_and_nothing_known_gives_no_nan() -> None:
    logits = torch.randn(1, len(CLASSES), 4, 4, 4, requires_grad=True)
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    labels[0, :2] = IGNORE
    labels[0, 3] = NODE
    loss_of(logits, labels, organs=(PAROTID,)).backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, :2].any()
    assert logits.grad[:, :, 2:].any()
    nothing = loss_of(logits, torch.full_like(labels, IGNORE))
    assert float(nothing.detach()) == 0


def test_a_warm_start_answers_as_the_model_it_comes_from() -> None:
    """The default bundle's voxels keep their tumour classes until something is learned."""
    torch.manual_seed(0)
    checkpoint = default_folder() / "segmenter" / "fold_0" / "checkpoint_final.pth"
    network = fit_segmenter.new_network(3).eval()
    fit_segmenter.warm_start(network, checkpoint)
    old = load_segmenter(default_folder() / "segmenter").networks[0]
    image = torch.rand(1, 1, 16, 32, 32)
    with torch.inference_mode():
        before, after = old(image), network(image)
    shared = min(before.shape[1], after.shape[1])
    torch.testing.assert_close(after[:, :shared], before[:, :shared], rtol=1e-3, atol=1e-3)


def test_a_model_of_another_architecture_is_no_start(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"network_weights": {"encoder.weight": torch.zeros(3)}}, file)
    with pytest.raises(ValueError, match="another architecture"):
        fit_segmenter.warm_start(fit_segmenter.new_network(0), file)


def test_crops_that_come_while_training_are_learned_from(tmp_path: Path) -> None:
    add_crop(crops_folder(tmp_path) / "disease", "a", crop_of(0, (PAROTID,)), {"short_axes_mm": [12.0]})
    (first,) = lessons_of(tmp_path)
    assert len(first.crops) == 1
    add_crop(crops_folder(tmp_path) / "disease", "b", crop_of(1), {"short_axes_mm": [12.0]})
    add_crop(crops_folder(tmp_path) / "plain", "c", crop_of(2), {})
    (tmp_path / "hard_places.json").write_text(json.dumps({"plain": [["c", 1, 2, 3], ["gone", 0, 0, 0]]}))
    disease, plain = lessons_of(tmp_path)
    assert len(disease.crops) == 2
    assert plain.hard == ((0, 1, 2, 3),)
    assert disease.crops[0].organs == (PAROTID,)


def test_lessons_without_crops_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="crops"):
        lessons_of(tmp_path)


def test_two_trainings_never_share_a_folder(tmp_path: Path) -> None:
    """They would write one checkpoint; the same may be done again once the first has ended."""
    refused = pytest.raises(SystemExit, match="another process runs `train`")
    with alone(tmp_path, "train"), alone(tmp_path, "crops"), refused, alone(tmp_path, "train"):
        pass
    with alone(tmp_path, "train"):
        pass


def test_a_crop_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    add_crop(tmp_path, "a", crop_of(0), {})
    np.save(tmp_path / "half.image.npy", np.zeros(3))
    store = GrowingStore(tmp_path)
    assert store.names == ["a"]
    assert has_crop(tmp_path, "a")
    assert not has_crop(tmp_path, "half")
    whole = store.whole(0)
    np.testing.assert_array_equal(whole.numbers, crop_of(0).numbers)
    np.testing.assert_array_equal(whole.image, crop_of(0).image)


def test_a_training_that_was_cut_off_ends_as_one_that_was_not(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    lessons = [Lesson([crop_of(k, (PAROTID,)) for k in range(2)])]
    ends = []
    for name, stops in (("through", (8,)), ("cut", (3, 5, 8))):
        work = tmp_path / name
        work.mkdir()
        for stop in stops:
            fit_segmenter.train(lessons, TINY, work, 7, until=stop)
        ends.append(torch.load(work / "segmenter_state.pth", weights_only=True))
    assert [e["step"] for e in ends] == [8, 8]
    for name, tensor in ends[0]["average"].items():
        torch.testing.assert_close(tensor, ends[1]["average"][name], rtol=1e-3, atol=1e-4)


def test_a_longer_training_goes_on_from_where_an_earlier_one_began_to_cool(tmp_path: Path) -> None:
    """Also where it is killed and begun again: it never falls back there twice."""
    torch.set_num_threads(1)
    lessons = [Lesson([crop_of(0)])]
    short, longer = replace(TINY, steps=4, cooling=2), replace(TINY, steps=12, cooling=2)
    fit_segmenter.train(lessons, short, tmp_path, 7)
    assert torch.load(tmp_path / fit_segmenter.UNCOOLED, weights_only=True)["step"] == 2
    assert len(fit_segmenter.train(lessons, longer, tmp_path, 7, until=3)) == 1
    assert len(fit_segmenter.train(lessons, longer, tmp_path, 7, until=5)) == 2


@pytest.mark.parametrize("behind", [0, 1])
def test_a_cooling_that_begins_where_a_call_has_ended_leaves_the_way_on_open(
    tmp_path: Path, behind: int
) -> None:
    """As long as the state is still hot when it is decided to cool, or one step later."""
    torch.set_num_threads(1)
    lessons = [Lesson([crop_of(0)])]
    longer = replace(TINY, steps=12, cooling=2)
    fit_segmenter.train(lessons, longer, tmp_path, 7, until=3)
    fit_segmenter.train(lessons, replace(TINY, steps=5 - behind, cooling=2), tmp_path, 7)
    assert torch.load(tmp_path / fit_segmenter.UNCOOLED, weights_only=True)["step"] == 3
    assert len(fit_segmenter.train(lessons, longer, tmp_path, 7, until=4)) == 1


def test_a_peer_whose_starter_was_killed_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would go on alone, and write the checkpoint of whoever trains after it."""
    parents = iter([10, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(fit_segmenter, "_share_gradients", lambda network, peer: None)
    with pytest.raises(SystemExit, match="has ended"):
        fit_segmenter.train(
            [Lesson([crop_of(0)])], TINY, tmp_path, 7, peer=fit_segmenter.Peer(0, 2, starter=10)
        )
    assert not (tmp_path / fit_segmenter.STATE).exists()


def test_the_rate_falls_in_the_cooling_alone() -> None:
    schedule = replace(TINY, steps=100, cooling=20, warm_up=10)
    rates = np.array([fit_segmenter._rate(step, schedule) for step in range(100)])
    assert (rates[9:81] == schedule.learning_rate).all()
    assert (np.diff(rates[:10]) > 0).all()
    assert (np.diff(rates[80:]) < 0).all()
    assert rates[-1] == pytest.approx(schedule.learning_rate * fit_segmenter.LEAST_RATE)


def test_the_norm_of_one_image_is_instance_normalisation() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 4, 5, 6)
    own, usual = fit_segmenter.OneImageNorm(3, affine=True), torch.nn.InstanceNorm3d(3, affine=True)
    torch.testing.assert_close(own(image), usual(image))
    torch.testing.assert_close(own.eval()(image), usual.eval()(image))


def test_the_average_lags_behind_and_is_what_is_written(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    fit_segmenter.train([Lesson([crop_of(0)])], replace(TINY, learning_rate=1e-2), tmp_path, 0)
    state = torch.load(tmp_path / "segmenter_state.pth", weights_only=True)
    name = "encoder.stages.0.0.convs.0.conv.weight"
    assert not torch.equal(state["average"][name], state["network"][name])
    fit_segmenter.write_nnunet_folder(tmp_path, tmp_path / "model", half=False)
    segmenter = load_segmenter(tmp_path / "model")
    assert segmenter.plan.classes == len(CLASSES)
    written = dict(segmenter.networks[0].named_parameters())[name]
    torch.testing.assert_close(written, state["average"][name])


def test_whole_crops_are_drawn_for_all_peers_at_once() -> None:
    schedule = replace(TINY, steps=40, whole_share=0.5, batch=2)
    lessons = [Lesson([crop_of(0)])]
    sizes = [
        [
            b.images.shape[2:]
            for b in fit_segmenter.examples(lessons, schedule, 1, range(12), fit_segmenter.Peer(r, 2))
        ]
        for r in range(2)
    ]
    assert sizes[0] == sizes[1]
    assert len(set(sizes[0])) == 2


def test_examples_drawn_ahead_are_the_same(tmp_path: Path) -> None:
    """As on a GPU, where other processes draw them."""
    for kind in ("disease", "plain"):
        add_crop(crops_folder(tmp_path) / kind, "a", crop_of(len(kind)), {})
    source = functools.partial(lessons_of, tmp_path)
    steps = range(2, 6)
    ahead = list(fit_segmenter.drawn_ahead(source, TINY, 4, steps, 1))
    direct = list(fit_segmenter.examples(source, TINY, 4, steps))
    assert [b.step for b in ahead] == list(steps)
    for one, other in zip(ahead, direct, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.organs == other.organs


def test_every_outlined_organ_has_a_class_that_is_no_tumour() -> None:
    assert set(OF_OPENKBP) == set(range(1, 8))
    assert set(OF_OPENKBP.values()) == set(CLASSES.values()) - {0, PRIMARY, NODE}
    assert sorted(CLASSES.values()) == list(range(len(CLASSES)))


class _Told:
    """Stands in for a segmenter: gives what it was told."""

    def __init__(self, probability: np.ndarray) -> None:
        self._probability = probability

    def probabilities(self, crop: object) -> np.ndarray:
        return self._probability

    def predict(self, crop: object) -> object:
        class Labels:
            array = self._probability.argmax(axis=0)

        return Labels()


def told(pieces: dict[tuple[int, int, int], tuple[int, float]]) -> _Told:
    """Balls of 5 voxels' edge, each of a class and a probability."""
    probability = np.full((len(CLASSES), 64, 160, 160), 1e-6, np.float32)
    probability[0] = 1
    for (z, y, x), (label, value) in pieces.items():
        box = (slice(z - 2, z + 3), slice(y - 6, y + 7), slice(x - 6, x + 7))
        probability[(label, *box)] = value
        probability[(0, *box)] = 1 - value
    return _Told(probability)


def at(*leads: float) -> list[curve.Bar]:
    """Bars of which contour and core are one."""
    return [curve.Bar(lead, lead) for lead in leads]


def test_a_core_moves_no_contour() -> None:
    """The pieces that stay are drawn as without one."""
    crop = crop_of(0)
    segmenter = told({(32, 76, 66): (NODE, 0.95), (10, 30, 30): (NODE, 0.7)})
    bars = [curve.Bar(0.0, 0.0), curve.Bar(0.0, 2.0), curve.Bar(0.0, 5.0)]
    counts = counts_of(crop, segmenter, [12.0], bars=bars)  # type: ignore[arg-type]
    assert counts.false.tolist() == [1, 0, 0]
    assert counts.dice[0, 0] == counts.dice[1, 0] > 0
    assert counts.dice[2, 0] == 0


def test_figures_count_found_missed_and_false_nodes_at_each_offset() -> None:
    crop = crop_of(0)
    segmenter = told({(32, 76, 66): (NODE, 0.95), (10, 30, 30): (NODE, 0.7), (50, 120, 120): (PAROTID, 0.9)})
    counts = counts_of(crop, segmenter, [12.0], bars=at(0.0, 2.0, 5.0))  # type: ignore[arg-type]
    assert counts.false_primaries == ()
    assert counts.false.tolist() == [1, 0, 0]
    assert [bool(d) for d in counts.dice[:, 0]] == [True, True, False]
    figures = summary([counts, counts], offsets=(0.0, 2.0, 5.0))
    assert figures["sensitivity"] == 1
    assert figures["false_per_case"] == 1
    assert [row[1] for row in figures["froc_10_mm"]] == [1, 0, 0]


def test_a_piece_in_what_nobody_outlined_is_neither_false_nor_a_hard_place() -> None:
    crop = crop_of(0)
    crop.labels[5:16, 10:50, 10:50] = IGNORE
    pieces = {(10, 30, 30): (NODE, 0.9), (50, 120, 120): (PRIMARY, 0.9), (10, 44, 16): (PRIMARY, 0.9)}
    segmenter = told(pieces)
    counts = counts_of(crop, segmenter, [12.0], bars=at(0.0))  # type: ignore[arg-type]
    assert counts.false.tolist() == [0]
    assert counts.false_primaries == pytest.approx([np.log(9)], abs=1e-5)
    ((z, y, x),) = false_places(crop, segmenter)  # type: ignore[arg-type]
    assert np.linalg.norm(np.subtract((z, y, x), (50, 120, 120))) < 8


def test_hard_places_of_a_crop_are_those_of_its_last_search(tmp_path: Path) -> None:
    """Also where a file of before knew one kind of crops alone."""
    (tmp_path / "hard_places.json").write_text(json.dumps({"plain": [["p0", 1, 2, 3]], "next": 7}))
    for k in range(3):
        add_crop(crops_folder(tmp_path) / "plain", f"p{k}", crop_of(k), {})
    one, none = told({(50, 120, 120): (NODE, 0.9)}), told({})
    curve.look_for_hard_places(tmp_path, one, 1)  # type: ignore[arg-type]
    file = tmp_path / "hard_places.json"
    assert len(json.loads(file.read_text())["plain"]) == 3
    curve.look_for_hard_places(tmp_path, none, 2)  # type: ignore[arg-type]
    assert json.loads(file.read_text())["plain"] == []


def test_a_search_goes_on_with_the_crops_that_the_last_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, count in (("plain", 3), ("disease", 2)):
        for k in range(count):
            add_crop(crops_folder(tmp_path) / kind, f"{kind}{k}", crop_of(k), {})
    monkeypatch.setattr(curve, "false_places", lambda crop, step: [(step, 0, 0)])
    file = tmp_path / "hard_places.json"

    def searched_at(most: int | None, step: int) -> dict[str, list[int]]:
        curve.look_for_hard_places(tmp_path, step, step, most)  # type: ignore[arg-type]
        found = json.loads(file.read_text())
        return {kind: [z for _, z, _, _ in sorted(found[kind])] for kind in ("plain", "disease")}

    assert searched_at(2, 1) == {"plain": [1, 1], "disease": [1, 1]}
    assert searched_at(2, 2) == {"plain": [2, 1, 2], "disease": [2, 2]}
    assert searched_at(None, 3) == {"plain": [3, 3, 3], "disease": [3, 3]}


def test_a_checkpoint_is_measured_once_and_the_curve_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures have tests of their own; an untrained network calls half of the crop a node."""
    torch.set_num_threads(1)
    monkeypatch.setattr(curve, "measure", lambda work, segmenter: {"classes": segmenter.plan.classes})
    for stop in (1, 2):
        fit_segmenter.train([Lesson([crop_of(0)])], TINY, tmp_path, 0, until=stop)
        for _ in range(2):
            curve.follow(tmp_path, forever=False)
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [(line["step"], line["classes"]) for line in lines] == [(1, len(CLASSES)), (2, len(CLASSES))]


def test_offsets_rise_so_that_the_first_that_fits_is_the_most_sensitive() -> None:
    assert all(a < b for a, b in itertools.pairwise(curve.OFFSETS))
