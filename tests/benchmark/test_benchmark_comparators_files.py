"""Adapters for folders of predictions, MONAI bundles, timm, and our own bundles."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from aiene.benchmark.comparators.bundle import truth_nodes
from aiene.benchmark.comparators.monai_bundle import from_monai, scaled, spaced, to_monai
from aiene.benchmark.comparators.protocol import CaseInput, Request, open_comparator
from aiene.benchmark.comparators.slice_segmenters import AxialView
from aiene.benchmark.config import LabelChoice, ModelEntry
from aiene.benchmark.run import bundle_kind, located
from aiene.errors import InputError, MissingExtraError, ModelError
from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.ingest.case import Case
from aiene.nodes.split import split_nodes
from aiene.preprocess.preprocess import Prepared
from aiene.results.nifti import write_nifti
from builders import benchmarks as build


@pytest.fixture
def case(tmp_path: Path) -> CaseInput:
    """One case with two nodes."""
    file = tmp_path / "images" / "a.nii.gz"
    file.parent.mkdir()
    write_nifti(build.ct(), file)
    truth = build.labels()
    nodes = np.zeros(build.SIZE, np.uint16)
    for number, block in build.BLOCKS.items():
        nodes[block] = number
    return CaseInput(Case("a", "nifti", (file,)), truth, Volume(nodes, truth.grid))


def _predictions(folder: Path, **entry: object) -> Any:
    said = ModelEntry(source=str(folder), kind="predictions", **entry)  # type: ignore[arg-type]
    resample = bool(said.labels and said.labels.ignore == (99,))
    return open_comparator(Request("own", "predictions", said, "cpu", resample=resample))


def _answer(model: Any, case: CaseInput) -> Any:
    return model.answer(model.infer(model.preprocess(model.load(case))))


def test_a_folder_of_predictions_needs_no_code(case: CaseInput, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    write_nifti(build.labels(nodes=(2,)), folder / "a.nii.gz")
    model = _predictions(folder)
    answer = _answer(model, case)
    np.testing.assert_array_equal(answer.labels.array, build.labels(nodes=(2,)).array)
    assert answer.nodes is None
    assert not model.facts.classifies


def test_predictions_of_other_label_values_are_said_in_the_configuration(
    case: CaseInput, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    other = build.labels()
    write_nifti(other.with_array(other.array * 3), folder / "a.nii.gz")
    with pytest.raises(InputError, match="label values 3, 6 unknown"):
        _answer(_predictions(folder), case)
    answer = _answer(_predictions(folder, labels=LabelChoice(GTVp=3, GTVn=6)), case)  # type: ignore[arg-type]
    np.testing.assert_array_equal(answer.labels.array, other.array)


def test_predictions_may_bring_nodes_and_ene(case: CaseInput, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    (folder / "nodes").mkdir(parents=True)
    write_nifti(build.labels(), folder / "a.nii.gz")
    nodes = np.zeros(build.SIZE, np.uint8)
    nodes[build.BLOCKS[1]], nodes[build.BLOCKS[2]] = 5, 9
    write_nifti(Volume(nodes, build.grid()), folder / "nodes" / "a.nii.gz")
    (folder / "ene.csv").write_text("case_id,node,ene,confidence\na,5,0.8,0.9\na,9,nan,0.4\na,1,0.1,0.1\n")
    model = _predictions(folder)
    answer = _answer(model, case)
    assert answer.ene == {5: 0.8}
    assert answer.confidence == {5: 0.9}
    assert len(answer.warnings) == 2
    assert model.facts.classifies


def test_nodes_count_only_within_the_folders_own_nodes_label_and_what_disagrees_is_told(
    case: CaseInput, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    (folder / "nodes").mkdir(parents=True)
    write_nifti(build.labels(), folder / "a.nii.gz")
    nodes = np.zeros(build.SIZE, np.uint8)
    nodes[build.BLOCKS[1]], nodes[build.PRIMARY] = 5, 6  # the other node is in no map, the tumour is none
    write_nifti(Volume(nodes, build.grid()), folder / "nodes" / "a.nii.gz")
    answer = _answer(_predictions(folder), case)
    assert np.unique(answer.nodes.array).tolist() == [0, 5]
    assert answer.warnings == (
        "100 of 244 voxels of GTVn are in no node of its node map",
        "48 voxels of its node map lie outside GTVn and do not count",
    )


def test_a_case_id_written_otherwise_in_ene_csv_is_told_from_both_sides(
    case: CaseInput, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    write_nifti(build.labels(), folder / "a.nii.gz")
    (folder / "ene.csv").write_text("case_id,node,ene\nA,1,0.8\nA,2,0.3\n")
    model = _predictions(folder)
    assert _answer(model, case).warnings == ("ene.csv has no row of this case",)
    assert "2 rows of ene.csv (the first in line 2) are of cases without a label map" in model.facts.said


def _swapped(folder: Path) -> Path:
    """Predictions in which the truth's second node is the larger one, with ENE by name."""
    folder.mkdir()
    array = build.labels().array.copy()
    array[15:18, 20:25, 24:34] = 2
    write_nifti(Volume(array, build.grid()), folder / "a.nii.gz")
    (folder / "ene.csv").write_text("case_id,node,ene\na,GTVn_01,0.9\na,GTVn_02,0.2\n")
    return folder


def test_a_node_of_a_folders_table_is_its_own_and_told_where_it_lies_on_another(
    case: CaseInput, tmp_path: Path
) -> None:
    answer = _answer(_predictions(_swapped(tmp_path / "own")), case)
    at = {value: int(case.truth_nodes.array[answer.nodes.array == value].max()) for value in (1, 2)}
    assert at == {1: 2, 2: 1}
    assert answer.ene == {1: 0.9, 2: 0.2}
    assert [said.split(";")[0] for said in answer.warnings] == [
        "ene.csv row 2: node 1 is this folder's own, which lies on the truth's node 2",
        "ene.csv row 3: node 2 is this folder's own, which lies on the truth's node 1",
    ]


def test_a_node_of_a_folders_table_may_be_the_truths(case: CaseInput, tmp_path: Path) -> None:
    answer = _answer(_predictions(_swapped(tmp_path / "own"), ene_nodes="truth"), case)
    assert answer.ene == {2: 0.9, 1: 0.2}
    assert answer.warnings == ()


def test_a_name_and_a_point_that_disagree_are_told(case: CaseInput, tmp_path: Path) -> None:
    folder = _swapped(tmp_path / "own")
    x, y, z = build.grid().points(np.array([5, 10, 10]))  # within node 1 of the truth, the folder's 2
    row = f"{x:.2f},{y:.2f},{z:.2f}"
    (folder / "ene.csv").write_text(f"case_id,node,x,y,z,ene\na,1,{row},0.9\na,2,{row},0.3\n")
    answer = _answer(_predictions(folder), case)
    assert answer.ene == {2: 0.3}
    assert answer.warnings[0] == "ene.csv row 2: its point does not lie in node 1"


def test_a_classifier_of_others_judges_the_truths_nodes_from_a_table_alone(
    case: CaseInput, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "ene_on_truth.csv").write_text("case_id,node,probability\na,GTVn_01,0.7\na,GTVn_09,0.1\n")
    model = _predictions(folder)
    answer = _answer(model, case)
    assert (model.facts.segments, model.facts.classifies, model.facts.judges_truth) == (False, True, True)
    assert answer.labels is None
    assert answer.ene_on_truth == {1: 0.7}
    assert answer.warnings == ("ene_on_truth.csv row 3: the case has no node 9",)


def test_a_case_without_a_prediction_is_a_sentence(case: CaseInput, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    write_nifti(build.labels(), folder / "b.nii.gz")
    with pytest.raises(InputError, match="no prediction for the case a"):
        _predictions(folder).load(case)


def test_a_case_with_two_predictions_is_refused(case: CaseInput, tmp_path: Path) -> None:
    for part in ("x", "y"):
        (tmp_path / "own" / part).mkdir(parents=True)
        write_nifti(build.labels(), tmp_path / "own" / part / "a.nii.gz")
    with pytest.raises(InputError, match="2 masks of this case"):
        _predictions(tmp_path / "own").load(case)


def test_a_folder_without_predictions_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        _predictions(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no label map"):
        _predictions(tmp_path / "empty")


# --- our bundles ---


def test_the_truths_nodes_reach_the_classifier_as_the_road_makes_them() -> None:
    """One node alone: the road's own split of the same mask gives the same node, layer and dilation."""
    grid = Grid((64, 160, 160), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    mask = np.zeros(grid.size, np.uint16)
    mask[20:26, 60:72, 50:61] = 1
    mask[22:24, 72:75, 52:58] = 1
    prepared = Prepared(Volume(mask.astype(np.float32), grid), grid, RigidTransform(), None)  # type: ignore[arg-type]
    (own,) = truth_nodes(Volume(mask, grid), prepared)
    (road,) = split_nodes(Volume(mask.astype(np.uint8), grid), fg_labels=(1,), axes=False)
    np.testing.assert_array_equal(own.mask, road.mask)
    np.testing.assert_array_equal(own.dilated, road.dilated)
    np.testing.assert_array_equal(own.contour, mask > 0)
    np.testing.assert_array_equal(own.contour, road.contour)
    assert own.number == 1


def test_neighbouring_truth_nodes_keep_out_of_each_other() -> None:
    grid = Grid((64, 160, 160), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    nodes = np.zeros(grid.size, np.uint16)
    nodes[20:26, 60:70, 50:60], nodes[20:26, 60:70, 60:66] = 1, 2
    prepared = Prepared(Volume(nodes.astype(np.float32), grid), grid, RigidTransform(), None)  # type: ignore[arg-type]
    first, second = truth_nodes(Volume(nodes, grid), prepared)
    assert not (first.mask & (nodes == 2)).any()
    assert not (second.mask & (nodes == 1)).any()


# --- MONAI bundles ---

NETWORK = {
    "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": "@classes",
    "channels": [4, 8], "strides": [2], "num_res_units": 0,
}  # fmt: skip
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "image", "pixdim": [2.5, 2.5, 5.0], "mode": "bilinear"},
    {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -175, "a_max": 275, "b_min": 0.0,
     "b_max": 1.0, "clip": True},
]  # fmt: skip


def _monai(folder: Path, *, weights: str = "safetensors", **changes: object) -> Path:
    from monai.networks.nets import UNet

    config: dict[str, object] = {
        "imports": ["$import glob"],
        "classes": 3,
        "network_def": NETWORK,
        "preprocessing": {"_target_": "Compose", "transforms": STEPS},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "overlap": 0.25},
        **changes,
    }
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    named = {
        "network_data_format": {
            "outputs": {"pred": {"channel_def": {"0": "background", "1": "GTVp", "2": "GTVn"}}}
        }
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(named))
    torch.manual_seed(0)
    state = UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=[4, 8], strides=[2]).state_dict()
    if weights == "safetensors":
        save_file(state, folder / "models" / "model.safetensors")
    elif weights == "pt":
        torch.save(state, folder / "models" / "model.pt")
    else:
        (folder / "models" / "model.ts").write_bytes(b"script")
    return folder


def _open_monai(folder: Path, **entry: object) -> Any:
    said = ModelEntry(source=str(folder), **entry)  # type: ignore[arg-type]
    assert bundle_kind(said) == "monai"
    assert located(said)[0] == "monai"
    return open_comparator(Request("monai", "monai", said, "cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["safetensors", "pt"])
def test_a_monai_bundle_runs_by_its_configuration(case: CaseInput, tmp_path: Path, weights: str) -> None:
    model = _open_monai(_monai(tmp_path / "bundle", weights=weights))
    answer = _answer(model, case)
    assert answer.labels.array.shape == build.SIZE
    assert answer.labels.grid == case.truth_labels.grid
    assert set(np.unique(answer.labels.array)) <= {0, 1, 2}
    assert model.facts.parameters
    assert all(0 <= one <= 1 for one in answer.confidence.values())


@pytest.mark.slow
def test_a_monai_bundles_input_is_what_monais_own_transforms_give(case: CaseInput, tmp_path: Path) -> None:
    import nibabel as nib
    from monai.data import MetaTensor
    from monai.transforms import Compose, Orientation, ScaleIntensityRange

    model = _open_monai(_monai(tmp_path / "bundle", preprocessing={"transforms": [STEPS[2], STEPS[4]]}))
    ours = model.preprocess(model.load(case)).tensor[0, 0].numpy()
    read = nib.load(case.case.files[0])
    image = MetaTensor(torch.from_numpy(read.get_fdata())[None], affine=torch.from_numpy(read.affine))
    chain = Compose(
        [
            Orientation(axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            ScaleIntensityRange(-175, 275, 0.0, 1.0, clip=True),
        ]
    )
    np.testing.assert_allclose(ours, np.asarray(chain(image))[0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network_def": {"_target_": "os.system", "command": "touch ran"}}, "not one of MONAI's own"),
        ({"network_def": {**NETWORK, "in_channels": "$__import__('os').getpid()"}}, "expression"),
        ({"network_def": {**NETWORK, "in_channels": {"_target_": "os.getpid"}}}, "code is not run"),
        ({"network_def": {**NETWORK, "out_channels": "@gone"}}, "leads nowhere"),
        ({"network_def": {**NETWORK, "out_channels": "@loop", }, "loop": "@loop"}, "leads nowhere"),
        ({"network_def": {**NETWORK, "out_channels": 4}}, "do not fit"),
        ({"network_def": {**NETWORK, "no_such": 4}}, "cannot build"),
        ({"network_def": None}, "no network_def"),
        ({"preprocessing": {"transforms": [{"_target_": "Lambdad", "func": "$print"}]}}, "the step Lambdad"),
        ({"preprocessing": {"transforms": [{"_target_": "Orientationd", "axcodes": "LPS"}]}}, "only RAS"),
        ({"preprocessing": {"transforms": [{"_target_": "Spacingd", "pixdim": [1, 0, 1]}]}}, "pixdim"),
    ],
)  # fmt: skip
def test_a_monai_bundle_that_wants_more_than_data_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        _open_monai(_monai(tmp_path / "bundle", **changes))


@pytest.mark.slow
def test_a_monai_bundles_weights_never_run_code(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="TorchScript"):
        _open_monai(_monai(tmp_path / "script", weights="ts"))
    folder = _monai(tmp_path / "pickle", weights="pt")
    marker = tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    torch.save({"x": Harmful()}, folder / "models" / "model.pt")
    with pytest.raises(ModelError, match="run code"):
        _open_monai(folder)
    assert not marker.exists()


@pytest.mark.slow
def test_a_monai_bundle_whose_classes_nobody_names_is_refused(tmp_path: Path) -> None:
    folder = _monai(tmp_path / "bundle")
    (folder / "configs" / "metadata.json").unlink()
    with pytest.raises(ModelError, match="label_map"):
        _open_monai(folder)
    assert _open_monai(folder, label_map={1: "GTVn"}).facts.segments


@pytest.mark.slow
@given(axes=st.permutations([(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)]),
       signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))  # fmt: skip
@settings(max_examples=30)
def test_monais_axes_rise_to_right_front_and_head_and_come_back(axes: Any, signs: Any) -> None:
    direction = tuple(tuple(sign * v for v in axis) for axis, sign in zip(axes, signs, strict=True))
    grid = Grid((3, 4, 5), (3.0, 2.0, 1.0), (7.0, 8.0, 9.0), direction)  # type: ignore[arg-type]
    view = AxialView.of(grid)
    places = np.moveaxis(grid.points(np.moveaxis(np.indices(grid.size), 0, -1)), -1, 0)  # LPS
    x, y, z = (to_monai(one, view) for one in places)
    assert (np.diff(x, axis=0) < 0).all()  # LPS x falls to the right
    assert (np.diff(y, axis=1) < 0).all()
    assert (np.diff(z, axis=2) > 0).all()
    array = np.arange(60).reshape(3, 4, 5)
    np.testing.assert_array_equal(from_monai(to_monai(array, view), view), array)
    wanted = spaced(grid, view, (1.5, 0.5, 2.0))
    assert np.isclose(wanted.spacing[view.order[0]], 2.0)
    assert np.isclose(wanted.spacing[view.order[2]], 1.5)
    assert wanted.origin == grid.origin


@pytest.mark.slow
def test_intensity_steps_are_monais() -> None:
    from monai.transforms import NormalizeIntensity, ScaleIntensityRange

    values = np.random.default_rng(0).normal(30, 200, (1, 5, 6, 7)).astype(np.float32)
    values[0, :2] = 0
    cases = [
        ({"a_min": -100, "a_max": 300, "b_min": -1.0, "b_max": 1.0, "clip": True}, "ScaleIntensityRanged"),
        ({"a_min": -100, "a_max": 300, "b_min": 0.0, "b_max": 1.0, "clip": False}, "ScaleIntensityRanged"),
        ({"nonzero": True}, "NormalizeIntensityd"),
        ({"nonzero": False}, "NormalizeIntensityd"),
        ({"subtrahend": 10.0, "divisor": 4.0}, "NormalizeIntensityd"),
    ]
    for said, name in cases:
        own = {"ScaleIntensityRanged": ScaleIntensityRange, "NormalizeIntensityd": NormalizeIntensity}[name]
        expected = np.asarray(own(**said)(values.copy()))  # type: ignore[arg-type]
        np.testing.assert_allclose(scaled(values, ((name, said),)), expected, atol=1e-4)  # type: ignore[arg-type]


# --- timm, by its documented interface alone ---


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 6, 4, 4)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.stem(pictures).mean(dim=(2, 3))


@pytest.fixture
def timm_folder(tmp_path: Path) -> Path:
    """A folder in timm's hub layout."""
    folder = tmp_path / "resnet-like"
    folder.mkdir()
    config = {"architecture": "tiny", "pretrained_cfg": {"input_size": [3, 16, 16], "mean": [0.5, 0.5, 0.5],
              "std": [0.5, 0.5, 0.5]}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file({**_Net().state_dict(), "fc.weight": torch.zeros(2, 6)}, folder / "model.safetensors")
    return folder


def _open_timm(folder: Path) -> Any:
    said = ModelEntry(source=str(folder))
    kind, where = located(said)
    assert kind == "timm"
    return open_comparator(Request("timm", "timm", said, "cpu", folder=where))


def test_timm_is_asked_by_its_documented_words(
    case: CaseInput, timm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = types.ModuleType("timm")
    asked: dict[Any, Any] = {}

    def create_model(name: str, *, pretrained: bool, num_classes: int) -> _Net:
        asked.update(name=name, pretrained=pretrained, num_classes=num_classes)
        return _Net()

    fake.create_model, fake.is_model = create_model, lambda name: name == "tiny"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", fake)
    features = _answer(_open_timm(timm_folder), case).features
    assert asked == {"name": "tiny", "pretrained": False, "num_classes": 0}
    assert features[1].shape == (18,)
    (timm_folder / "config.json").write_text('{"architecture": "unheard_of"}')
    with pytest.raises(ModelError, match="no architecture 'unheard_of'"):
        _open_timm(timm_folder)


def test_without_timm_its_models_are_a_sentence(timm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"A timm model needs timm; install aiene\[timm\]"):
        _open_timm(timm_folder)


def test_a_timm_that_does_not_go_with_this_torch_is_a_sentence_too(
    timm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "site"
    broken.mkdir()
    (broken / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(str(broken))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(MissingExtraError, match=r"cannot be loaded \(operator torchvision::nms"):
        _open_timm(timm_folder)
