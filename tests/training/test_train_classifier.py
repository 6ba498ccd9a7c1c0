"""The classifier's training: what it learns from, how it is judged, and that a kill costs nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from aiene.classify.classifier import classifier_inputs, load_classifier
from aiene.classify.dualnet import DualNet, DualNetWidths
from aiene.cli.app import app
from aiene.errors import TrainingDataError, UsageError
from aiene.models.bundle import default_folder, read_bundle, verify_bundle, write_card
from aiene.nodes.split import dilate
from aiene.training import classifier as module
from aiene.training.bundle import Trained, assemble, ground_of
from aiene.training.classifier import ClassifierTraining, train_classifier
from aiene.training.classifier_fit import FitSettings, draw, fit, loss_of, sigmoid, temperature, threshold
from aiene.training.dataset import Step
from aiene.training.nodes import Augmentation, Example, augmented_inputs, jittered, plain_inputs, read_nodes
from aiene.training.place import claim

TINY = DualNetWidths(box=(2, 2, 2, 2, 2, 2), box_dense=(4, 4), small=(2, 2, 2, 2, 2, 2, 2), head=4)
QUICK = FitSettings(epochs=2, steps=1, batch=4, patience=5)


def settings(clinic: Path, out: Path, **changes: object) -> ClassifierTraining:
    given = {
        "images": clinic / "ct",
        "labels": clinic / "labels",
        "nodes": clinic / "nodes.csv",
        "fit": QUICK,
    }
    return ClassifierTraining(out=out, **{**given, **changes})  # type: ignore[arg-type]


def with_crops(clinic: Path, out: Path) -> Path:
    """A place to train at where the crops are made already."""
    work = out.with_name(f"{out.name}.training")
    claim(work)
    shutil.copytree(clinic / "crops", work / "crops")
    return out


@pytest.fixture(scope="module")
def trained(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Step]]:
    """A training from beginning to end, and what it told."""
    out = with_crops(clinic, tmp_path_factory.mktemp("trained") / "mine")
    steps: list[Step] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SMALL", TINY)
        train_classifier(settings(clinic, out), steps.append)
    return out, steps


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that trains in a moment."""
    monkeypatch.setattr(module, "SMALL", TINY)


def example(pos: float = 1.0, ene: float = 1.0, patient: str = "p") -> Example:
    rng = np.random.default_rng(int(pos * 10 + ene + 5))
    image = rng.uniform(0.3, 0.7, (20, 40, 40)).astype(np.float16)
    mask = np.zeros(image.shape, bool)
    mask[8:12, 15:25, 14:22] = True
    return Example("c", patient, "GTVn_01", image, mask, (3.0, 1.0, 1.0), pos, ene)


@pytest.mark.slow
def test_contours_and_pathology_become_a_bundle_that_runs(
    trained: tuple[Path, list[Step]], clinic: Path
) -> None:
    out, steps = trained
    bundle = read_bundle(out)
    verify_bundle(bundle)
    facts = bundle.card.provenance["classifier"]
    assert facts["patients"] == 5
    assert facts["nodes"] == len(pd.read_csv(clinic / "nodes.csv"))
    assert facts["ene"]["nodes"] == facts["nodes_with_known_ene"] == 10
    assert facts["pos"]["reason"] == "one class only"
    assert 0 <= facts["ene"]["auc"] <= 1
    assert sum(facts["patients_per_fold"]) == 5
    assert "taken from the bundle default" in bundle.card.provenance["segmenter"]
    assert (bundle.path / facts["figure"]).read_bytes().startswith(b"\x89PNG")
    assert "Not for clinical decisions" in (bundle.path / "README.md").read_text()
    assert 0 < bundle.card.ene_threshold < 1
    classifier = load_classifier(bundle.classifier_folder, normalisation="legacy", device="cpu")
    view = plain_inputs(example(), "legacy")
    assert view is not None
    assert np.isfinite(classifier.probabilities([view])).all()
    assert {step.stage for step in steps} == {
        "prepare",
        *(f"train fold {k}" for k in range(5)),
        "train final",
    }
    assert list((out.with_name("mine.training") / "tensorboard").rglob("events.out.tfevents*"))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_a_training_that_was_killed_goes_on_to_the_same_weights(
    trained: tuple[Path, list[Step]], clinic: Path, tmp_path: Path
) -> None:
    with_crops(clinic, tmp_path / "cut")

    def killed(step: Step) -> None:
        if step.stage == "train fold 2" and step.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_classifier(settings(clinic, tmp_path / "cut"), killed)
    with pytest.raises(UsageError, match="with --continue"):
        train_classifier(settings(clinic, tmp_path / "cut"))
    resumed, _ = train_classifier(settings(clinic, tmp_path / "cut", go_on=True))
    whole = read_bundle(trained[0])
    assert (
        resumed.card.files["classifier/weights.safetensors"]
        == whole.card.files["classifier/weights.safetensors"]
    )
    assert resumed.card.ene_threshold == whole.card.ene_threshold


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_work_of_other_data_or_settings_is_not_taken_up(
    trained: tuple[Path, list[Step]], clinic: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[0].with_name("mine.training"), tmp_path / "mine.training")
    other = replace(QUICK, seed=9)
    with pytest.raises(UsageError, match=r"other data or settings \(different: fit\)"):
        train_classifier(settings(clinic, tmp_path / "mine", fit=other, go_on=True))
    with pytest.raises(UsageError, match="leave --continue out"):
        train_classifier(settings(clinic, tmp_path / "new", go_on=True))


@pytest.mark.slow
def test_rows_that_name_no_node_or_one_twice_are_all_told(clinic: Path, tmp_path: Path) -> None:
    table: Any = pd.read_csv(clinic / "nodes.csv")
    table.loc[0, "x_mm"] += 300
    table = pd.concat([table, table.iloc[[3]].assign(x_mm=table.loc[3, "x_mm"] + 0.5)])
    table.to_csv(tmp_path / "nodes.csv", index=False)
    with pytest.raises(TrainingDataError) as caught:
        train_classifier(settings(clinic, with_crops(clinic, tmp_path / "out"), nodes=tmp_path / "nodes.csv"))
    assert len(caught.value.problems) == 2
    assert "line 2: the case p0 has no node near its point" in caught.value.problems[0]
    assert "name the same node" in caught.value.problems[1]


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_the_readmes_two_commands_make_one_bundle_of_one_preparation(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    lines = [line.split() for line in readme.splitlines() if line.startswith("aiene train")]
    assert [line[1:3] for line in lines] == [["train", "segmenter"], ["train", "classifier"]]
    start, out = tmp_path / "start", tmp_path / "my-model"
    shutil.copytree(default_folder(), start)
    card = json.loads((start / "model.json").read_text())
    card.pop("files")
    write_card(start, {**card, "name": "start", "classifier": {"normalisation": "zscore"}})
    places = {
        "CTS": clinic / "ct", "CONTOURS": clinic / "labels", "nodes.csv": clinic / "nodes.csv",
        "my-model": out, "default": start,
    }  # fmt: skip

    def without_nnunet(given: Any, *_: object) -> tuple[Any, Any]:
        ground = ground_of(given.out, given.start_from, {})
        claim(ground.work)
        made = Trained("segmenter", ground.base.segmenter_folder, {"training": "first"})
        return assemble(ground, made), SimpleNamespace(left_out=())

    monkeypatch.setattr("aiene.training.segmenter.train_segmenter", without_nnunet)
    few = ("--epochs", "1", "--steps", "1", "--batch", "2", "-d", "cpu")
    for line, more in zip(lines, ((), few), strict=True):
        done = CliRunner().invoke(app, [*(str(places.get(word, word)) for word in line[1:]), *more])
        assert done.exit_code == 0, done.output
        shutil.copytree(clinic / "crops", tmp_path / "my-model.training" / "crops", dirs_exist_ok=True)
    bundle = read_bundle(out)
    verify_bundle(bundle)
    assert bundle.card.classifier.normalisation == "zscore"
    record = json.loads((tmp_path / "my-model.training" / "classifier.json").read_text())
    assert record["fit"]["normalisation"] == "zscore"
    assert bundle.card.provenance["segmenter"] == {"training": "first"}
    assert bundle.card.provenance["classifier"]["preparation"]["normalisation"] == "zscore"
    again = CliRunner().invoke(app, [*(str(places.get(word, word)) for word in lines[1][1:]), *few])
    assert again.exit_code == 2
    assert "with --continue" in again.output


@pytest.mark.slow
def test_a_case_without_ct_is_told_by_the_command(clinic: Path, tmp_path: Path) -> None:
    text = (clinic / "nodes.csv").read_text() + "stranger,0,0,0,1,1\n"
    (tmp_path / "nodes.csv").write_text(text)
    line = ["train", "classifier", "--images", str(clinic / "ct"), "--labels", str(clinic / "labels")]
    done = CliRunner().invoke(
        app, [*line, "--nodes", str(tmp_path / "nodes.csv"), "-o", str(tmp_path / "out")]
    )
    assert done.exit_code == 2
    assert "there is no CT of the case stranger" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a,GTVn_01,1,2\n", "ene is '2'; it must be 0, 1 or empty"),
        ("a,GTVn_01,0,1\n", "ene is 1 but pos is 0"),
        ("a,,1,1\n", "neither a point nor a name"),
        ("a,GTVn_01,1,1\nb,GTVn_01,1,\n", "ene is 1 in every node where it is known"),
        ("a,GTVn_01,1,\n", "no node has ene 0 or 1"),
    ],
)
def test_a_faulty_table_of_nodes_is_told_by_line(tmp_path: Path, rows: str, said: str) -> None:
    (tmp_path / "nodes.csv").write_text("case_id,name,pos,ene\n" + rows)
    with pytest.raises(TrainingDataError, match=said):
        read_nodes(tmp_path / "nodes.csv")


def test_the_table_of_a_run_is_read_by_its_points(tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text(
        "case_id,node,pos,ene,name,centroid_x_mm,centroid_y_mm,centroid_z_mm\n"
        "a,3,1,1,GTVn_01,1.5,2,3\na,4,1,0,GTVn_02,,,\n"
    )
    first, second = read_nodes(tmp_path / "nodes.csv")
    assert (first.point_lps_mm, first.name) == ((1.5, 2.0, 3.0), "")
    assert (second.point_lps_mm, second.name) == (None, "GTVn_02")


def test_unknown_labels_do_not_reach_the_loss() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]], requires_grad=True)
    loss_of(logits, torch.tensor([1.0, -1.0]), torch.tensor([-1.0, 0.0])).backward()
    gradient = logits.grad
    assert gradient is not None
    assert gradient[0, 1] == 0
    assert gradient[1, 0] == 0
    np.testing.assert_allclose(gradient[0, 0], 1 / (1 + np.exp(-2)) - 1, rtol=1e-6)
    np.testing.assert_allclose(gradient[1, 1], 1 / (1 + np.exp(-3)), rtol=1e-6)


@pytest.mark.slow
def test_nodes_of_which_nothing_is_known_teach_nothing_and_stop_nothing(tmp_path: Path) -> None:
    nodes = [replace(example(), pos=-1.0, ene=-1.0, patient_id=f"p{k}") for k in range(4)]
    quick = FitSettings(epochs=1, steps=2, batch=2)
    net = DualNet(TINY)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    done = fit(lambda: net, nodes, nodes, quick, tmp_path / "state.pth")
    for name, value in done.network.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_rare_nodes_are_drawn_as_often_as_common_ones() -> None:
    common, rare = [example(1, 0) for _ in range(95)], [example(1, 1) for _ in range(5)]
    drawn = draw([*common, *rare], 4000, np.random.default_rng(0))
    assert abs(sum(e.ene for e in drawn) / 4000 - 0.5) < 0.03


def test_without_any_change_the_view_is_what_the_road_shows() -> None:
    still = Augmentation(turn_degrees=0, scale=0, offset=0, gain=0, noise=0, redraw=0)
    node = example()
    for seed in range(6):
        view = augmented_inputs(node, "legacy", still, np.random.default_rng(seed))
        assert view is not None
        mirrored = example()
        plain = plain_inputs(node, "legacy")
        image = mirrored.image.astype(np.float32)
        centre = np.argwhere(node.mask).mean(axis=0)[2]
        flipped = np.take(image, np.clip(np.round(2 * centre - np.arange(40)), 0, 39).astype(int), axis=2)
        back = np.take(node.mask, np.clip(np.round(2 * centre - np.arange(40)), 0, 39).astype(int), axis=2)
        other = classifier_inputs(flipped, dilate(back), "legacy")
        assert plain is not None
        assert other is not None
        errors = [np.abs(view.small - one.small).max() for one in (plain, other)]
        assert min(errors) < 1e-4


def test_a_redrawn_contour_is_a_voxel_wider_or_tighter_in_plane_and_never_empty() -> None:
    mask = example().mask
    assert mask.sum() == 4 * 10 * 8
    assert jittered(mask, 1).sum() == 4 * (10 * 8 + 2 * 10 + 2 * 8)
    assert jittered(mask, -1).sum() == 4 * 8 * 6
    line = np.zeros((3, 5, 5), bool)
    line[1, 2, 1:4] = True
    np.testing.assert_array_equal(jittered(line, -1), line)


def test_the_temperature_of_overconfident_logits_is_found() -> None:
    rng = np.random.default_rng(3)
    honest = rng.normal(0, 2, 40_000)
    truth = (rng.random(40_000) < sigmoid(honest)).astype(float)
    assert temperature(3.0 * honest, truth) == pytest.approx(3.0, rel=0.03)
    assert temperature(honest, np.ones(40_000)) == 1.0


def test_thresholds_by_their_rules_on_five_nodes() -> None:
    probabilities = np.array([0.1, 0.3, 0.4, 0.6, 0.9])
    truth = np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    assert threshold(probabilities, truth, "youden") == pytest.approx(0.5)
    assert threshold(probabilities, truth, "sensitivity", 1.0) == pytest.approx(0.2)
    assert threshold(probabilities, truth, "sensitivity", 0.6) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="both classes"):
        threshold(probabilities, np.zeros(5), "youden")


@pytest.mark.slow
def test_training_stops_where_the_validation_auc_does_not_rise(tmp_path: Path) -> None:
    nodes = [example(1.0, float(k % 2), f"p{k}") for k in range(4)]
    quick = FitSettings(epochs=30, steps=1, batch=2, patience=2, learning_rate=0.0)
    done = fit(lambda: DualNet(TINY), nodes, nodes, quick, tmp_path / "state.pth")
    assert done.epochs == done.epoch + 2 < 30
    assert json.dumps(done.score)
