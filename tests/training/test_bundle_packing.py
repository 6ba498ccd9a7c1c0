"""A new segmenter beside the classifier of before: what stays, what goes, and what the card says of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from aiene.classify.classifier import load_dualnet
from aiene.models.bundle import read_bundle, verify_bundle
from tools.default_bundle.bundle_card import DEFAULT_BUNDLE, note_start, pack_segmenter
from tools.default_bundle.operating_point import Point, chosen


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A training's folder: 3 steps on crops of two patients."""
    folder = tmp_path / "work"
    for name in ("disease/pt_1_0", "disease/pt_2_0", "round/pt_1_2", "validation/plain/pt_3_0", "necks/7"):
        file = folder / "crops" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    shutil.copytree(DEFAULT_BUNDLE / "segmenter", folder / "segmenter")
    (folder / "segmenter" / "fold_0" / "checkpoint_final.pth").write_bytes(b"other weights")
    torch.save({"step": 3}, folder / "segmenter_state.pth")
    points = chosen({0.0: [Point(0.0, 0.9, 0.95, 3.0, 0.7), Point(1.0, 0.8, 0.9, 1.0, 0.7)]}).card()
    (folder / "operating_point.json").write_text(json.dumps({**points, "cores": {"GTVn": 1.0}}))
    return folder


def test_a_new_segmenter_leaves_classifier_and_threshold_and_no_figure_of_the_old_one(
    work: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, bundle)
    before = read_bundle(bundle).card
    pack_segmenter(work, bundle)
    after = read_bundle(bundle)
    verify_bundle(after)
    card = after.card
    weights = "segmenter/fold_0/checkpoint_final.pth"
    assert card.files[weights] != before.files[weights]
    assert {n: h for n, h in card.files.items() if n.startswith("classifier/")} == {
        n: h for n, h in before.files.items() if n.startswith("classifier/")
    }
    assert card.ene_threshold == before.ene_threshold
    assert not [name for name in card.provenance if name.endswith("evaluation")]
    assert dict(card.segmenter.operating_points) == {"balanced": 0.0, "sensitive": -1.0}
    assert dict(card.segmenter.cores) == {"GTVn": 1.0}


def test_the_card_tells_what_either_network_learned_from(work: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, bundle)
    before = read_bundle(bundle).card.provenance["data"]
    note_start(work, DEFAULT_BUNDLE / "segmenter" / "fold_0" / "checkpoint_final.pth")
    pack_segmenter(work, bundle)
    data = read_bundle(bundle).card.provenance["data"]
    assert (data["segmenter_steps"], data["real_crops"], data["real_patients"]) == (3, 3, 2)
    assert data["real_crops_by_kind"] == {"disease": 2, "round": 1, "plain": 0}
    assert data["classifier_steps"] == before["classifier_steps"]
    assert data["segmenter_started"]["segmenter_steps"] == before["segmenter_steps"]
    readme = (bundle / "README.md").read_text(encoding="utf-8")
    assert "3 crops of 2 patients" in readme
    assert f"the weights of before: {before['segmenter_steps']} steps" in readme
    assert "it was not trained anew" in readme


def test_a_classifier_that_was_calibrated_anew_comes_with_its_threshold(work: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, bundle)
    before = read_bundle(DEFAULT_BUNDLE)
    net = load_dualnet(before.classifier_folder)
    with torch.no_grad():
        net.out.bias[1] += 1.0
    (work / "threshold.json").write_text(json.dumps({"ene_threshold": 0.625}))
    pack_segmenter(work, bundle, net)
    after = read_bundle(bundle)
    verify_bundle(after)
    assert after.card.ene_threshold == 0.625
    moved = load_dualnet(after.classifier_folder).out.bias - load_dualnet(before.classifier_folder).out.bias
    assert moved.tolist() == pytest.approx([0.0, 1.0], abs=2e-3)  # stored in float16
    assert (
        after.card.provenance["data"]["classifier_steps"]
        == before.card.provenance["data"]["classifier_steps"]
    )


def test_a_training_from_random_or_other_weights_is_not_said_to_start_from_the_bundle(
    work: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, bundle)
    pack_segmenter(work, bundle)
    assert "| the segmenter started from | random weights |" in (bundle / "README.md").read_text(
        encoding="utf-8"
    )
    other = tmp_path / "other.pth"
    other.write_bytes(b"weights of somebody else")
    note_start(work, other)
    pack_segmenter(work, bundle)
    sha256 = hashlib.sha256(other.read_bytes()).hexdigest()
    assert f"weights with the SHA-256 {sha256}" in (bundle / "README.md").read_text(encoding="utf-8")
