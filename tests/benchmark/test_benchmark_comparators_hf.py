"""Hugging Face adapters, run for real on small models built from their configuration classes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aiene.benchmark.comparators import hub
from aiene.benchmark.comparators.encoder import node_patches
from aiene.benchmark.comparators.protocol import CaseInput, Request, open_comparator
from aiene.benchmark.comparators.slice_segmenters import AxialView, PictureScale, slice_boxes
from aiene.benchmark.config import ModelEntry
from aiene.benchmark.run import located
from aiene.errors import CaseError, ModelError
from aiene.geometry.grid import Grid, Volume
from aiene.ingest.case import Case
from aiene.results.nifti import write_nifti
from builders import benchmarks as build


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small models."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("sam", "segformer", "swinv2", "vit", "vit-classifier", "clip", "dinov2", "bert"):
        build.tiny(folder, kind)
    return folder


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> CaseInput:
    """One case with two nodes."""
    file = tmp_path_factory.mktemp("case") / "a.nii.gz"
    write_nifti(build.ct(), file)
    truth = build.labels()
    nodes = np.zeros(build.SIZE, np.uint16)
    for number, block in build.BLOCKS.items():
        nodes[block] = number
    node_map = Volume(nodes, truth.grid)
    return CaseInput(Case("a", "nifti", (file,)), truth, node_map, (truth, node_map))


def _open(folder: Path, **entry: object) -> Any:
    said = ModelEntry(source=str(folder), **entry)  # type: ignore[arg-type]
    kind, where = located(said)
    return open_comparator(Request(folder.name, kind, said, "cpu", folder=where))


def _answer(model: Any, case: CaseInput) -> Any:
    return model.answer(model.infer(model.preprocess(model.load(case))))


@pytest.mark.slow
def test_a_sam_answers_each_box_with_a_mask_and_its_own_confidence(models: Path, case: CaseInput) -> None:
    model = _open(models / "sam")
    answer = _answer(model, case)
    assert model.facts.kind == "promptable"
    assert "ground truth's boxes" in model.facts.said[0]
    assert answer.labels is not None
    assert answer.nodes is not None
    assert answer.labels.array.shape == build.SIZE
    assert set(answer.confidence) == {1, 2}
    prompted = set(np.flatnonzero(case.truth_labels.array.any(axis=(1, 2))).tolist())
    found = set(np.flatnonzero(answer.labels.array.any(axis=(1, 2))).tolist())
    assert found <= prompted
    again = _answer(_open(models / "sam"), case)
    np.testing.assert_array_equal(answer.labels.array, again.labels.array)


@pytest.mark.slow
def test_a_sam_gives_what_transformers_gives_for_one_slice(models: Path, case: CaseInput) -> None:
    """Slice 5 by hand: scaled by the longest side, padded, masks cut and scaled back."""
    import transformers

    answer = _answer(_open(models / "sam", box_margin_mm=0.0), case)
    net = transformers.SamModel.from_pretrained(models / "sam").eval()
    hu = build.ct().array[5].astype(np.float32)
    unit = torch.from_numpy(np.clip((hu + 175) / 450, 0, 1))[None, None].repeat(1, 3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    spread = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    scaled = torch.nn.functional.interpolate(
        (unit - mean) / spread, (58, 64), mode="bilinear", antialias=True
    )
    padded = torch.nn.functional.pad(scaled, (0, 0, 0, 6))
    box = torch.tensor([[[8 * 64 / 40, 8 * 58 / 36, 14 * 64 / 40, 14 * 58 / 36]]])
    with torch.inference_mode():
        out = net(pixel_values=padded, input_boxes=box, multimask_output=False)
    large = torch.nn.functional.interpolate(out.pred_masks[:, 0], (64, 64), mode="bilinear")[..., :58, :]
    mask = torch.nn.functional.interpolate(large, (36, 40), mode="bilinear")[0, 0] > 0
    np.testing.assert_array_equal(answer.nodes.array[5] == 1, mask.numpy())


@pytest.mark.slow
def test_a_promptable_model_without_prompts_is_a_sentence(models: Path, case: CaseInput) -> None:
    model = _open(models / "sam")
    with pytest.raises(CaseError, match="nothing to prompt"):
        model.load(CaseInput(case.case, case.truth_labels, case.truth_nodes, None))


def test_boxes_hold_their_object_and_stay_in_the_slice() -> None:
    objects = np.zeros((10, 12), np.int32)
    objects[2:5, 3:4], objects[9, 11] = 7, -1
    boxes = slice_boxes(objects, (0.0, 0.0))
    assert boxes == {-1: (11.0, 9.0, 12.0, 10.0), 7: (3.0, 2.0, 4.0, 5.0)}
    assert slice_boxes(objects, (5.0, 1.5))[7] == (1.5, 0.0, 5.5, 10.0)


@pytest.mark.slow
def test_a_segformer_gives_the_classes_of_its_own_names(models: Path, case: CaseInput) -> None:
    model = _open(models / "segformer", input_size=64)
    answer = _answer(model, case)
    assert model.facts.kind == "semantic"
    assert model.facts.parameters
    assert set(np.unique(answer.labels.array)) <= {0, 1, 2}
    for value, sure in answer.confidence.items():
        assert 0 <= sure <= 1
        assert (answer.labels.array[answer.nodes.array == value] == 2).all()


@pytest.mark.slow
def test_a_label_map_says_what_the_classes_are(models: Path, case: CaseInput) -> None:
    own = _answer(_open(models / "segformer"), case).labels.array
    turned = _answer(_open(models / "segformer", label_map={1: "GTVn", 2: "GTVp"}), case).labels.array
    np.testing.assert_array_equal(turned, np.array([0, 2, 1], np.uint8)[own])
    assert own.any()
    with pytest.raises(ModelError, match="no class 9"):
        _open(models / "segformer", label_map={9: "GTVn"})


@pytest.mark.slow
def test_a_segmenter_whose_classes_nobody_names_is_refused(models: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(models / "segformer", tmp_path / "nameless"))
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "wall", "1": "sky", "2": "cat"}
    config["label2id"] = {"wall": 0, "sky": 1, "cat": 2}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="label_map"):
        _open(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["swinv2", "vit", "vit-classifier", "clip", "dinov2"])
def test_an_encoder_gives_finite_features_that_tell_nodes_apart(
    models: Path, case: CaseInput, kind: str
) -> None:
    model = _open(models / kind)
    features = _answer(model, case).features
    assert model.facts.features
    assert set(features) == {1, 2}
    assert all(np.isfinite(one).all() and one.ndim == 1 and len(one) % 3 == 0 for one in features.values())
    assert not np.allclose(features[1], features[2])


@pytest.mark.slow
def test_the_features_are_those_of_the_model_itself(models: Path, case: CaseInput) -> None:
    import transformers

    model = _open(models / "vit", patch_mm=32.0)
    features = _answer(model, case).features[1]
    hu = node_patches(build.ct(), case.truth_nodes, side_mm=32.0, pixels=32)[1]
    pictures = PictureScale.from_config((-175.0, 275.0), {}, 3).pictures(hu)
    net = transformers.ViTModel.from_pretrained(models / "vit").eval()
    with torch.inference_mode():
        expected = net(pixel_values=pictures).pooler_output.numpy().ravel()
    np.testing.assert_allclose(features, expected, atol=1e-6)


@pytest.mark.slow
def test_a_pooler_without_weights_is_not_used(models: Path, case: CaseInput) -> None:
    """A classifier's checkpoint has no pooler: transformers would draw a random one, another each time."""
    first = _answer(_open(models / "vit-classifier"), case).features[1]
    second = _answer(_open(models / "vit-classifier"), case).features[1]
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_a_language_model_is_refused(models: Path) -> None:
    with pytest.raises(ModelError, match="takes no pictures"):
        _open(models / "bert")


@pytest.mark.slow
def test_a_size_that_does_not_fit_is_told_once_and_at_the_beginning(models: Path) -> None:
    with pytest.raises(ModelError, match="input_size"):
        _open(models / "vit", input_size=48)


# --- files and the hub ---


@pytest.mark.slow
def test_a_pickle_is_refused_with_a_sentence_and_never_opened(models: Path, tmp_path: Path) -> None:
    config = (models / "vit" / "config.json").read_text()
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    marker = tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    torch.save({"x": Harmful()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        _open(folder)
    assert not marker.exists()


@pytest.mark.slow
def test_a_model_with_its_own_code_is_refused(models: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(models / "vit", tmp_path / "remote"))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError, match="own code"):
        _open(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_damaged_or_incomplete_weights_are_a_sentence(models: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(models / "vit", tmp_path / "cut"))
    weights = folder / "model.safetensors"
    whole = load_file(weights)
    save_file({k: v for k, v in whole.items() if "attention" not in k}, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not in its files"):
        _open(folder)
    weights.write_bytes((models / "vit" / "model.safetensors").read_bytes()[:500])
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        _open(folder)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [("/nowhere/at/all", "no such folder"), ("./gone", "no such folder"), ("a b c", "no such folder")],
)
def test_a_folder_that_is_not_there_is_a_sentence(source: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        hub.model_folder(source)


_CACHED = """
import sys
from aiene.benchmark.comparators.hub import model_folder
from aiene.errors import ModelError
print(model_folder("someone/tiny-vit").joinpath("config.json").is_file())
try:
    model_folder("someone/not-there")
except ModelError as error:
    print(error)
"""


@pytest.mark.slow
def test_the_offline_cache_of_the_hub_is_used_and_nothing_is_fetched(models: Path, tmp_path: Path) -> None:
    import shutil

    snapshot = tmp_path / "hub" / "models--someone--tiny-vit" / "snapshots" / ("0" * 40)
    shutil.copytree(models / "vit", snapshot)
    refs = tmp_path / "hub" / "models--someone--tiny-vit" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    done = subprocess.run(
        [sys.executable, "-c", _CACHED],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "True"
    assert "HF_HUB_OFFLINE" in lines[1]


# --- pictures ---

AXES = st.permutations([(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)])
SIGNS = st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)


@given(axes=AXES, signs=SIGNS)
@settings(max_examples=48)
@pytest.mark.slow
def test_slices_are_axial_whatever_the_grid_and_come_back_voxel_by_voxel(axes: Any, signs: Any) -> None:
    direction = tuple(tuple(sign * v for v in axis) for axis, sign in zip(axes, signs, strict=True))
    grid = Grid((3, 4, 5), (3.0, 2.0, 1.0), (7.0, 8.0, 9.0), direction)  # type: ignore[arg-type]
    view = AxialView.of(grid)
    places = np.moveaxis(
        grid.points(np.moveaxis(np.indices(grid.size), 0, -1)), -1, 0
    )  # x, y, z of each voxel
    x, y, z = (view.turn(one) for one in places)
    assert (np.diff(z, axis=0) > 0).all()
    assert (np.diff(y, axis=1) > 0).all()
    assert (np.diff(x, axis=2) > 0).all()
    array = np.arange(60).reshape(3, 4, 5)
    np.testing.assert_array_equal(view.back(view.turn(array)), array)


def test_patches_show_the_three_planes_through_the_node_with_the_head_up() -> None:
    """HU that rise by 1 a mm along x, 1000 along y... are read off the patches in closed form."""
    grid = Grid((30, 40, 50), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    z, y, x = np.indices(grid.size)
    hu = (x * 1.0 + y * 100.0 + z * 2.0 * 10000.0).astype(np.float32)
    nodes = np.zeros(grid.size, np.uint16)
    nodes[14:17, 19:22, 24:27] = 1  # centre z 30 mm, y 20, x 25
    axial, coronal, sagittal = node_patches(Volume(hu, grid), Volume(nodes, grid), side_mm=8.0, pixels=8)[1]
    middle = 25 + 2000 + 300000
    steps = np.arange(8) - 3.5
    np.testing.assert_allclose(axial, middle + 100 * steps[:, None] + steps[None], atol=0.1)
    np.testing.assert_allclose(coronal, middle - 10000 * steps[:, None] + steps[None], atol=0.1)
    np.testing.assert_allclose(sagittal, middle - 10000 * steps[:, None] + 100 * steps[None], atol=0.1)


def test_beyond_the_ct_there_is_air() -> None:
    grid = Grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    nodes = np.zeros(grid.size, np.uint16)
    nodes[0, 0, 0] = 1
    patch = node_patches(
        Volume(np.zeros(grid.size, np.float32), grid), Volume(nodes, grid), side_mm=20, pixels=10
    )
    assert patch[1][0, 0, 0] == -1024


@pytest.mark.slow
def test_weights_that_are_no_numbers_are_told_once_and_not_case_by_case(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = build.tiny(tmp_path, "vit")
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    save_file({**weights, name: weights[name] * float("nan")}, file, metadata={"format": "pt"})
    request = Request("vit", "encoder", ModelEntry(source=str(folder)), "cpu")
    with pytest.raises(ModelError, match="not finite numbers"):
        hub.pretrained("AutoModel", request)
    save_file({key: one[..., :1].clone() for key, one in weights.items()}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"other shapes than its config\.json states|not in its files"):
        hub.pretrained("AutoModel", request)
