"""nnU-Net v2 models of others: their labels, intensities, folds, checkpoints, and a trial run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import ModelError
from aiene.geometry.grid import Grid, Volume
from aiene.models.bundle import default_folder, read_bundle, write_card
from aiene.models.importers.bundle import Choices, import_into, import_segmenter
from aiene.segment.segmenter import load_bundle_segmenter, load_segmenter

Make = Callable[..., tuple[Path, list[nn.Module]]]
WINDOWED = {"mean": 0.55, "std": 0.12, "percentile_00_5": 0.2, "percentile_99_5": 0.9}
HU = {"mean": 62.0, "std": 55.0, "percentile_00_5": -95.0, "percentile_99_5": 240.0}


def of(foreground: dict[str, float]) -> dict[str, Any]:
    return {"foreground_intensity_properties_per_channel": {"0": foreground}}


def labels(**values: Any) -> dict[str, Any]:
    return {"labels": {"background": 0, **values}}


def _balanced(network: nn.Module) -> None:
    """No class is preferred, so that all of them come."""
    nn.init.zeros_(dict(network.named_parameters())["decoder.seg_layers.1.bias"])


@pytest.mark.parametrize(
    ("given", "classes", "expected"),
    [
        (labels(GTVn=1, GTVp=2), 3, {"GTVn": 1, "GTVp": 2}),
        (labels(GTVp=[1], GTVn=[2]), 3, {"GTVn": 2, "GTVp": 1}),
        (labels(lymph_node=1), 2, {"GTVn": 1}),
        (labels(lymph_node=1, ignore=2), 2, {"GTVn": 1}),
        (labels(parotid=1, GTVn=2, cord=3), 4, {"GTVn": 2}),
        ({"labels": {"0": "background", "1": "node", "2": "tumor"}}, 3, {"GTVn": 1, "GTVp": 2}),
    ],
)
@pytest.mark.slow
def test_the_card_and_the_label_map_follow_the_names(
    make_model: Make, tmp_path: Path, given: dict[str, Any], classes: int, expected: dict[str, int]
) -> None:
    folder, _ = make_model(dataset=given, classes=classes, change=_balanced)
    base = read_bundle(default_folder())
    done = import_into(name="mine", segmenter=folder, base=base, out=tmp_path / "mine")
    assert done.bundle.card.labels == expected
    values = np.random.default_rng(5).uniform(0.01, 1, (16, 32, 32)).astype(np.float32)
    crop = Volume(values, Grid(values.shape, (3.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    raw = load_segmenter(folder, mirroring=True)(crop).array
    ours = load_bundle_segmenter(done.bundle)(crop).array
    wanted = np.zeros_like(raw)
    for name, value in expected.items():
        wanted[raw == value] = {"GTVp": 1, "GTVn": 2}[name]
    np.testing.assert_array_equal(ours, wanted)
    assert np.unique(raw).size > 1
    assert ("none is looked for" in done.segmenter) == ("GTVp" not in expected)


@pytest.mark.parametrize(
    ("dataset", "classes", "words"),
    [
        (labels(thing=1), 2, r"dataset\.json: no label name refers"),
        (labels(GTVn=1), 3, "answers for 3 classes, dataset.json has 2 labels"),
        (labels(GTVp=1, GTVn=2, GTVx=3), 3, "answers for 3 classes, dataset.json has 4 labels"),
        (labels(tumor=[1, 2], GTVn=2), 3, r"regions of several labels \(tumor\)"),
        ({"labels": {"0": "background", "1": "node", "2": "node"}}, 3, "two labels named node"),
        (labels(GTVp=1, GTVn=3), 3, "do not count up"),
        (labels(GTVp=1, GTVn="two"), 3, "not a number"),
        (labels(GTVp=1, ignore=2), 2, "no label name refers"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, 3, r"2 images at a time \(CT, PET\)"),
        ({"labels": None}, 3, "labels"),
    ],
)
def test_labels_that_cannot_be_known_leave_no_bundle(
    make_model: Make, tmp_path: Path, dataset: dict[str, Any], classes: int, words: str
) -> None:
    folder, _ = make_model(dataset=dataset, classes=classes)
    with pytest.raises(ModelError, match=words):
        import_segmenter(folder, tmp_path / "segmenter")
    assert not (tmp_path / "segmenter").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"dataset\.json: cannot be read"),
        ("{", "is not JSON"),
        ("[]", "dictionary"),
        (
            '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "GTVn": 1, "GTVn": 2}}',
            "names GTVn twice",
        ),
    ],
)
def test_a_dataset_json_that_is_absent_or_garbled_is_named(
    make_model: Make, tmp_path: Path, content: str | None, words: str
) -> None:
    folder, _ = make_model()
    (folder / "dataset.json").unlink()
    if content is not None:
        (folder / "dataset.json").write_text(content)
    with pytest.raises(ModelError, match=words):
        import_segmenter(folder, tmp_path / "segmenter")


@pytest.mark.parametrize(
    ("scheme", "foreground", "expected"),
    [
        ("CTNormalization", WINDOWED, "crop"),
        ("CTNormalization", HU, "hu"),
        ("ZScoreNormalization", HU, "hu"),
        ("RescaleTo01Normalization", WINDOWED, "crop"),
        ("NoNormalization", WINDOWED, "crop"),
        ("NoNormalization", dict.fromkeys(WINDOWED, 0.0), "crop"),
        ("NoNormalization", {}, "crop"),
    ],
)
def test_a_model_is_fed_what_it_was_trained_on(
    make_model: Make, tmp_path: Path, scheme: str, foreground: dict[str, float], expected: str
) -> None:
    folder, _ = make_model(plans=of(foreground), configuration={"normalization_schemes": [scheme]})
    report = import_segmenter(folder, tmp_path / "segmenter", Choices(allow_empty=True))
    assert report.intensities == expected
    assert ("fed in HU" in str(report)) == (expected == "hu")


@pytest.mark.parametrize(
    ("foreground", "wanted", "words"),
    [
        (
            HU,
            "crop",
            r"tumour at -95 to 240 \(mean 62\), where a crop has .* leave --intensities crop out: hu is",
        ),
        (WINDOWED, "hu", "leave --intensities hu out: crop is"),
        (
            {"mean": 1090.0, "std": 40.0, "percentile_00_5": 960.0, "percentile_99_5": 1200.0},
            None,
            "train it",
        ),
        ({"mean": 0.5, "std": 1e-4, "percentile_00_5": 0.4999, "percentile_99_5": 0.5001}, None, "train it"),
        ({"mean": 9e4, "std": 2e4, "percentile_00_5": 1e4, "percentile_99_5": 1.3e5}, None, "train it"),
    ],
)
def test_intensities_that_fit_no_crop_are_refused(
    make_model: Make, tmp_path: Path, foreground: dict[str, float], wanted: Any, words: str
) -> None:
    folder, _ = make_model(plans=of(foreground))
    with pytest.raises(ModelError, match=words):
        import_segmenter(folder, tmp_path / "segmenter", Choices(intensities=wanted))


def _one_class(network: nn.Module) -> None:
    bias = dict(network.named_parameters())["decoder.seg_layers.1.bias"]
    nn.init.constant_(bias[:1], 1e6)


def _overflowing(network: nn.Module) -> None:
    for name, weight in network.named_parameters():
        if "seg_layers" in name:
            nn.init.constant_(weight, 3e38)


def _not_numbers(network: nn.Module) -> None:
    with torch.no_grad():
        next(network.parameters())[0] = torch.nan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_one_class, "2 synthetic necks is nothing but background: .*--allow-empty"),
        (_overflowing, "its answer on a synthetic neck holds values that are not numbers"),
        (_not_numbers, r"weight encoder\.\S+ holds values that are not numbers"),
    ],
)
def test_weights_that_answer_nothing_are_refused(
    make_model: Make, tmp_path: Path, change: Callable[[nn.Module], None], words: str
) -> None:
    folder, _ = make_model(change=change)
    with pytest.raises(ModelError, match=words):
        import_segmenter(folder, tmp_path / "segmenter")
    assert not (tmp_path / "segmenter").exists()


@pytest.mark.slow
def test_a_model_that_finds_nothing_in_phantoms_is_taken_where_the_user_knows_better(
    make_model: Make, tmp_path: Path
) -> None:
    folder, _ = make_model(change=_one_class)
    report = import_segmenter(folder, tmp_path / "segmenter", Choices(allow_empty=True))
    assert "fold_0: its answer on 2 synthetic necks is nothing but background" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "ResidualEncoderUNet"},
        {"configuration": {"spacing": [1.0, 0.5, 0.5]}},
        {"configuration": {"spacing": [5.0, 0.6, 0.6]}},
        {
            "plans": {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]},
            "configuration": {"spacing": [1.0, 3.0, 1.0]},
        },
        {
            "configuration": {
                f"resampling_fn_{what}{end}": given
                for what in ("data", "probabilities")
                for end, given in (("", "resample_torch_fornnunet"), ("_kwargs", {"force_separate_z": False}))
            }
            | {"spacing": [2.0, 1.5, 1.5]}
        },
    ],
    ids=["residual", "fine", "anisotropic", "transposed", "torch"],
)
def test_plans_of_other_kinds_come_in(make_model: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    folder, _ = make_model(**changes)
    assert import_segmenter(folder, tmp_path / "segmenter").chosen.labels == {"GTVn": 2, "GTVp": 1}


@pytest.mark.slow
def test_folds_and_checkpoints_are_those_that_are_named(make_model: Make, tmp_path: Path) -> None:
    folder, _ = make_model(seeds=(0, 1, 2), name="checkpoint_best.pth")
    (folder / "fold_2").rename(folder / "fold_all")
    with pytest.raises(
        ModelError, match=r"fold_0: has no checkpoint_final\.pth; .*--checkpoint \(checkpoint_best"
    ):
        import_segmenter(folder, tmp_path / "a")
    best = Choices(checkpoint="checkpoint_best.pth")
    report = import_segmenter(folder, tmp_path / "b", best)
    assert report.folds == (0, 1)
    assert "fold_all left out" in str(report)
    assert import_segmenter(folder, tmp_path / "c", replace(best, folds=("all",))).folds == ("all",)
    assert (tmp_path / "c" / "fold_all" / "checkpoint_best.pth").is_file()
    with pytest.raises(ModelError, match="has no fold_4; it has fold_0, fold_1, fold_all"):
        import_segmenter(folder, tmp_path / "d", replace(best, folds=(0, 4)))
    shutil.rmtree(folder / "fold_0")
    shutil.rmtree(folder / "fold_1")
    assert import_segmenter(folder, tmp_path / "e", best).folds == ("all",)
    for name in ("../fold_all/checkpoint_best.pth", "*.pth", ""):
        with pytest.raises(ModelError, match=r"is not the name of a checkpoint|has no"):
            import_segmenter(folder, tmp_path / "f", Choices(checkpoint=name))


def test_one_fold_without_its_last_checkpoint_is_told(make_model: Make, tmp_path: Path) -> None:
    folder, _ = make_model(seeds=(0, 1))
    (folder / "fold_1" / "checkpoint_final.pth").rename(folder / "fold_1" / "checkpoint_latest.pth")
    with pytest.raises(ModelError, match=r"fold_1: has no checkpoint_final\.pth"):
        import_segmenter(folder, tmp_path / "segmenter")
    assert import_segmenter(folder, tmp_path / "segmenter", Choices(folds=(0,))).folds == (0,)


@pytest.mark.slow
def test_the_command_takes_every_choice_and_the_bundle_keeps_it(make_model: Make, tmp_path: Path) -> None:
    folder, _ = make_model(
        seeds=(0, 1), dataset=labels(one=1, two=2), plans=of(HU), name="checkpoint_best.pth"
    )
    words = ["models", "import", "--name", "m", "--segmenter", folder, "--base", "default"]
    refused = CliRunner().invoke(app, [str(w) for w in (*words, "--checkpoint", "checkpoint_best.pth")])
    assert refused.exit_code == 2
    assert "no label name refers" in refused.stderr
    words += ["--checkpoint", "checkpoint_best.pth", "--nodes-label", "two", "--primary-label", "1"]
    words += ["--folds", "1", "--no-mirroring", "--allow-empty", "-o", tmp_path / "bundle"]
    made = CliRunner().invoke(app, [str(w) for w in words])
    assert made.exit_code == 0, made.output
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.card.labels == {"GTVn": 2, "GTVp": 1}
    chosen = bundle.card.segmenter
    assert (chosen.folds, chosen.checkpoint) == ((1,), "checkpoint_best.pth")
    assert (chosen.mirroring, chosen.intensities) == (False, "hu")
    assert load_bundle_segmenter(bundle).takes_hu
    odd = CliRunner().invoke(app, [str(w) for w in (*words, "--folds", "1,x")])
    assert odd.exit_code == 2
    assert "--folds 1,x" in odd.stderr


def test_mirroring_is_refused_where_training_forbade_it(make_model: Make, tmp_path: Path) -> None:
    folder, _ = make_model(checkpoint={"inference_allowed_mirroring_axes": None})
    with pytest.raises(ModelError, match="without mirroring; leave --mirroring out"):
        import_segmenter(folder, tmp_path / "segmenter", Choices(mirroring=True))
    assert import_segmenter(folder, tmp_path / "segmenter").mirroring is False


def test_a_card_whose_labels_the_network_has_not_is_refused(tmp_path: Path) -> None:
    shutil.copytree(default_folder(), tmp_path / "b")
    card = json.loads((tmp_path / "b" / "model.json").read_text())
    card.pop("files")
    card["segmenter"]["cores"] = {}  # of labels that this card has no more
    bundle = write_card(tmp_path / "b", {**card, "labels": {"GTVn": 17}})
    with pytest.raises(ModelError, match="GTVn should be its class 17, but it has the classes 1 to 8"):
        load_bundle_segmenter(bundle)
    for wrong in ({"GTVp": 1}, {"GTVn": 0}, {"GTVn": 1, "GTVp": 1}):
        with pytest.raises(ValueError, match="GTVn"):
            write_card(tmp_path / "b", {**card, "labels": wrong})
