"""Images and labels for a training: paired, checked, and every problem told at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiene.errors import InputError, TrainingDataError
from aiene.geometry.grid import Grid, Volume
from aiene.results.nifti import write_nifti
from aiene.training.dataset import check_folds, check_pairs, deal, find_pairs, fold_sizes
from aiene.training.patients import PatientTable, read_patients

GRID = Grid((12, 20, 24), (3.0, 2.0, 2.0), (-10.0, 5.0, 30.0))


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    """Six CTs, named as nnU-Net names them, with their labels."""
    images, labels = tmp_path / "ct", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for k in range(6):
        write_ct(images, f"p{k}_0000", brightness=k)
        write_labels(labels, f"p{k}", {2: (4, 5, 6)})
    return images, labels


def write_ct(folder: Path, name: str, brightness: int = 0) -> None:
    hu = np.full(GRID.size, -1000, np.int16)
    hu[2:, 4:16, 4:20] = 50 + brightness
    hu[4:8, 8:11, 8:12] = 400
    write_nifti(Volume(hu, GRID), folder / f"{name}.nii.gz")


def write_labels(folder: Path, name: str, voxels: dict[int, tuple[int, int, int]], grid: Grid = GRID) -> None:
    array = np.zeros(grid.size, np.uint8)
    for value, at in voxels.items():
        array[at] = value
    write_nifti(Volume(array, grid), folder / f"{name}.nii.gz")


def test_pairs_are_found_by_case_id_without_the_channel_ending(data: tuple[Path, Path]) -> None:
    pairs = find_pairs(*data)
    assert [p.case_id for p in pairs] == [f"p{k}" for k in range(6)]
    assert [p.label.name for p in pairs] == [f"p{k}.nii.gz" for k in range(6)]
    check_pairs(pairs)
    write_ct(data[0], "p3_0000", brightness=4)
    with pytest.raises(TrainingDataError, match="p3, p4: they show the same CT"):
        check_pairs(pairs)


def test_every_unpaired_file_is_told_at_once(data: tuple[Path, Path]) -> None:
    images, labels = data
    (labels / "p1.nii.gz").unlink()
    write_ct(images, "q1_0000")
    write_labels(labels, "q2", {2: (1, 1, 1)})
    with pytest.raises(TrainingDataError) as caught:
        find_pairs(images, labels)
    said = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "p1: has no label map" in said
    assert "q1: has no label map" in said
    assert "q2.nii.gz: no CT of this case id" in said


def test_two_label_maps_of_one_case_are_refused(data: tuple[Path, Path]) -> None:
    images, labels = data
    (labels / "p1.nii").write_bytes(b"")
    with pytest.raises(TrainingDataError, match="p1: has 2 label maps"):
        find_pairs(images, labels)


def test_every_faulty_label_map_is_told_at_once(data: tuple[Path, Path]) -> None:
    images, labels = data
    write_labels(labels, "p0", {})
    write_labels(labels, "p1", {2: (4, 5, 6), 3: (4, 5, 7)})
    write_labels(labels, "p2", {2: (4, 5, 6)}, Grid(GRID.size, GRID.spacing, (-10.0, 5.0, 33.0)))
    write_labels(labels, "p3", {2: (1, 1, 1)}, Grid((12, 20, 23), GRID.spacing, GRID.origin))
    (labels / "p4.nii.gz").write_bytes(b"not gzip")
    with pytest.raises(TrainingDataError) as caught:
        check_pairs(find_pairs(images, labels))
    problems = caught.value.problems
    assert len(problems) == 5
    assert "p0.nii.gz: the label map is empty" in problems[0]
    assert "p1.nii.gz: it holds the values 3" in problems[1]
    assert "is 3 mm away" in problems[2]
    assert "its size (12, 20, 23)" in problems[3]
    assert problems[4].startswith("p4.nii.gz")


def test_labels_without_any_node_teach_nothing(data: tuple[Path, Path]) -> None:
    for k in range(6):
        write_labels(data[1], f"p{k}", {1: (4, 5, 6)})
    with pytest.raises(TrainingDataError, match="No label map holds a node"):
        check_pairs(find_pairs(*data))
    with pytest.raises(TrainingDataError, match=r"p0.nii.gz: it holds no node"):
        check_pairs(find_pairs(*data), needs_nodes=True)


def test_fewer_than_five_patients_are_refused_also_where_they_have_many_cts(data: tuple[Path, Path]) -> None:
    with pytest.raises(TrainingDataError, match="There are 2 patients"):
        find_pairs(*data, PatientTable(patient_of={f"p{k}": "left" if k < 3 else "right" for k in range(6)}))


def test_a_folder_that_is_not_there_is_named(data: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="nowhere"):
        find_pairs(data[0], data[1] / "nowhere")
    with pytest.raises(InputError, match="nowhere"):
        find_pairs(data[0] / "nowhere", data[1])


@given(
    st.dictionaries(
        st.text("abc123", min_size=1, max_size=6), st.sampled_from(["ene", "none", "?"]), min_size=5
    ),
    st.integers(2, 5),
    st.integers(0, 9),
)
def test_every_stratum_is_spread_evenly_over_folds(strata: dict[str, str], folds: int, seed: int) -> None:
    dealt = deal(strata, folds, seed)
    assert dealt == deal(dict(reversed(strata.items())), folds, seed)
    assert dealt.keys() == strata.keys()
    sizes = fold_sizes(dealt)
    assert len(sizes) == folds
    assert max(sizes) - min(sizes) <= len(set(strata.values()))
    for stratum in set(strata.values()):
        of = [sum(dealt[p] == k for p in strata if strata[p] == stratum) for k in range(folds)]
        assert max(of) - min(of) <= 1


def test_a_patient_in_two_folds_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    file.write_text("case_id,patient_id,fold\na,one,0\nb,one,1\nc,two,1\n")
    with pytest.raises(TrainingDataError, match=r"one: in the folds 0, 1"):
        read_patients(file)


def test_the_users_own_folds_are_taken_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    file.write_text("case_id,patient_id,fold\na,one,0\nb,one,0\nc,two,1\n")
    table = read_patients(file)
    assert table.patient_of == {"a": "one", "b": "one", "c": "two"}
    assert table.fold_of == {"one": 0, "two": 1}
    folds = table.fold_of
    check_folds(["one", "two"], folds, file)
    with pytest.raises(InputError, match="1 patients have no fold, three first"):
        check_folds(["one", "three", "two"], folds, file)
    with pytest.raises(InputError, match="folds are not 0, 1"):
        check_folds(["one", "two"], {"one": 0, "two": 2}, file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("case_id,fold\na,0\n", "the column patient_id is missing"),
        ("case_id,patient_id\na,\n", "a case_id or patient_id is empty"),
        ("case_id,patient_id,fold\na,b,first\n", "a fold is not a whole number"),
    ],
)
def test_a_faulty_table_of_patients_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "patients.csv").write_text(content)
    with pytest.raises(InputError, match=said):
        read_patients(tmp_path / "patients.csv")
