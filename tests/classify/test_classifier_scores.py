"""Scores: in order, whatever the batch, and None where there is nothing to see."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aiene.classify.classifier import (
    Classifier,
    ClassifierInputs,
    classifier_inputs,
    load_bundle_classifier,
    load_classifier,
    save_classifier,
)
from aiene.geometry.grid import Grid, Volume
from aiene.models.bundle import CARD, find_bundle
from aiene.nodes.node import Node
from builders.narrow_dualnet import narrow_net

GRID = Grid((64, 160, 160), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    save_classifier(tmp_path, narrow_net())
    return load_classifier(tmp_path, normalisation="legacy", device="cpu")


def crop() -> Volume:
    array = np.random.default_rng(0).random(GRID.size).astype(np.float32)
    array[:, :, 100:] = 0  # air
    return Volume(array, GRID)


def node(number: int, x: int) -> Node:
    mask = np.zeros(GRID.size, dtype=bool)
    mask[20 + number : 28 + number, 50:70, x : x + 12] = True
    return Node(number, mask, mask, mask, 1.0, 1.0, 1.0, None, touches_border=False)


NODES = [node(1, 10), node(2, 120), node(3, 40), node(4, 60), node(5, 80), node(6, 130)]


@pytest.mark.slow
def test_scores_stand_in_the_order_of_the_nodes_and_air_has_none(classifier: Classifier) -> None:
    scores = classifier.scores(crop(), NODES)
    assert [score is None for score in scores] == [False, True, False, False, False, True]
    for node_, score in zip(NODES, scores, strict=True):
        inputs = classifier_inputs(crop().array, node_.dilated, "legacy")
        if inputs is None or score is None:
            continue
        with torch.inference_mode():
            alone = classifier.net(*(torch.from_numpy(i)[None, None] for i in inputs))[0]
        assert (score.pos, score.ene) == pytest.approx(tuple(alone.tolist()), abs=1e-6)
    assert len({score.ene for score in scores if score is not None}) == 4


@pytest.mark.slow
def test_a_node_has_the_same_bits_beside_any_others(classifier: Classifier) -> None:
    together = classifier.scores(crop(), NODES)
    assert [classifier.scores(crop(), [node_])[0] for node_ in NODES] == together
    assert classifier.scores(crop(), NODES[::-1])[::-1] == together


_SCORES = """
import sys
from pathlib import Path
import numpy as np, torch
from scipy.ndimage import gaussian_filter
from aiene.classify.classifier import load_classifier
from aiene.classify.classifier import ClassifierInputs

torch.set_num_threads(int(sys.argv[2]))
random = np.random.default_rng(0)
shapes = (32, 118, 118), (32, 32, 32)
inputs = [
    ClassifierInputs(*(10 * gaussian_filter(random.normal(size=s), 3).astype(np.float32) for s in shapes))
    for _ in range(4)
]
found = load_classifier(Path(sys.argv[1]), normalisation="legacy", device="cpu").probabilities(inputs)
assert torch.get_num_threads() == int(sys.argv[2])
print(found.tobytes().hex())
"""


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["as it is", "AVX2"])
def test_a_node_has_the_same_bits_with_any_number_of_threads(processor: str) -> None:
    # MKL's products for AVX2 sum in another order for each number of threads; those for AVX512 do not.
    names = ("MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
    older = {} if processor == "as it is" else dict(zip(names, ("AVX2", "AVX2", "avx2"), strict=True))
    said = {
        subprocess.run(
            [sys.executable, "-c", _SCORES, str(find_bundle("default").classifier_folder), str(threads)],
            env=os.environ | older,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for threads in (1, 4)
    }
    assert len(said) == 1


def test_no_nodes_give_no_scores(classifier: Classifier) -> None:
    assert classifier.scores(crop(), []) == []
    assert classifier.scores(crop(), NODES[1:2]) == [None]
    assert classifier.probabilities([]).shape == (0, 2)


def test_the_normalisation_is_the_callers(classifier: Classifier) -> None:
    plain = replace(classifier, normalisation="none").scores(crop(), NODES[:1])
    assert plain != classifier.scores(crop(), NODES[:1])


def test_with_mirroring_a_node_and_its_mirror_images_have_one_answer() -> None:
    """The mean of the four logits, by hand; without it each image has its own. On trained weights."""
    classifier = replace(load_bundle_classifier(find_bundle("default"), "cpu"), mirroring=False)

    def ball(*shape: int) -> np.ndarray:
        z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
        uneven = 0.5 + 0.2 * z + 0.1 * y + 0.25 * x
        return np.where((z - 0.2) ** 2 + (y + 0.3) ** 2 + (x - 0.1) ** 2 < 0.3, uneven, 0).astype(np.float32)

    one = ClassifierInputs(ball(32, 118, 118), ball(32, 32, 32))
    images = [
        ClassifierInputs(one.box[turn].copy(), one.small[turn].copy())
        for turn in (np.s_[:], np.s_[:, :, ::-1], np.s_[::-1], np.s_[::-1, :, ::-1], np.s_[:, ::-1])
    ]
    single = classifier.probabilities(images)
    assert np.ptp(single, axis=0).max() > 0.01
    odds = np.exp(np.mean(np.log(single[:4] / (1 - single[:4])), axis=0))
    mirrored = replace(classifier, mirroring=True).probabilities(images)
    np.testing.assert_allclose(mirrored[:4], np.tile(odds / (1 + odds), (4, 1)), atol=1e-5)
    assert np.abs(mirrored[4] - mirrored[0]).max() > 1e-3  # front and back are two


def test_a_bundles_card_says_whether_its_classifier_mirrors(tmp_path: Path) -> None:
    shutil.copytree(find_bundle("default").path, tmp_path / "bundle")
    for wanted in (True, False):
        card = json.loads((tmp_path / "bundle" / CARD).read_text(encoding="utf-8"))
        card["classifier"]["mirroring"] = wanted
        (tmp_path / "bundle" / CARD).write_text(json.dumps(card), encoding="utf-8")
        loaded = load_bundle_classifier(find_bundle(str(tmp_path / "bundle")), "cpu")
        assert (loaded.mirroring, loaded.normalisation) == (wanted, "legacy")


def test_box_and_small_are_not_exchangeable(classifier: Classifier) -> None:
    random = np.random.default_rng(1)
    one = ClassifierInputs(
        random.random((32, 118, 118)).astype(np.float32), random.random((32, 32, 32)).astype(np.float32)
    )
    turned = ClassifierInputs(one.box.transpose(0, 2, 1).copy(), one.small)
    first, second = classifier.probabilities([one]), classifier.probabilities([turned])
    assert np.abs(first - second).max() > 0
