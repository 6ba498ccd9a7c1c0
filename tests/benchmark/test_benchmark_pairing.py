"""Which files belong together, and what the configuration and the ENE table mean."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aiene.benchmark.config import BenchmarkConfig, LabelChoice, read_config
from aiene.benchmark.dataset import by_volume, find_pairs, in_our_values, list_files, named, read_labels
from aiene.benchmark.ene_labels import match_rows, read_ene_table
from aiene.errors import InputError
from aiene.geometry.grid import Grid, Volume
from aiene.phantom.phantom import write_dicom_series
from aiene.results.nifti import write_nifti
from builders import benchmarks as build

ROOT = Path("/folder")
IDS = st.from_regex(r"[A-Za-z0-9]{1,6}([-_][A-Za-z]*[0-9]{1,3})?", fullmatch=True)


@pytest.mark.parametrize(
    "name",
    [
        "p1.nii.gz", "p1_0000.nii.gz", "p1.nrrd", "p1__CT.nii.gz", "p1_ct_0000.nii", "p1_seg.nii.gz",
        "p1.seg.nrrd", "p1-label.nii", "p1_ct_seg.nii.gz", "p1/ct.nii.gz", "p1/mask.nii.gz",
        "deep/p1/seg.nrrd", "elsewhere/p1_0000.nii.gz",
    ],
)  # fmt: skip
def test_the_case_id_is_what_names_have_in_common(name: str) -> None:
    assert named(ROOT / name, ROOT).case_id == "p1"


@given(case_id=IDS, image=st.sampled_from(["", "_0000", "_CT", "__CT", "_image"]),
       mask=st.sampled_from(["", "_seg", ".seg", "-mask", "_labels", "_gt"]),
       ending=st.sampled_from([".nii", ".nii.gz", ".nrrd"]))  # fmt: skip
def test_image_and_mask_of_any_id_meet(case_id: str, image: str, mask: str, ending: str) -> None:
    first = named(ROOT / f"{case_id}{image}.nii.gz", ROOT).case_id
    assert first == named(ROOT / f"{case_id}{mask}{ending}", ROOT).case_id


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_a_name_that_is_no_text_is_refused_with_a_sentence(tmp_path: Path) -> None:
    odd = os.fsdecode(b"m\xfcller.nii.gz")
    images, masks = _touch(tmp_path / "i", "a.nii.gz", odd), _touch(tmp_path / "m", "a.nii.gz", odd)
    pairing = find_pairs(images, masks)
    assert [pair.case_id for pair in pairing.pairs] == ["a"]
    assert [(one.case_id, one.reason) for one in pairing.refused] == [
        ("m\\xfcller", "its name or a folder's is not UTF-8; rename it.")
    ]
    assert not pairing.masks_without_image
    _touch(masks / os.fsdecode(b"\xff"), "b.nii.gz")
    assert "rename it" in find_pairs(images, masks).refused[0].reason


def test_unpaired_cases_are_listed_on_both_sides(tmp_path: Path) -> None:
    images = _touch(tmp_path / "i", "a_0000.nii.gz", "b_0000.nii.gz", "c.nrrd")
    masks = _touch(tmp_path / "m", "b.nii.gz", "c.seg.nrrd", "d.nii.gz")
    pairing = find_pairs(images, masks)
    assert [pair.case_id for pair in pairing.pairs] == ["b", "c"]
    assert pairing.images_without_mask == ("a",)
    assert pairing.masks_without_image == ("d",)


def test_a_case_in_two_folders_is_refused_with_both_places(tmp_path: Path) -> None:
    images = _touch(tmp_path / "i", "x/a_0000.nii.gz", "y/a_0000.nii.gz", "b.nii.gz")
    masks = _touch(tmp_path / "m", "a.nii.gz", "b.nii.gz")
    pairing = find_pairs(images, masks)
    assert [pair.case_id for pair in pairing.pairs] == ["b"]
    assert pairing.refused[0].case_id == "a"
    assert "x/a_0000.nii.gz and y/a_0000.nii.gz" in pairing.refused[0].reason
    assert "a" not in pairing.masks_without_image


def test_a_mask_in_two_formats_is_refused(tmp_path: Path) -> None:
    images = _touch(tmp_path / "i", "a.nii.gz")
    masks = _touch(tmp_path / "m", "a.nii.gz", "a.nrrd")
    assert "keep one" in find_pairs(images, masks).refused[0].reason


def test_one_folder_for_both_gives_each_role_its_own(tmp_path: Path) -> None:
    both = _touch(tmp_path, "p1/ct.nii.gz", "p1/seg.nii.gz", "p2/ct.nii.gz", "p3/seg.nii.gz")
    pairing = find_pairs(both, both)
    assert [(p.case_id, p.image.files[0].name, p.mask.name) for p in pairing.pairs] == [
        ("p1", "ct.nii.gz", "seg.nii.gz")
    ]
    assert pairing.images_without_mask == ("p2",)
    assert pairing.masks_without_image == ("p3",)


def test_further_channels_are_passed_over_and_said(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz")
    listing = list_files(folder, "image")
    assert listing.files["a"].name == "a_0000.nii.gz"
    assert "a_0001.nii.gz" in listing.notes[0]


@pytest.mark.parametrize("name", ["a.mgz", "a.npz", "a.NII.GZ"])
def test_a_file_that_is_not_read_is_a_refusal_and_not_silence(tmp_path: Path, name: str) -> None:
    images = _touch(tmp_path / "i", "a.nii.gz")
    masks = _touch(tmp_path / "m", name)
    assert name in find_pairs(images, masks).refused[0].reason


def test_results_of_an_earlier_run_are_masks_by_their_folder(tmp_path: Path) -> None:
    folder = _touch(tmp_path / "cases", "p1/labels.nii.gz", "p1/nodes.nii.gz", "p1/prepared.nii.gz")
    assert list_files(folder, "mask").files == {"p1": folder / "p1" / "labels.nii.gz"}


def test_dicom_lies_beside_other_images(tmp_path: Path) -> None:
    """As the demo's own folder has it."""
    write_dicom_series(build.ct(), tmp_path / "i" / "p1", name="p1")
    write_nifti(build.ct(1), tmp_path / "i" / "p2.nii.gz")
    (tmp_path / "m").mkdir()
    for name in ("p1", "p2"):
        write_nifti(build.labels(), tmp_path / "m" / f"{name}.nii.gz")
    pairing = find_pairs(tmp_path / "i", tmp_path / "m")
    assert [(pair.case_id, pair.image.kind) for pair in pairing.pairs] == [("p1", "dicom"), ("p2", "nifti")]
    assert pairing.masks_without_image == pairing.refused == ()
    write_nifti(build.ct(), tmp_path / "i" / "p1.nii.gz")
    twice = find_pairs(tmp_path / "i", tmp_path / "m")
    assert [pair.case_id for pair in twice.pairs] == ["p2"]
    assert "2 images of this case" in twice.refused[0].reason


def test_the_example_of_a_configuration_is_every_key_at_its_default(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "benchmark_config.yaml"
    assert read_config(example) == BenchmarkConfig()
    assert set(BenchmarkConfig.model_fields) == set(yaml.safe_load(example.read_text(encoding="utf-8")))
    other = tmp_path / "c.yaml"
    for key, value, said in (
        ("primary", "dice_GTVx", "did you mean dice_GTV"),
        ("metrics", "[dise]", "dise is not known; did you mean dice"),
        ("output_formats", "[pdf]", "known are csv, json, html"),
        ("equivalence_margin", "0", "greater than 0"),
    ):
        other.write_text(f"{key}: {value}\n", encoding="utf-8")
        with pytest.raises(InputError, match=said):
            read_config(other)


def test_values_of_nodes_of_one_size_are_ordered_by_place_whatever_they_were() -> None:
    nodes = np.zeros((2, 6, 6), np.uint8)
    nodes[0, 0:2, 0:2], nodes[0, 3:5, 0:2], nodes[1, 0:3, 3:5] = 7, 3, 5
    first, _ = by_volume(nodes)
    swapped = np.where(nodes == 7, 3, np.where(nodes == 3, 7, nodes))
    np.testing.assert_array_equal(first, by_volume(swapped)[0])
    assert first[0, 0, 0] == 2


def test_dicom_folders_are_images_too(tmp_path: Path) -> None:
    write_dicom_series(build.ct(), tmp_path / "i" / "p1", name="TEST^ONE")
    masks = _touch(tmp_path / "m", "p1.nii.gz")
    pairing = find_pairs(tmp_path / "i", masks)
    assert pairing.pairs[0].image.kind == "dicom"


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone: no such folder"):
        find_pairs(tmp_path / "gone", tmp_path)


# --- label maps ---


def test_a_mask_elsewhere_is_refused_and_taken_only_if_asked(tmp_path: Path) -> None:
    moved = build.grid(origin=(-39.0, -31.0, 705.0))  # one slice higher
    write_nifti(build.labels(at=moved), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="--resample"):
        read_labels(tmp_path / "a.nii.gz", build.grid(), resample=False)
    taken = read_labels(tmp_path / "a.nii.gz", build.grid(), resample=True)
    np.testing.assert_array_equal(taken.array[1:], build.labels().array[:-1])
    assert not taken.array[0].any()


def test_a_mask_of_another_patient_is_refused_even_if_resampled(tmp_path: Path) -> None:
    far = build.grid(origin=(1000.0, 0.0, 0.0))
    write_nifti(build.labels(at=far), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="is in the CT"):
        read_labels(tmp_path / "a.nii.gz", build.grid(), resample=True)


def test_a_truncated_mask_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "a.nii.gz"
    write_nifti(build.labels(), file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"a\.nii\.gz"):
        read_labels(file, build.grid(), resample=True)


def test_unknown_label_values_are_named_and_can_be_said() -> None:
    volume = Volume(np.array([[[0, 1, 2, 3, 7]]], np.uint8), Grid((1, 1, 5), (1, 1, 1), (0, 0, 0)))
    with pytest.raises(InputError, match="label values 3, 7 unknown"):
        in_our_values(Path("m.nii"), volume, LabelChoice())
    said = in_our_values(Path("m.nii"), volume, LabelChoice(GTVn=(2, 3), ignore=(7,)))
    assert said.array.tolist() == [[[0, 1, 2, 2, 0]]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_node_maps_are_numbered_by_falling_volume(values: list[int]) -> None:
    array = np.array(values, np.int64)
    numbered, old = by_volume(array)
    counts = np.bincount(numbered)[1:].tolist()
    assert counts == sorted(counts, reverse=True)
    for new, before in old.items():
        np.testing.assert_array_equal(numbered == new, array == before)


# --- configuration ---


def _config(tmp_path: Path, text: str) -> BenchmarkConfig:
    file = tmp_path / "benchmark_config.yaml"
    file.write_text(text, encoding="utf-8")
    return read_config(file)


def test_an_empty_configuration_is_the_defaults(tmp_path: Path) -> None:
    assert _config(tmp_path, "") == BenchmarkConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("iou_treshold: 0.5", "unknown key iou_treshold; did you mean iou_threshold?"),
        ("models: [{source: a, promts: road}]", r"unknown key models.0.promts; did you mean prompts?"),
        ("labels: {GTVN: 2}", r"unknown key labels.GTVN; did you mean GTVn?"),
        ("iou_threshold: 2", "iou_threshold: input should be less than or equal to 1"),
        ("models: [{source: a, window_hu: [100, 0]}]", "lower end must be under"),
        ("models: [{source: a, kind: sam}]", "kind: input should be"),
        ("- a list", "not a YAML mapping"),
        ("a: [", "not readable as YAML"),
    ],
)
def test_a_wrong_configuration_is_named_with_what_was_meant(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        _config(tmp_path, text)
    assert said in str(caught.value)
    assert "benchmark_config.yaml" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_configuration_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "gone.yaml")


# --- ENE of nodes ---


def _node_map() -> Volume:
    array = np.zeros(build.SIZE, np.uint16)
    for number, block in build.BLOCKS.items():
        array[block] = number
    return Volume(array, build.grid())


def _matched(tmp_path: Path, text: str, *, probabilities: bool = False) -> Any:
    file = tmp_path / "ene.csv"
    file.write_text(text, encoding="utf-8")
    table = read_ene_table(file, probabilities=probabilities)
    return match_rows(table.of("a"), _node_map(), {1: 1, 2: 2})


@pytest.mark.parametrize(
    "text",
    [
        "case_id,node,ene\na,GTVn_01,1\na,GTVn_02,0\n",
        "case_id,label,ene\na,1,1\na,2,0\n",
        "case;value;ENE\na;1.0;yes\na;2;no\n",
        "\ufeffcase_id\tnode\tene\na\tnode 1\tTRUE\na\tgtvn_2\tfalse\n",
    ],
)
def test_nodes_are_named_by_name_number_or_value(tmp_path: Path, text: str) -> None:
    found = _matched(tmp_path, text)
    assert found.values == {1: 1.0, 2: 0.0}
    assert found.unmatched == ()


def test_nodes_are_named_by_a_point_in_or_near_them(tmp_path: Path) -> None:
    inside = build.grid().points([5, 9, 9])
    near = build.grid().points([15, 18, 26])  # two voxels, 4 mm, outside the second
    rows = [f"a,{x},{y},{z},{ene}" for (x, y, z), ene in ((inside, 1), (near, 0))]
    found = _matched(tmp_path, "\n".join(["case_id,x_mm,y_mm,z_mm,ene", *rows, "a,500,0,0,1"]))
    assert found.values == {1: 1.0, 2: 0.0}
    assert "no node within 5 mm" in found.unmatched[0].reason


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,GTVn_03,1", "no node 3"),
        ("a,left,1", "is not the name or number"),
        ("a,1,nan", "not a number"),
        ("a,1,0.5", "not 0 or 1"),
        ("a,1,", "empty"),
        ("a,,1", "names no node, and the case has 2"),
    ],
)
def test_a_row_that_belongs_nowhere_is_listed_with_its_reason(tmp_path: Path, row: str, said: str) -> None:
    found = _matched(tmp_path, f"case_id,node,ene\n{row}\n")
    assert found.values == {}
    assert found.unmatched[0].row == 2
    assert said in found.unmatched[0].reason


def test_rows_that_contradict_each_other_are_both_left_out(tmp_path: Path) -> None:
    found = _matched(tmp_path, "case_id,node,ene\na,1,1\na,2,1\na,GTVn_01,0\n")
    assert found.values == {2: 1.0}
    assert [row.row for row in found.unmatched] == [2, 4]
    assert "rows 2, 4 contradict" in found.unmatched[0].reason


def test_probabilities_may_be_anything_from_0_to_1_but_not_nan(tmp_path: Path) -> None:
    text = "case_id,node,ene,confidence\na,1,0.37,0.9\na,2,NaN,0.8\n"
    found = _matched(tmp_path, text, probabilities=True)
    assert found.values == {1: 0.37}
    assert found.confidences == {1: 0.9}
    assert "not a number" in found.unmatched[0].reason


def test_a_table_without_its_columns_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "ene.csv"
    file.write_text("case_id,node\na,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="no column ene"):
        read_ene_table(file)
    file.write_bytes(b"\xff\xfe\x00case")
    with pytest.raises(InputError, match="UTF-8"):
        read_ene_table(file)
    shutil.rmtree(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_ene_table(file)
