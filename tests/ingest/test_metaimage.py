"""MetaImage: every way to state a place lands where SimpleITK puts it, and nothing strange is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from aiene.geometry.grid import volume_of
from aiene.ingest.case import NativeCt
from aiene.ingest.find import find_cases
from aiene.ingest.fingerprint import content_sha256, glance
from aiene.ingest.masks import read_mask
from builders.dicom_files import ct
from builders.dicom_stacks import mark_points, read, refusal

LINES = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "-20 -15 100",
    "AnatomicalOrientation": "RAI",
    "ElementSpacing": "0.8 0.9 3",
    "DimSize": "40 32 8",
    "ElementType": "MET_SHORT",
}


def write(path: Path, *, data: str = "LOCAL", voxels: bytes | None = None, **lines: str | None) -> Path:
    """A header made by hand; a field of None is left out."""
    fields = {name: value for name, value in {**LINES, **lines}.items() if value is not None}
    head = "".join(f"{name} = {value}\n" for name, value in fields.items()) + f"ElementDataFile = {data}\n"
    path.write_bytes(
        head.encode() + ((ct().tobytes() if voxels is None else voxels) if data == "LOCAL" else b"")
    )
    return path


def image(direction: np.ndarray | None = None) -> sitk.Image:
    """The asymmetric phantom of the readers' tests, on an oblique grid."""
    made = sitk.GetImageFromArray(ct())
    made.SetSpacing((0.8, 0.9, 3.0))
    made.SetOrigin((-20.5, -15.25, 100.125))
    if direction is not None:
        made.SetDirection(direction.ravel().tolist())
    return made


def _of_place(found: NativeCt) -> list[str]:
    """Warnings about how the patient lies; the phantom is short, which is told too."""
    return [warning for warning in found.warnings if "sides of the neck" in warning]


def test_the_mark_lies_where_the_header_says(tmp_path: Path) -> None:
    found = read(write(tmp_path / "one.mha"))
    index = np.argwhere(ct() > 800)
    expected = index[:, ::-1] * [0.8, 0.9, 3] + [-20, -15, 100]
    np.testing.assert_allclose(mark_points(found), expected, atol=1e-9)
    assert (_of_place(found), found.pixel_type, found.source["kind"]) == ([], sitk.sitkInt16, "metaimage")


@settings(max_examples=15, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-3, 3)] * 3),
    flip=st.booleans(),
    packed=st.booleans(),
    ending=st.sampled_from(["mha", "mhd"]),
)
def test_what_simpleitk_writes_is_read_as_simpleitk_reads_it(
    tmp_path_factory: pytest.TempPathFactory, turn: tuple[float, ...], flip: bool, packed: bool, ending: str
) -> None:
    direction = Rotation.from_rotvec(turn).as_matrix() @ np.diag([1, 1, -1 if flip else 1])
    file = tmp_path_factory.mktemp("mha") / f"one.{ending}"
    sitk.WriteImage(image(direction), str(file), packed)
    found, stock = read(file), volume_of(sitk.ReadImage(str(file)))
    assert found.volume.grid.differences(stock.grid)[0] < 1e-9
    np.testing.assert_array_equal(found.volume.array, ct())
    assert _of_place(found) == []  # ITK's own AnatomicalOrientation fits its matrix


@pytest.mark.parametrize(
    "lines",
    [
        {"ElementSpacing": None, "ElementSize": "0.8 0.9 3"},
        {"ElementSize": "5 5 5"},
        {"Offset": None, "Position": "1 2 3"},
        {"Offset": None, "Origin": "1 2 3"},
        {"TransformMatrix": None, "Rotation": "0 1 0 -1 0 0 0 0 1"},
        {"TransformMatrix": None, "Orientation": "0 1 0 -1 0 0 0 0 1"},
        {"TransformMatrix": "-1 0 0 0 -1 0 0 0 1", "AnatomicalOrientation": "LPI"},
        {"TransformMatrix": None, "AnatomicalOrientation": "LPS"},
    ],
)
def test_old_words_and_other_orientations_lie_where_simpleitk_puts_them(
    tmp_path: Path, lines: dict[str, Any]
) -> None:
    file = write(tmp_path / "one.mha", **lines)
    grid = volume_of(sitk.ReadImage(str(file))).grid
    assert max(read(file).volume.grid.differences(grid)) < 1e-9


def test_an_orientation_that_contradicts_the_axes_is_told(tmp_path: Path) -> None:
    loose = read(write(tmp_path / "a.mha", TransformMatrix=None, AnatomicalOrientation="LPS"))
    assert "AnatomicalOrientation LPS contradicts" in _of_place(loose)[0]
    assert loose.source["orientation_known"] is False
    against = read(write(tmp_path / "b.mha", AnatomicalOrientation="LPI"))
    assert "contradicts its TransformMatrix (RAI)" in _of_place(against)[0]
    silent = read(write(tmp_path / "c.mha", TransformMatrix=None, AnatomicalOrientation=None))
    assert "the sides of the neck cannot be known" in _of_place(silent)[0]


@pytest.mark.parametrize("skip", ["4", "-1"])
def test_bytes_before_the_voxels_and_the_other_byte_order(tmp_path: Path, skip: str) -> None:
    (tmp_path / "one.raw").write_bytes(b"abcd" + ct().astype(">i2").tobytes())
    file = write(tmp_path / "one.mhd", data="one.raw", HeaderSize=skip, BinaryDataByteOrderMSB="True")
    np.testing.assert_array_equal(read(file).volume.array, ct())


def test_a_detached_header_is_the_case_and_its_voxels_count_for_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "one.raw").write_bytes(ct().tobytes())
    file = write(tmp_path / "one.mhd", data="one.raw")
    cases, _ = find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["one"]
    before, seen = content_sha256([file]), glance([file])
    assert read(file).source["sha256"] == before
    (tmp_path / "one.raw").write_bytes(ct()[::-1].tobytes() + b"\0")
    assert content_sha256([file]) != before
    assert glance([file]) != seen


@pytest.mark.parametrize("named", ["../secret.raw", "/etc/hostname", "C:\\secret.raw", "in/../../secret.raw"])
def test_a_data_file_outside_the_folder_is_not_opened(tmp_path: Path, named: str) -> None:
    (tmp_path / "secret.raw").write_bytes(ct().tobytes())
    (tmp_path / "in").mkdir()
    assert "outside its own folder" in refusal(write(tmp_path / "in" / "one.mhd", data=named))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.raw").write_bytes(ct().tobytes())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.raw").symlink_to(tmp_path / "secret.raw")
    assert "outside its own folder" in refusal(write(tmp_path / "in" / "one.mhd", data="one.raw"))


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ({"ElementSpacing": None}, "how large its voxels are"),
        ({"ElementSpacing": "0 1 1"}, "is not that of a CT"),
        ({"ElementSpacing": "a b c"}, "ElementSpacing is not 3 numbers"),
        ({"TransformMatrix": "1 1 0 0 1 0 0 0 1"}, "sheared"),
        ({"TransformMatrix": "2 0 0 0 1 0 0 0 1"}, "sheared, flat or scaled"),
        ({"DistanceUnits": "cm"}, "not mm"),
        ({"DimSize": "40 32"}, "two-dimensional"),
        ({"DimSize": "40 32 80"}, "announces"),
        ({"ElementNumberOfChannels": "3"}, "several values"),
        ({"ElementType": "MET_LONG"}, "ElementType"),
        ({"BinaryData": "False"}, "in digits"),
        ({"ElementToIntensityFunctionSlope": "2"}, "scales its values"),
        ({"CompressedData": "True"}, "cannot be read as MetaImage"),
        ({"data": "missing.raw"}, "missing.raw is missing"),
        ({"data": "slice%03d.raw 1 8 1"}, "several files"),
    ],
)
def test_what_cannot_be_trusted_is_refused(tmp_path: Path, lines: dict[str, str], sentence: str) -> None:
    assert sentence in refusal(write(tmp_path / "one.mha", **lines))  # type: ignore[arg-type]


def test_a_file_that_is_one_by_name_only_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "one.mha").write_text("no image")
    cases, _ = find_cases(tmp_path)
    assert "it contains no image, although its name suggests one" in str(cases[0].reason)  # type: ignore[union-attr]


def test_a_mask_may_be_metaimage(tmp_path: Path) -> None:
    labels = (ct() > 800).astype(np.uint8)
    file = write(tmp_path / "one.mha", voxels=labels.tobytes(), ElementType="MET_UCHAR")
    like = read(write(tmp_path / "two.mha")).volume.grid
    np.testing.assert_array_equal(read_mask(file, like=like).array, labels)


def test_the_word_for_it_takes_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "one.mha")
    sitk.WriteImage(image(), str(tmp_path / "two.nii.gz"))
    cases, _ = find_cases(tmp_path, format="mha")
    assert [case.case_id for case in cases] == ["one"]
