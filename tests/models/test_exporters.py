"""Bundles as nnU-Net, MONAI and the hub take them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import ndimage
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import ModelError, OutputError, UsageError
from aiene.models.bundle import default_folder, find_bundle, import_from_hub, read_bundle
from aiene.models.exporters import To, export_bundle
from aiene.models.importers.trial import SEEDS, trial_crop
from aiene.segment.segmenter import load_bundle_segmenter

REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_the_folder_for_nnunet_holds_the_very_files_that_its_predictor_is_tested_with(tmp_path: Path) -> None:
    """`test_in_nnunet.py` runs nnU-Net's own predictor on them: the labels are ours."""
    done = CliRunner().invoke(
        app, ["models", "export", "default", "--to", "nnunet", "-o", str(tmp_path / "net")]
    )
    assert done.exit_code == 0, done.output
    own = default_folder() / "segmenter"
    for file in (f for f in own.rglob("*") if f.is_file()):
        assert (tmp_path / "net" / file.relative_to(own)).read_bytes() == file.read_bytes()
    assert "nnUNetv2_predict_from_modelfolder" in (tmp_path / "net" / "README.md").read_text()


@pytest.mark.parametrize("to", ["nnunet", "monai"])
def test_the_notes_tell_of_pieces_that_another_program_would_not_drop(to: To, tmp_path: Path) -> None:
    bundle = find_bundle("default")
    for cores, told in (({}, False), ({"GTVn": 2.5}, True)):
        settings = bundle.card.segmenter.model_copy(update={"cores": cores})
        changed = replace(bundle, card=bundle.card.model_copy(update={"segmenter": settings}))
        folder = export_bundle(changed, to, tmp_path / f"{to}{told}")
        notes = next(folder.rglob("README.md")).read_text(encoding="utf-8")
        assert ("GTVn by 2.5" in notes) is told


@pytest.mark.slow
def test_monais_own_inferer_gives_our_labels(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    from monai.bundle import ConfigParser

    bundle = find_bundle("default")
    folder = export_bundle(bundle, "monai", tmp_path / "monai")
    ours = load_bundle_segmenter(bundle)
    patch = ours.plan.patch
    crop = trial_crop(SEEDS[0]).fed("crop")
    whole = np.zeros(patch, np.float32) + 0.001
    part = crop.array[: patch[0], : patch[1], : patch[2]]
    whole[: part.shape[0], : part.shape[1], : part.shape[2]] = part
    expected = ours(type(crop)(whole, type(crop.grid)(whole.shape, crop.grid.spacing, crop.grid.origin)))
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser.read_meta(folder / "configs" / "metadata.json")
    parser["bundle_root"], parser["device"] = str(folder), "$torch.device('cpu')"
    parser.parse()
    parser.get_parsed_content("load")
    with torch.inference_mode():
        logits = parser.get_parsed_content("inferer")(torch.from_numpy(whole)[None, None])[0].numpy()
    best = np.sort(logits, axis=0)[-2:]
    decided = best[1] - best[0] > 1e-3
    assert decided.mean() > 0.999
    labels = logits.argmax(axis=0)
    labels[labels > 2] = 0  # a run leaves the organs out
    for name, core in bundle.card.segmenter.cores.items():  # and what the export's notes tell of
        value = bundle.card.labels[name]
        sure = logits[value] - np.delete(logits, value, 0).max(axis=0) > core
        kept = ndimage.binary_propagation(sure, np.ones((3, 3, 3)), labels == value)
        labels[(labels == value) & ~kept] = 0
    np.testing.assert_array_equal(labels[decided], expected.array[decided])
    assert (expected.array == 2).any()
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    needed = {
        "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "task", "description",
        "authors", "copyright", "network_data_format",
    }  # fmt: skip
    assert needed <= metadata.keys()
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["2"] == "GTVn"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of the hub in the client's own cache, and no network."""
    pytest.importorskip("huggingface_hub")
    cache = tmp_path / "hub"
    place = cache / "models--someone--nodes"
    export_bundle(find_bundle("default"), "hub", place / "snapshots" / REVISION)
    (place / "snapshots" / REVISION / ".gitattributes").write_text("*.pth filter=lfs\n")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(REVISION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("AIENE_MODELS", str(tmp_path / "models"))
    return place / "snapshots" / REVISION


def test_a_bundle_goes_to_the_hub_and_comes_back_the_same(hub: Path, tmp_path: Path) -> None:
    head = yaml.safe_load((hub / "README.md").read_text().split("---\n")[1])
    assert head["license"] == "apache-2.0"
    assert head["model-index"][0]["name"] == "default"
    done = CliRunner().invoke(app, ["models", "import", "--name", "again", "hf://someone/nodes", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sha256"] == find_bundle("default").sha256
    assert read_bundle(tmp_path / "models" / "again").card == find_bundle("default").card


def test_what_is_no_bundle_of_the_hub_is_refused(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give hf://ORGANISATION/REPOSITORY"):
        import_from_hub("x", "hf://nodes")
    with pytest.raises(ModelError, match="cannot be fetched"):
        import_from_hub("x", "hf://someone/else")
    (hub / "template.nrrd").write_bytes(b"changed")
    with pytest.raises(ModelError, match="SHA-256"):
        import_from_hub("x", "hf://someone/nodes")
    card = json.loads((hub / "model.json").read_text())
    card["files"]["../../outside"] = "0" * 64
    (hub / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="not in the repository"):
        import_from_hub("x", "hf://someone/nodes")
    assert not (tmp_path / "models").exists() or not any((tmp_path / "models").iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputError):
        export_bundle(find_bundle("default"), "nnunet", tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]
