"""The bundle that comes with the package: whole, small, honest, and able to find planted nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aiene.models.bundle import Bundle, read_bundle, verify_bundle
from tools.default_bundle.bundle_card import DEFAULT_BUNDLE
from tools.default_bundle.evaluate_default import Road, judge, load_road
from tools.default_bundle.phantom_crops import TEST_SEED


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DEFAULT_BUNDLE)


@pytest.fixture(scope="module")
def road() -> Road:
    torch.set_num_threads(2)
    return load_road(DEFAULT_BUNDLE)


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def test_every_file_has_the_hash_on_the_card(bundle: Bundle) -> None:
    verify_bundle(bundle)
    assert {"template.nrrd", "classifier/weights.safetensors", "segmenter/plans.json"} <= set(
        bundle.card.files
    )


def test_the_bundle_is_small_enough_for_the_package() -> None:
    assert _size(DEFAULT_BUNDLE) < 15e6


def test_the_bundle_says_what_it_is(bundle: Bundle) -> None:
    assert bundle.card.notice == "Demonstration weights, trained on synthetic nodes, not for patients."
    assert bundle.card.notice in (DEFAULT_BUNDLE / "README.md").read_text(encoding="utf-8")
    assert "OpenKBP" in bundle.card.provenance["template"]


def test_the_stored_figures_meet_what_was_asked_for(bundle: Bundle) -> None:
    for name, first_seed in (("evaluation", TEST_SEED), ("second_evaluation", TEST_SEED + 1000)):
        figures = bundle.card.provenance[name]
        assert figures["first_seed"] == first_seed
        assert figures["cases"] >= 20
        assert figures["cases_failed"] == 0
        _meets_what_was_asked_for(figures)


def _meets_what_was_asked_for(figures: dict[str, float]) -> None:
    assert figures["sensitivity"] >= 0.75  # real disease was taught in the place of some phantoms
    assert figures["false_nodes_per_case"] <= 1
    assert figures["ene_auc"] >= 0.8


def test_the_figures_on_real_cts_are_of_these_weights(bundle: Bundle) -> None:
    figures = bundle.card.provenance["real_evaluation"]
    assert figures["segmenter_sha256"] == bundle.card.files["segmenter/fold_0/checkpoint_final.pth"]
    assert len(figures["kept_out"]) == 20
    assert len(figures["robustness"]) == 8
    assert figures["planted_in_real"]["false_nodes_per_case"] <= 2
    assert figures["blank_plantings"]["new_nodes_found"] <= 0.05 * figures["blank_plantings"]["places"]
    real = figures["real_nodes"]
    assert real["share_of_found_volume_in_high_dose_target"] > 2 * real["the_same_by_chance"]


def test_weak_signs_of_extension_are_not_called_with_certainty(bundle: Bundle) -> None:
    figures = bundle.card.provenance["ene_evaluation"]
    weak = figures["by_strength"]["weak"]
    assert weak["nodes"] >= 10
    assert weak["certain_yes"] <= 0.1
    assert weak["certain_no"] <= 0.2
    assert weak["mean_probability"] < figures["by_strength"]["strong"]["mean_probability"]
    assert figures["auc"] >= 0.8


@pytest.mark.slow
def test_planted_nodes_in_an_unseen_phantom_are_found(road: Road) -> None:
    """Of a seed that neither training nor the stored evaluations used; those count more of them."""
    case = judge(TEST_SEED + 500, road)
    assert case.planted >= 2
    assert case.found >= 0.6 * case.planted
    assert case.false <= 2
