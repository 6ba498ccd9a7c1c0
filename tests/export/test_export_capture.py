"""Key slices: the right slice, the right way up, however the CT lies; and an object that viewers take."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from aiene.export import secondary_capture
from aiene.export import secondary_capture as key_page
from aiene.export.secondary_capture import NOTICE, PAGE
from aiene.geometry.grid import Grid, Volume
from aiene.results.pictures import PANEL, as_shown, grey, key_index, letters, picture, scale_bar_mm
from builders import planted_series as series

SIZE = (8, 32, 40)
MOVES = [(axes, flips) for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)]


def ramp(size: tuple[int, int, int] = (12, 20, 30)) -> Volume:
    """A CT in which every voxel says where it lies, upright."""
    grid = Grid(size, (3.0, 1.2, 1.0), (-10.0, 4.0, 50.0))
    array = np.arange(np.prod(size), dtype=np.float32).reshape(size) / 10 - 300
    return Volume(array, grid)


def stored_otherwise(volume: Volume, axes: tuple[int, ...], flips: tuple[int, ...]) -> Volume:
    """The same CT as another scanner or converter would store it."""
    array = np.transpose(volume.array, axes)
    affine = volume.grid.affine[:, [*axes, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip < 0:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
    return Volume(np.ascontiguousarray(array), Grid.from_affine(affine, array.shape))


@pytest.mark.parametrize(("axes", "flips"), MOVES)
def test_a_ct_looks_the_same_however_it_was_stored(axes: tuple[int, ...], flips: tuple[int, ...]) -> None:
    upright = ramp()
    shown = as_shown(stored_otherwise(upright, axes, flips))
    np.testing.assert_array_equal(shown.array, upright.array)
    np.testing.assert_allclose(shown.grid.affine, upright.grid.affine, atol=1e-9)


@pytest.mark.parametrize(
    ("direction", "said"),
    [
        ((1, 0, 0), "L"),
        ((-1, 0, 0), "R"),
        ((0, 1, 0), "P"),
        ((0, -1, 0), "A"),
        ((0, 0, 1), "S"),
        ((0, 0, -1), "I"),
        ((0.8, 0.6, 0), "LP"),
        ((-0.6, -0.8, 0), "AR"),
        ((0.99, 0.1, 0.1), "L"),
        ((0.5, -0.5, -0.7071), "ILA"),
    ],
)
def test_letters_say_where_a_direction_points(direction: tuple[float, ...], said: str) -> None:
    assert letters(np.array(direction, dtype=float)) == said


def node_at(size: tuple[int, int, int]) -> npt.NDArray[Any]:
    nodes = np.zeros(size, np.uint16)
    nodes[3:6, 8:12, 20:25] = 1
    nodes[4, 7:13, 19:26] = 1  # the largest slice
    nodes[4, 2, 2] = 2
    return nodes


def test_the_key_slice_is_the_one_of_largest_area() -> None:
    z, y, x = key_index(node_at((12, 20, 30)) == 1)
    assert z == 4
    assert 8 <= y < 12
    assert 20 <= x < 25


def test_the_key_voxel_is_the_nodes_own_even_where_its_middle_is_a_hole() -> None:
    node = np.zeros((3, 9, 9), bool)
    node[1, 1:8, 1:8] = True
    node[1, 3:6, 3:6] = False
    assert node[key_index(node)]


@pytest.mark.parametrize(
    ("view", "expected", "letters"),
    [
        ("axial", (1, 1), ("R", "L", "A", "P")),
        ("coronal", (1, -1), ("R", "L", "S", "I")),
        ("sagittal", (1, -1), ("A", "P", "S", "I")),
    ],
)
def test_a_bright_voxel_stands_where_the_letters_say(
    view: Any, expected: tuple[int, int], letters: tuple[str, ...]
) -> None:
    """Left, behind and above the middle: to the right of an axial picture and low; high where z goes up."""
    ct = ramp((13, 21, 31))
    array = np.full_like(ct.array, -1000)
    array[9, 14, 21] = 500
    through = {"axial": (9, 10, 15), "coronal": (6, 14, 15), "sagittal": (6, 10, 21)}[view]
    shown = picture(
        ct.with_array(array), np.zeros(array.shape, np.uint8), 1, view,
        through=through, centre=(6.0, 10.0, 15.0), side_mm=60.0, pixels=120,
    )  # fmt: skip
    row, column = np.unravel_index(shown.hu.argmax(), shown.hu.shape)
    assert shown.letters == letters
    to_right = {"axial": 6 * 1.0, "coronal": 6 * 1.0, "sagittal": 4 * 1.2}[view]
    to_bottom = {"axial": 4 * 1.2, "coronal": -3 * 3.0, "sagittal": -3 * 3.0}[view]
    assert column == pytest.approx(59.5 + to_right * 2, abs=1)
    assert row == pytest.approx(59.5 + to_bottom * 2, abs=1)
    assert (np.sign(to_right), np.sign(to_bottom)) == expected


def test_the_nodes_area_on_the_page_is_its_area_on_the_patient() -> None:
    ct, nodes = ramp(), node_at((12, 20, 30))
    shown = picture(
        ct, nodes, 1, "axial", through=(4, 9, 22), centre=(4.0, 9.0, 22.0), side_mm=40.0, pixels=400
    )
    area = shown.mask.sum() * shown.mm_per_pixel**2
    assert area == pytest.approx(6 * 7 * 1.2 * 1.0, rel=0.01)
    assert not (shown.mask & shown.others).any()


def test_the_window_is_that_of_soft_tissue() -> None:
    np.testing.assert_array_equal(grey(np.array([-2000.0, -125, 50, 225, 3000])), [0, 0, 128, 255, 255])


@pytest.mark.parametrize(("side", "bar"), [(70, 20), (256, 50), (31, 10), (500, 100), (2, 1)])
def test_the_scale_bar_is_round_and_fits(side: float, bar: int) -> None:
    assert scale_bar_mm(side) == bar


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    ct = ramp()
    dark = ct.with_array(np.full_like(ct.array, -1000))
    shown = picture(
        dark, np.zeros(ct.array.shape, int), 1, "axial",
        through=(4, 9, 22), centre=(4.0, 9.0, 22.0), side_mm=60.0, pixels=PANEL,
    )  # fmt: skip
    panel = np.asarray(key_page.panel(replace(shown, letters=("", "", "", "")), ""))  # type: ignore[attr-defined]
    white = np.flatnonzero((panel[PANEL - 14] == 255).all(axis=1))
    assert white[-1] - white[0] == pytest.approx(20 / shown.mm_per_pixel, abs=3)


@pytest.fixture
def planted(tmp_path: Path) -> series.Planted:
    """Two nodes in an oblique series, its slices falling, its files in random order."""
    grid = series.grid_of(SIZE, degrees=(20, -12, 9), falling=True)
    return series.planted(tmp_path / "ct", node_at(SIZE), grid, ene=(0.823, None))


def ct_of(at: series.Planted) -> Volume:
    """The source in HU, without the checks of a whole patient that a small series would fail."""
    slices = [pydicom.dcmread(file) for file in at.case.source.files]
    hu = np.stack([ds.pixel_array.astype(np.float32) + float(ds.RescaleIntercept) for ds in slices])
    return Volume(hu, at.case.source.grid)


@pytest.mark.slow
def test_there_is_one_page_a_node_in_one_series(planted: series.Planted) -> None:
    pages = secondary_capture.build(planted.case, ct_of(planted))
    assert [page.InstanceNumber for page in pages] == [1, 2]
    assert len({page.SeriesInstanceUID for page in pages}) == 1
    assert len({page.SOPInstanceUID for page in pages}) == 2
    for page in pages:
        assert (page.Columns, page.Rows) == PAGE
        assert page.PhotometricInterpretation == "RGB"
        assert page.BurnedInAnnotation == "NO"
        assert "not for clinical use" in page.SeriesDescription
        assert NOTICE in page.ImageComments


@pytest.mark.slow
def test_a_page_refers_to_the_slices_that_its_node_lies_on(planted: series.Planted) -> None:
    first, second = secondary_capture.build(planted.case, ct_of(planted))
    uids = {item.ReferencedSOPInstanceUID for item in first.SourceImageSequence}
    assert uids == {planted.instance[k] for k in (3, 4, 5)}
    assert [i.ReferencedSOPInstanceUID for i in second.SourceImageSequence] == [planted.instance[4]]


@pytest.mark.slow
def test_patient_and_study_are_copied_and_the_page_names_nobody(planted: series.Planted) -> None:
    (page, _), source = secondary_capture.build(planted.case, ct_of(planted)), planted.case.source.datasets[0]
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate"):
        assert page[keyword].value == source[keyword].value
    words = secondary_capture._words(
        planted.case.result.nodes[0], planted.case, as_shown(ct_of(planted)), (4, 9, 22)
    )
    text = " ".join([words.title, words.facts, *words.captions, words.source])
    assert "GTVn_01" in text
    assert "ENE probability 0.8230 (threshold 0.5: ENE)" in text
    assert "TEST" not in text


def test_the_page_has_the_digits_of_the_tables_and_never_contradicts_its_verdict(
    planted: series.Planted,
) -> None:
    node = replace(
        planted.case.result.nodes[0],
        ene=0.50001,
        pos=0.91,
        native_volume_mm3=7485.25,
        native_long_axis_mm=27.66,
        native_short_axis_mm=21.94,
    )
    words = secondary_capture._words(node, planted.case, as_shown(ct_of(planted)), (4, 9, 22))
    assert "ENE probability 0.50001 (threshold 0.5: ENE)" in words.title
    assert words.facts.startswith("volume 7485 mm3   axes 27.7 x 21.9 mm   pos 0.9100   side ")


@pytest.mark.slow
def test_the_outline_is_on_the_page(planted: series.Planted) -> None:
    page, _ = secondary_capture.build(planted.case, ct_of(planted))
    pixels = page.pixel_array[100:].astype(int)
    yellow = (pixels[..., 0] > 200) & (pixels[..., 1] > 150) & (pixels[..., 2] < 80)
    top, bottom = pixels.shape[0] // 2, pixels.shape[1] // 2
    for quarter in (
        yellow[:top, :bottom],
        yellow[:top, bottom:],
        yellow[top:, :bottom],
        yellow[top:, bottom:],
    ):
        assert quarter.sum() > 20


@pytest.mark.slow
def test_the_same_case_gives_the_same_pages(planted: series.Planted) -> None:
    one, other = (secondary_capture.build(planted.case, ct_of(planted)) for _ in range(2))
    assert [page.SOPInstanceUID for page in one] == [page.SOPInstanceUID for page in other]
    assert [page.PixelData for page in one] == [page.PixelData for page in other]


def test_no_node_no_page(tmp_path: Path) -> None:
    at = series.planted(tmp_path / "ct", np.zeros(SIZE, np.uint16), series.grid_of(SIZE))
    assert secondary_capture.build(at.case) == []


@pytest.mark.slow
def test_the_validator_has_no_word_against_a_page(planted: series.Planted, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    for number, page in enumerate(secondary_capture.build(planted.case, ct_of(planted))):
        file = tmp_path / f"{number}.dcm"
        page.save_as(file, enforce_file_format=True)
        said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
        assert "Error" not in said.stdout + said.stderr
        assert "Warning" not in said.stdout + said.stderr


@pytest.mark.slow
def test_dcmtk_draws_the_page_as_it_is(planted: series.Planted, tmp_path: Path) -> None:
    if shutil.which("dcmj2pnm") is None:
        pytest.skip("dcmj2pnm (Debian package dcmtk) is not installed")
    page, _ = secondary_capture.build(planted.case, ct_of(planted))
    file, drawn = tmp_path / "page.dcm", tmp_path / "page.ppm"
    page.save_as(file, enforce_file_format=True)
    subprocess.run(["dcmj2pnm", "--write-raw-pnm", str(file), str(drawn)], check=True, capture_output=True)
    from PIL import Image

    with Image.open(drawn) as image:
        np.testing.assert_array_equal(np.asarray(image), page.pixel_array)
