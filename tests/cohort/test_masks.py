"""A user's own masks lie on the CT's lattice, or are refused with the difference."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiene.cohort import Selection, run_cohort
from aiene.errors import InputError
from aiene.geometry.grid import AXIAL, Grid, Volume
from aiene.ingest.masks import find_mask, node_labels, read_mask
from aiene.results.nifti import write_nifti

FOOT = np.zeros((9, 11, 13), np.uint8)
FOOT[2:7, 3, 4] = 1
FOOT[2, 3:6, 4] = 2
FOOT[2, 3, 4:6] = 2
GRID = Grid(FOOT.shape, (3.0, 1.0, 2.0), (-30.0, 12.0, 700.0), AXIAL)


def written(folder: Path, grid: Grid = GRID, array: np.ndarray = FOOT) -> Path:
    write_nifti(Volume(array, grid), folder / "a.nii.gz")
    return folder / "a.nii.gz"


@pytest.mark.slow
@given(order=st.permutations([0, 1, 2]), flips=st.tuples(*[st.booleans()] * 3))
def test_the_same_voxels_in_another_order_of_axes_are_taken(
    tmp_path_factory: pytest.TempPathFactory, order: Any, flips: Any
) -> None:
    folder = tmp_path_factory.mktemp("masks")
    axes = [a for a in range(3) if flips[a]]
    array = np.flip(FOOT, axes).transpose(order)  # type: ignore[call-overload]
    start = [FOOT.shape[a] - 1 if flips[a] else 0 for a in range(3)]
    signs = [-1 if flips[a] else 1 for a in range(3)]
    vectors = [tuple(signs[a] * v for v in GRID.direction[a]) for a in order]
    x, y, z = GRID.points(np.array(start)).tolist()
    spacing = tuple(GRID.spacing[a] for a in order)
    grid = Grid(array.shape, spacing, (x, y, z), tuple(vectors))  # type: ignore[arg-type]
    taken = read_mask(written(folder, grid, np.ascontiguousarray(array)), like=GRID)
    np.testing.assert_array_equal(taken.array, FOOT)


def test_an_origin_off_by_a_rounding_is_taken_and_by_half_a_voxel_refused(tmp_path: Path) -> None:
    near = replace(GRID, origin=(-30.0 + 1e-6, 12.0, 700.0))
    np.testing.assert_array_equal(read_mask(written(tmp_path, near), like=GRID).array, FOOT)
    far = replace(GRID, origin=(-30.6, 12.0, 700.0))
    with pytest.raises(InputError, match=r"a\.nii\.gz: it is 0\.6 mm away from the CT's grid"):
        read_mask(written(tmp_path, far), like=GRID)


@pytest.mark.parametrize(
    "grid",
    [
        replace(GRID, spacing=(6.0, 2.0, 4.0)),
        replace(GRID, direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))),
    ],
)
def test_another_spacing_or_a_flip_without_its_origin_is_refused(tmp_path: Path, grid: Grid) -> None:
    with pytest.raises(InputError, match="mm away from the CT's grid"):
        read_mask(written(tmp_path, grid), like=GRID)


def test_another_size_is_refused_with_both(tmp_path: Path) -> None:
    small = Grid((9, 11, 12), GRID.spacing, GRID.origin)
    with pytest.raises(InputError, match=r"size \(9, 11, 12\) \(z, y, x\) is not the CT's, \(9, 11, 13\)"):
        read_mask(written(tmp_path, small, FOOT[:, :, :12].copy()), like=GRID)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.5, r"it holds 0\.5: .* apply a threshold to the probabilities"),
        (-1.0, "it holds -1: .* give a label map"),
        (300.0, "it holds 300: .* give a label map"),
        (np.nan, "it holds nan: .* give a label map"),
        (np.inf, "it holds inf: .* give a label map"),
    ],
)
def test_values_that_are_no_labels_are_refused(tmp_path: Path, value: float, said: str) -> None:
    array = FOOT.astype(np.float32)
    array[0, 0, 0] = value
    with pytest.raises(InputError, match=said) as refused:
        read_mask(written(tmp_path, GRID, array), like=GRID)
    assert "not labels from 0 to 255" in str(refused.value)


def test_labels_that_are_stored_as_floats_are_labels(tmp_path: Path) -> None:
    taken = read_mask(written(tmp_path, GRID, FOOT.astype(np.float64)), like=GRID)
    np.testing.assert_array_equal(taken.array, FOOT)
    assert taken.array.dtype == np.uint8


# --- which labels are nodes ---


def holding(*values: int) -> np.ndarray:
    """A mask with one part of each value."""
    array = np.zeros((3, 5, 3 * len(values) + 1), np.uint8)
    for place, value in enumerate(values):
        array[1, 2, 3 * place] = value
    return array


MASK = Path("pat.nii.gz")


@pytest.mark.parametrize(
    ("values", "told", "nodes", "warned"),
    [
        ((2,), None, (2,), ""),
        ((1, 2), None, (2,), ""),
        ((1, 2, 9), None, (2,), ""),
        ((255,), None, (255,), "of the mask, 255, is taken as nodes"),
        ((3,), None, (3,), "of the mask, 3, is taken as nodes"),
        ((), None, (2,), "empty: no nodes"),
        ((), (7,), (7,), "empty: no nodes"),
        ((1,), (1,), (1,), ""),
        ((1,), (2,), (2,), "holds only 1, and 2 are nodes: no nodes"),
        ((1, 3), (3,), (3,), ""),
        ((1, 3, 4), (3, 4), (3, 4), ""),
        ((1, 255), "any", "any", ""),
    ],
)
def test_what_is_taken_as_nodes_and_what_is_said_of_it(
    values: Any, told: Any, nodes: Any, warned: str
) -> None:
    found = node_labels(MASK, holding(*values), told)
    assert found.nodes == nodes
    assert warned in " ".join(found.warnings)
    assert bool(warned) is bool(found.warnings)


@pytest.mark.parametrize(
    ("values", "told", "said"),
    [
        ((1,), None, "its only value is 1, .* primary tumour .* --fg-labels 1 or --fg-labels 2"),
        ((1, 3), None, "it holds 1 and 3 and no 2, .* --fg-labels 3"),
        ((3, 4), None, "it holds 3 and 4 and no 2"),
        ((255,), (2,), "it holds 255 and no 2, .* --fg-labels 255"),
        ((1, 2), (5, 6), "it holds 1 and 2 and no 5 or 6"),
        (tuple(range(3, 20)), None, "it holds 3, 4, 5, 6, 7, 8, 9, 10 and 9 more"),
    ],
)
def test_nodes_that_cannot_be_told_are_refused_with_the_values_and_the_flag(
    values: Any, told: Any, said: str
) -> None:
    with pytest.raises(InputError, match=f"pat.nii.gz: {said}"):
        node_labels(MASK, holding(*values), told)


def test_a_mask_whose_labels_look_swapped_is_warned_of() -> None:
    array = holding(1, 1, 1, 2)
    (warning,) = node_labels(MASK, array, None).warnings
    assert "--fg-labels 1" in warning
    assert not node_labels(MASK, array, (2,)).warnings
    assert not node_labels(MASK, holding(1, 1, 2, 2), None).warnings


def test_a_note_says_which_labels_were_taken() -> None:
    (note,) = node_labels(MASK, holding(1, 2, 9), None).notes
    assert note == "own mask: 2 of 1, 2 and 9 taken as nodes (1 as the primary tumour)"


@pytest.fixture(scope="module")
def other_labels(cts: Path, masks: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One patient's CT under six ids, with own masks in other values."""
    source, own = tmp_path_factory.mktemp("same"), tmp_path_factory.mktemp("own")
    image = nib.load(masks / "one.nii.gz")
    labels = np.asarray(image.dataobj).copy()
    here = tuple(slice(n // 2, n // 2 + 5) for n in labels.shape)
    labels[here] = np.where(labels[here] == 0, 1, labels[here])  # a primary tumour
    made = {
        "hecktor": labels,
        "wide": np.where(labels == 2, 255, 0),
        "binary": np.where(labels == 2, 1, 0),
        "primary": np.where(labels == 1, 1, 0),
        "empty": np.zeros_like(labels),
        "three": np.where(labels == 2, 3, labels),
    }
    for name, array in made.items():
        shutil.copy(cts / "one.nii.gz", source / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(array.astype(np.uint8), image.affine), own / f"{name}.nii.gz")
    return source, own


def patients_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "patients.csv").set_index("case_id")


@pytest.mark.slow
def test_a_run_never_says_no_nodes_of_a_mask_whose_labels_it_does_not_know(
    other_labels: tuple[Path, Path], tmp_path: Path
) -> None:
    source, own = other_labels
    run_cohort(source, tmp_path / "out", device="cpu", masks=own, jobs=1)
    patients, cases = patients_of(tmp_path / "out"), pd.read_csv(tmp_path / "out/cases.csv")
    cases = cases.set_index("case_id").fillna("")
    assert cases.status.to_dict() == {
        "hecktor": "ok",
        "wide": "ok",
        "binary": "failed",
        "primary": "failed",
        "empty": "no_nodes",
        "three": "failed",
    }
    for name in ("binary", "primary", "three"):
        assert f"{name}.nii.gz" in cases.reason[name]
        assert "--fg-labels" in cases.reason[name]
    assert "255, is taken as nodes" in cases.warnings["wide"]
    assert "empty: no nodes" in cases.warnings["empty"]
    assert patients.n_ai_nodes["wide"] == patients.n_ai_nodes["hecktor"] > 0
    assert patients.n_ai_nodes.isna().sum() == 3
    assert not patients.primary_found["wide"]
    # own contours come back voxel by voxel, in the values of labels.nii.gz
    given = np.asarray(nib.load(own / "hecktor.nii.gz").dataobj)
    voxel = abs(np.linalg.det(nib.load(own / "hecktor.nii.gz").affine))
    for name in ("hecktor", "wide"):
        labels, nodes = (
            np.asarray(nib.load(tmp_path / "out/cases" / name / f"{what}.nii.gz").dataobj)
            for what in ("labels", "nodes")
        )
        np.testing.assert_array_equal(labels == 2, given == 2)
        np.testing.assert_array_equal(nodes > 0, given == 2)
        assert patients.total_node_mm3[name] == pytest.approx(
            (given == 2).sum() * voxel, abs=0.5
        )  # whole mm3


@pytest.mark.slow
def test_with_the_flag_every_such_mask_is_taken(other_labels: tuple[Path, Path], tmp_path: Path) -> None:
    source, own = other_labels
    first = Selection(limit=1)  # binary
    run_cohort(source, tmp_path / "one", device="cpu", masks=own, jobs=1, fg_labels="1,3", selection=first)
    one = patients_of(tmp_path / "one")
    run_cohort(source, tmp_path / "two", device="cpu", masks=own, jobs=1, fg_labels="2")
    two = patients_of(tmp_path / "two")
    assert one.n_ai_nodes["binary"] == two.n_ai_nodes["hecktor"] > 0
    assert not one.primary_found["binary"]  # what was chosen as a node is no primary tumour
    labels = np.asarray(nib.load(tmp_path / "one/cases/binary/labels.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, 2}
    assert two.status["primary"] == "no_nodes"
    assert (two.n_ai_ene["primary"], bool(two.primary_found["primary"])) == (0, True)
    assert two.status[["wide", "three"]].tolist() == ["failed", "failed"]


def test_a_mask_that_is_missing_or_there_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no mask for the case a"):
        find_mask(tmp_path, "a")
    for ending in (".nii", ".nrrd"):
        (tmp_path / f"a{ending}").touch()
    with pytest.raises(InputError, match=r"a\.nii: a\.nrrd exists too"):
        find_mask(tmp_path, "a")
