"""NRRD: every space word lands on the same physical mark; what SimpleITK passes over is told."""

from __future__ import annotations

import gzip
from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from aiene.geometry.grid import volume_of
from builders.dicom_files import ct
from builders.dicom_stacks import mark_points, read, refusal
from builders.nrrd_reading_inputs import SIGNS, write


@pytest.mark.parametrize("space", SIGNS)
def test_every_space_word_lands_on_the_same_mark(tmp_path: Path, space: str) -> None:
    found = read(write(tmp_path / "one.nrrd", space=space))
    index = np.argwhere(ct() > 800)
    np.testing.assert_allclose(
        mark_points(found), index[:, ::-1] * [0.8, 0.9, 3] + [-20, -15, 100], atol=1e-9
    )
    np.testing.assert_array_equal(found.volume.array, ct())
    assert found.pixel_type == sitk.sitkInt16
    assert found.source["space"] == space


def test_without_a_space_the_sides_are_unknown(tmp_path: Path) -> None:
    found = read(write(tmp_path / "one.nrrd", space=None, lines="spacings: 0.8 0.9 3\n"))
    assert found.volume.grid.spacing == (3, 0.9, 0.8)
    assert any("the sides of the neck cannot be known" in warning for warning in found.warnings)
    assert found.source["orientation_known"] is False


def test_a_detached_header_is_the_case_and_its_data_file_is_not(tmp_path: Path) -> None:
    write(tmp_path / "one.nhdr", data="voxels.raw")
    np.testing.assert_array_equal(read(tmp_path).volume.array, ct())


def test_a_missing_data_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "one.nhdr", data="voxels.raw")
    (tmp_path / "voxels.raw").unlink()
    assert refusal(tmp_path) == "one.nhdr: its data file voxels.raw is missing; put it next to the header."


def test_a_list_of_data_files_is_read_and_each_is_asked_for(tmp_path: Path) -> None:
    header = write(tmp_path / "one.nhdr", data="voxels.raw").read_text()
    for k, plane in enumerate(ct()):
        (tmp_path / f"p{k}.raw").write_bytes(plane.tobytes())
    names = "".join(f"p{k}.raw\n" for k in range(8))
    (tmp_path / "one.nhdr").write_text(
        header.replace("data file: voxels.raw\n\n", f"data file: LIST 2\n{names}")
    )
    np.testing.assert_array_equal(read(tmp_path / "one.nhdr").volume.array, ct())
    (tmp_path / "p5.raw").unlink()
    assert "its data file p5.raw is missing" in refusal(tmp_path / "one.nhdr")


def test_a_pattern_of_data_files_is_read_and_each_is_asked_for(tmp_path: Path) -> None:
    header = write(tmp_path / "one.nhdr", data="voxels.raw").read_text()
    for k, plane in enumerate(ct()):
        (tmp_path / f"p{k:02d}.raw").write_bytes(plane.tobytes())
    (tmp_path / "one.nhdr").write_text(header.replace("voxels.raw", "p%02d.raw 0 7 1 2"))
    np.testing.assert_array_equal(read(tmp_path / "one.nhdr").volume.array, ct())
    (tmp_path / "p07.raw").unlink()
    assert "its data file p07.raw is missing" in refusal(tmp_path / "one.nhdr")


@pytest.mark.parametrize("encoding", ["gzip", "raw", "bzip2", "ascii"])
def test_what_pynrrd_writes_is_read(tmp_path: Path, encoding: str) -> None:
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([0.8, 0.9, 3.0]),
        "space origin": [1, 2, 3],
        "encoding": encoding,
    }
    nrrd.write(str(tmp_path / "one.nrrd"), ct().transpose(2, 1, 0), header)
    np.testing.assert_array_equal(read(tmp_path / "one.nrrd").volume.array, ct())


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "float64"])
def test_the_pixel_type_is_simpleitks(tmp_path: Path, dtype: str) -> None:
    from aiene.ingest.case import Case
    from aiene.ingest.readers.nrrd import read_nrrd

    image = sitk.GetImageFromArray((ct() + 1000).astype(dtype))
    sitk.WriteImage(image, str(tmp_path / "one.nrrd"))
    found = read_nrrd(Case("one", "nrrd", (tmp_path / "one.nrrd",)))
    assert found.pixel_type == image.GetPixelID()
    assert found.volume.array.dtype == np.int16


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ("3 40 32 8", "4 dimensions instead of 3"),
        ("40 32", "two-dimensional"),
        ("40 32 1", "two-dimensional"),
        ("40 32 0", "not those of a volume"),
        ("40 32 x", "not numbers"),
        ("4000 3200 800", "its header announces 19.07 GiB"),
    ],
)
def test_headers_that_describe_no_volume_are_refused(tmp_path: Path, sizes: str, words: str) -> None:
    assert words in refusal(write(tmp_path / "odd.nrrd", sizes=sizes))


def test_files_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.nrrd")
    path.write_bytes(path.read_bytes()[:-500])
    assert "its header announces" in refusal(path)


def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    head = write(tmp_path / "cut.nrrd").read_bytes().split(b"\n\n")[0].replace(b"raw", b"gzip")
    packed = gzip.compress((ct() + rng.integers(0, 99, ct().shape).astype(np.int16)).tobytes())
    (tmp_path / "cut.nrrd").write_bytes(head + b"\n\n" + packed[: len(packed) // 2])
    assert "it cannot be read as NRRD" in refusal(tmp_path / "cut.nrrd")


def test_sheared_directions_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "shear.nrrd")
    path.write_bytes(path.read_bytes().replace(b"(0,0,3)", b"(0.9,0,3)"))
    assert "space directions are sheared or flat" in refusal(path)


def test_a_block_of_memory_is_no_ct(tmp_path: Path) -> None:
    path = write(tmp_path / "block.nrrd")
    path.write_bytes(path.read_bytes().replace(b"type: short", b"type: block\nblock size: 2"))
    assert "of a type other than plain numbers" in refusal(path)


@pytest.mark.parametrize("seed", range(20))
def test_an_oblique_grid_is_simpleitks_to_the_last_bit(tmp_path: Path, seed: int) -> None:
    """The published registration repeats to the bit only on the same numbers."""
    rng = np.random.default_rng(seed)
    image = sitk.GetImageFromArray(ct())
    image.SetDirection(Rotation.from_euler("xyz", rng.normal(size=3)).as_matrix().ravel().tolist())
    image.SetSpacing(rng.uniform(0.5, 3, 3).tolist())
    image.SetOrigin(rng.normal(0, 200, 3).tolist())
    sitk.WriteImage(image, str(tmp_path / "one.nrrd"), bool(seed % 2))
    reference = volume_of(sitk.ReadImage(str(tmp_path / "one.nrrd")))
    found = read(tmp_path / "one.nrrd")
    assert found.volume.grid == reference.grid
    np.testing.assert_array_equal(found.volume.array, reference.array)
