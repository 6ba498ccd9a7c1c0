"""Stacking DICOM slices: where they lie by their own positions, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from aiene.errors import Said
from aiene.geometry.grid import volume_of
from aiene.ingest.case import Refusal
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from builders.dicom_files import AIR, AXIAL, MARK, ct, save, slice_dataset, write_series
from builders.dicom_stacks import mark_points, only, read, refusal, tilted


def test_a_plain_series_comes_in_as_it_was_written(tmp_path: Path) -> None:
    write_series(tmp_path / "one")
    found = read(tmp_path)
    grid = found.volume.grid
    np.testing.assert_array_equal(found.volume.array, ct())
    assert found.volume.array.dtype == np.int16
    assert found.pixel_type == 2
    assert grid.spacing == (3.0, 0.9, 0.8)
    assert grid.origin == (-20.0, -15.0, 100.0)
    assert grid.direction == ((0, 0, 1), (0, 1, 0), (1, 0, 0))
    assert found.source["slices"] == 8
    assert found.source["gantry_tilt_degrees"] == 0


def test_file_names_and_instance_numbers_do_not_order_the_slices(tmp_path: Path) -> None:
    rng = np.random.default_rng(31)
    names = rng.permutation(8)

    def shuffle(index: int, ds: Dataset) -> None:
        ds.InstanceNumber = int(names[index])

    files = write_series(tmp_path / "plain", change=shuffle)
    for index, file in enumerate(files):
        file.rename(file.with_name(f"x{names[index]}"))
    (tmp_path / "plain" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM not an image")
    np.testing.assert_array_equal(read(tmp_path / "plain").volume.array, ct())


angles = st.tuples(*[st.floats(-30, 30)] * 2, st.floats(-180, 180, width=32, allow_subnormal=False))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(angles=angles, backwards=st.booleans())
@pytest.mark.slow
def test_an_oblique_series_lies_where_simpleitk_puts_it(
    tmp_path: Path, angles: tuple[float, float, float], backwards: bool
) -> None:
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    orientation = [float(f"{v:.9g}") for v in (*turn[:, 0], *turn[:, 1])]
    normal = np.cross(orientation[:3], orientation[3:])
    folder = tmp_path / "series"
    shutil.rmtree(folder, ignore_errors=True)
    write_series(folder, orientation=orientation, step=normal * (-2.5 if backwards else 2.5))  # type: ignore[arg-type]
    uid_found = only(folder).series_uid
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid_found)
    reference = volume_of(sitk.ReadImage(names))
    mine = read(folder).volume
    np.testing.assert_array_equal(mine.array, reference.array)
    shift, turned = mine.grid.differences(reference.grid)
    assert shift < 1e-3
    assert turned < 1e-5


def test_a_missing_slice_is_refused_with_its_place_in_millimetres(tmp_path: Path) -> None:
    write_series(tmp_path / "gap", leave_out=[4])
    text = refusal(tmp_path / "gap")
    assert "1 slice is missing within z = 109.0 to 115.0 mm" in text


def test_several_gaps_are_all_named(tmp_path: Path) -> None:
    write_series(tmp_path / "gaps", slices=12, leave_out=[2, 7, 8])
    text = refusal(tmp_path / "gaps")
    assert "3 slices are missing" in text
    assert "103.0 to 109.0 mm" in text
    assert "118.0 to 127.0 mm" in text


def test_jitter_of_the_positions_is_accepted(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def jitter(index: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-20, -15, f"{100 + 3 * index + rng.uniform(-0.02, 0.02):.4f}"]

    write_series(tmp_path / "jitter", change=jitter)
    found = read(tmp_path / "jitter")
    assert found.volume.grid.spacing[0] == pytest.approx(3.0, abs=0.01)
    np.testing.assert_array_equal(found.volume.array, ct())


def test_uneven_spacing_is_refused(tmp_path: Path) -> None:
    def thicker(index: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-20, -15, 100 + 3 * min(index, 4) + 5.2 * max(index - 4, 0)]

    write_series(tmp_path / "uneven", change=thicker)
    assert "unevenly spaced (3.00 to 5.20 mm apart)" in refusal(tmp_path / "uneven")


def test_slices_shifted_sideways_are_refused(tmp_path: Path) -> None:
    def shift(index: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-20 + (7.0 if index == 5 else 0.0), -15, 100 + 3 * index]

    write_series(tmp_path / "shifted", change=shift)
    assert "shifted sideways against each other" in refusal(tmp_path / "shifted")


def test_an_identical_double_slice_is_dropped_and_told(tmp_path: Path) -> None:
    files = write_series(tmp_path / "twice")
    shutil.copy(files[3], files[3].with_name("copy.dcm"))
    found = read(tmp_path / "twice")
    np.testing.assert_array_equal(found.volume.array, ct())
    assert found.volume.grid.spacing[0] == 3.0
    assert any("1 slice is duplicated" in warning for warning in found.warnings)


def test_a_conflicting_double_slice_is_refused_with_both_names(tmp_path: Path) -> None:
    write_series(tmp_path / "conflict")
    other = (ct()[3].astype(np.int32) + 1025).astype(np.uint16)
    save(slice_dataset(other, position=(-20, -15, 109), name="other"), tmp_path / "conflict" / "other.dcm")
    text = refusal(tmp_path / "conflict")
    assert "CT003.dcm" in text
    assert "other.dcm" in text
    assert "same position" in text


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_slices_are_refused(tmp_path: Path, count: int) -> None:
    write_series(tmp_path / "few", slices=count)
    text = refusal(tmp_path / "few")
    assert ("a single slice" if count == 1 else f"only {count} slices") in text


@pytest.mark.parametrize("missing", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_slices_without_their_geometry_are_refused(tmp_path: Path, missing: str) -> None:
    write_series(tmp_path / "nowhere", change=lambda index, ds: delattr(ds, missing))
    assert refusal(tmp_path / "nowhere").startswith("nowhere: ")


def test_the_slice_without_its_geometry_is_named_as_a_name(tmp_path: Path) -> None:
    """Three of eight have no position: more than strays may be."""

    def change(index: int, ds: Dataset) -> None:
        if index < 3:
            del ds.ImagePositionPatient

    write_series(tmp_path / "Smith^John", change=change)
    (item,) = find_cases(tmp_path / "Smith^John")[0]
    assert isinstance(item, Refusal)
    assert isinstance(item.reason, Said)
    first = next(word for word in item.reason.replace(",", " ").split() if word.endswith(".dcm"))
    hidden = item.reason.without_names(lambda name: f"<{name.kind}>")
    assert first not in hidden
    assert "<file> first)" in hidden
    assert "Smith" not in hidden


@pytest.mark.parametrize("spacing", [(0.0, 0.0), (25.0, 25.0), (0.01, 0.01)])
def test_an_absurd_pixel_spacing_is_refused(tmp_path: Path, spacing: tuple[float, float]) -> None:
    write_series(tmp_path / "absurd", pixel_spacing=spacing)
    assert "voxel spacing" in refusal(tmp_path / "absurd")


TILT = np.radians(18.5)


def test_a_tilted_gantry_is_undone_and_its_angle_kept(tmp_path: Path) -> None:
    write_series(tmp_path / "tilt", orientation=tilted(18.5), slices=16)
    found = read(tmp_path / "tilt")
    assert found.source["gantry_tilt_degrees"] == pytest.approx(18.5, abs=0.01)
    assert any("tilted by 18.5 degrees" in warning for warning in found.warnings)
    assert found.volume.grid.spacing[0] == pytest.approx(3 * np.cos(TILT), abs=1e-6)
    assert found.volume.array.dtype == np.float32


def test_a_tilted_gantry_leaves_each_voxel_where_the_scanner_put_it(tmp_path: Path) -> None:
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(TILT), -np.sin(TILT)])
    start, step, gradient = np.array([-20.0, -15, 100]), np.array([0, 0, 3.0]), np.array([2.0, -3.0, 1.5])
    index = np.stack(np.indices((16, 32, 40)), axis=-1)  # type: ignore[call-overload]
    points = start + index[..., :1] * step + index[..., 1:2] * 0.9 * column + index[..., 2:] * 0.8 * row
    hu = points @ gradient - 150.0  # linear in space, so a linear interpolation gives it back exactly
    hu[:, :3] = AIR

    for k, plane in enumerate(hu):
        stored = np.rint((plane + 1024) / 0.05).astype(np.uint16)
        save(
            slice_dataset(stored, position=start + k * step, orientation=tilted(18.5), slope=0.05),
            tmp_path / "tilt" / f"{k}.dcm",
        )
    found = read(tmp_path / "tilt").volume
    inside = found.array > -500
    inside &= np.roll(inside, 1, axis=1) & np.roll(inside, -1, axis=1)  # away from the edge to air
    expected = found.grid.points(np.argwhere(inside)) @ gradient - 150.0
    assert inside.sum() > 0.8 * (hu > -500).sum()
    np.testing.assert_allclose(found.array[inside], expected, atol=0.06)


def test_the_planes_of_an_untilted_volume_are_the_source_slices(tmp_path: Path) -> None:
    hu = ct(16)
    write_series(tmp_path / "tilt", orientation=tilted(18.5), hu=hu)
    found = read(tmp_path / "tilt").volume
    assert found.grid.size[0] == 16
    for k in range(16):
        body = found.array[k][(found.array[k] > -100) & (found.array[k] < 100)]
        assert np.median(body) == pytest.approx(
            k - 24, abs=1e-3
        )  # the slice-coded grey: no mixing across slices


def test_the_tilt_is_seen_from_positions_and_not_from_the_tag(tmp_path: Path) -> None:
    write_series(tmp_path / "tag", GantryDetectorTilt="18.5")
    found = read(tmp_path / "tag")
    assert found.source["gantry_tilt_degrees"] == 0
    np.testing.assert_array_equal(found.volume.array, ct())


def test_a_skew_of_less_than_half_a_voxel_is_straightened_and_its_angle_kept(tmp_path: Path) -> None:
    write_series(tmp_path / "skew", step=(0.0, 0.05, 3.0))
    found = read(tmp_path / "skew")
    np.testing.assert_array_equal(found.volume.array, ct())
    assert found.source["gantry_tilt_degrees"] == 0
    assert found.source["off_right_angles_degrees"] == pytest.approx(0.955, abs=0.01)
    middle = found.volume.grid.points([3.5, 15.5, 19.5])
    np.testing.assert_allclose(middle, [-20 + 19.5 * 0.8, -15 + 15.5 * 0.9 + 3.5 * 0.05, 110.5], atol=1e-6)


def test_an_oblique_stack_along_its_normal_is_not_called_tilted(tmp_path: Path) -> None:
    normal = np.cross(tilted(18.5)[:3], tilted(18.5)[3:])
    write_series(tmp_path / "oblique", orientation=tilted(18.5), step=3 * normal)  # type: ignore[arg-type]
    found = read(tmp_path / "oblique")
    assert found.source["gantry_tilt_degrees"] == 0
    assert found.volume.array.dtype == np.int16


def test_the_record_holds_the_lattice_of_the_source_slices(tmp_path: Path) -> None:
    write_series(tmp_path / "tilt", orientation=tilted(18.5))
    lattice = read(tmp_path / "tilt").source["lattice"]
    assert lattice["size_zyx"] == [8, 32, 40]
    at = np.array(lattice["index_zyx_to_lps_mm"]) @ [5, 0, 0, 1]
    np.testing.assert_allclose(at[:3], [-20, -15, 115], atol=1e-6)


def test_feet_first_slices_keep_their_place(tmp_path: Path) -> None:
    orientation = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    write_series(tmp_path / "feet", orientation=orientation, start=(20.0, -15.0, 100.0))
    found = read(tmp_path / "feet")
    centre = mark_points(found).mean(axis=0)
    index = np.argwhere(ct() == MARK).mean(axis=0)
    np.testing.assert_allclose(
        centre, [20 - 0.8 * index[2], -15 + 0.9 * index[1], 100 + 3 * index[0]], atol=1e-6
    )


def test_an_axial_localizer_of_the_same_matrix_is_left_aside(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    write_series(folder)
    plane = (ct()[0].astype(np.int32) + 1024).astype(np.uint16)
    kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(slice_dataset(plane, position=(-20, -15, 200), ImageType=kind), folder / "scout.dcm")
    case = only(folder)
    assert any("a localizer (1 slice)" in note for note in case.notes)
    np.testing.assert_array_equal(read_case(case).volume.array, ct())


def test_a_gap_of_thin_slices_is_refused_too(tmp_path: Path) -> None:
    write_series(tmp_path / "thin", slices=30, step=(0.0, 0.0, 0.3), leave_out=[15])
    assert "1 slice is missing within z = 104.2 to 104.8 mm" in refusal(tmp_path / "thin")


@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (32, 16)])
def test_localizers_and_strangers_under_the_series_uid_are_left_aside(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    folder = tmp_path / "mixed"
    write_series(folder)
    scout = np.full((32, 40), 1000, np.uint16)
    save(
        slice_dataset(
            scout,
            orientation=(1, 0, 0, 0, 0, -1),
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
            name="scout",
        ),
        folder / "scout.dcm",
    )
    save(
        slice_dataset(scout[: shape[0], : shape[1]], position=(-20, -15, 124), name="small"),
        folder / "small.dcm",
    )
    case = only(folder)
    np.testing.assert_array_equal(read_case(case).volume.array, ct())
    assert any("a localizer (1 slice)" in note for note in case.notes)
    assert any("1 axial slices of the series do not fit" in warning for warning in case.warnings)


def test_two_phases_under_one_series_uid_are_told_apart_by_acquisition(tmp_path: Path) -> None:
    write_series(tmp_path / "phases", AcquisitionNumber=1, prefix="a", name="a")
    write_series(tmp_path / "phases", AcquisitionNumber=2, prefix="b", hu=ct() + np.int16(1))
    case = only(tmp_path / "phases")
    assert len(case.files) == 8
    assert len({file.name[0] for file in case.files}) == 1


def test_direction_cosines_that_are_not_orthonormal_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "bent", orientation=(1.0, 0.0, 0.0, 0.3, 0.95, 0.0))
    assert "not orthonormal" in refusal(tmp_path / "bent")


def test_a_shear_beyond_any_gantry_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "sheared", step=(0.0, 5.0, 3.0), orientation=AXIAL)
    assert "sheared by 59.0 degrees" in refusal(tmp_path / "sheared")
