"""Stored values to HU: rescale slice by slice, signs, padding, compression, several frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from aiene.errors import InputError
from aiene.ingest.dicom.header import scan
from aiene.ingest.dicom.pixels import read_frame, read_stack
from aiene.ingest.dicom.stack import group, lay_out
from aiene.ingest.read import read_case
from builders.dicom_files import ct, enhanced, save, slice_dataset, write_series
from builders.dicom_stacks import only, read, refusal


def one_hu(tmp_path: Path, stored: np.ndarray, **tags: Any) -> np.ndarray:
    """HU of a single slice."""
    (frame,) = scan([save(slice_dataset(stored, **tags), tmp_path / "one.dcm")]).frames
    return read_frame(frame)


def test_slope_and_intercept_are_each_slices_own(tmp_path: Path) -> None:
    hu = ct().astype(np.float64)
    hu[1:, 10, 10] = -523.5

    def rescale(index: int, ds: Dataset) -> None:
        slope, intercept = (1.0, -1024.0) if index == 0 else (0.5, -1000.0)
        ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
        ds.PixelData = np.rint((hu[index] - intercept) / slope).astype("<u2").tobytes()

    write_series(tmp_path / "mixed", change=rescale)
    found = read(tmp_path / "mixed").volume.array
    assert found.dtype == np.float32
    assert np.abs(found - hu).max() <= 0.01
    assert found[3, 10, 10] == -523.5


def test_a_slope_of_two_and_another_intercept_stay_whole_numbers(tmp_path: Path) -> None:
    def rescale(index: int, ds: Dataset) -> None:
        if index:
            ds.RescaleSlope, ds.RescaleIntercept = "2", "-1000"
            ds.PixelData = ((ct()[index].astype(np.int32) + 1000) // 2).astype("<u2").tobytes()

    write_series(tmp_path / "two", change=rescale)
    found = read(tmp_path / "two").volume.array
    assert found.dtype == np.int16
    assert np.abs(found.astype(int) - ct()).max() <= 1  # halves of odd HU were cut when the test stored them
    np.testing.assert_array_equal(found[0], ct()[0])


def test_signed_stored_values_keep_their_sign(tmp_path: Path) -> None:
    hu = ct()[0]
    np.testing.assert_array_equal(one_hu(tmp_path, hu, intercept=0), hu)


def test_a_sign_that_was_not_extended_is_put_right(tmp_path: Path) -> None:
    stored = ct()[0] & np.int16(0x0FFF)  # twelve bits in two's complement, as some writers leave it
    found = one_hu(tmp_path, stored, intercept=0, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(found, ct()[0])


def test_an_overlay_in_unused_bits_does_not_count(tmp_path: Path) -> None:
    stored = (ct()[0].astype(np.int32) + 1024).astype(np.uint16)
    stored[8, 8] |= 0x8000
    found = one_hu(tmp_path, stored, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(found, ct()[0])


@pytest.mark.parametrize("padding", [-2000, 63536])
def test_padding_becomes_air(tmp_path: Path, padding: int) -> None:
    stored = ct()[0] + np.int16(1024)
    stored[:2] = -2000
    ds = slice_dataset(stored, PixelRepresentation=1)
    element = pydicom.DataElement(0x00280120, "US" if padding > 0 else "SS", padding)
    ds[0x00280120] = element
    (frame,) = scan([save(ds, tmp_path / "one.dcm")]).frames
    found = read_frame(frame)
    assert (found[:2] == -1024).all()
    np.testing.assert_array_equal(found[2:], ct()[0][2:])


def test_a_padding_value_of_more_bits_than_are_stored_becomes_air(tmp_path: Path) -> None:
    stored = (ct()[0].astype(np.int32) + 1024).astype(np.uint16)
    stored[:2] = 63536  # -2000 in sixteen bits, and 2096 (1072 HU) in the twelve that count
    found = one_hu(tmp_path, stored, BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    assert (found[:2] == -1024).all()
    np.testing.assert_array_equal(found[2:], ct()[0][2:])


def test_a_padding_value_in_the_range_of_tissue_counts_only_at_the_edge(tmp_path: Path) -> None:
    stored = ct()[0].copy()
    stored[:2], stored[15, 15] = 0, 0  # 0 is the padding, and water
    found = one_hu(tmp_path, stored, intercept=0, PixelPaddingValue=0)
    assert (found[:2] == -1024).all()
    assert found[15, 15] == 0


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEGLSLossless,
    ],
)
def test_lossless_transfer_syntaxes_give_the_same_hu(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    def encode(index: int, ds: Dataset) -> None:
        if syntax.is_encapsulated:
            ds.compress(syntax, generate_instance_uid=False)
        elif syntax == ExplicitVRBigEndian:
            ds["PixelData"].value = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
            ds["PixelData"].VR = "OW"
        ds.file_meta.TransferSyntaxUID = syntax

    write_series(tmp_path / "coded", change=encode)
    np.testing.assert_array_equal(read(tmp_path / "coded").volume.array, ct())


def test_jpeg_lossless_of_the_shared_file_can_be_decoded(shared: Path) -> None:
    """A nuclear medicine image, so it is no CT; its codec is the commonest of older archives."""
    dataset = pydicom.dcmread(shared / "data" / "awkward-dicom" / "JPEG-LL.dcm")
    assert dataset.pixel_array.max() == 278  # its LargestImagePixelValue


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("share", [0.55, 0.9])
def test_a_file_cut_in_the_middle_is_refused_by_name(
    tmp_path: Path, syntax: pydicom.uid.UID | None, share: float
) -> None:
    rng = np.random.default_rng(2)
    noisy = ct() + rng.integers(-20, 20, ct().shape).astype(np.int16)

    def encode(index: int, ds: Dataset) -> None:
        if syntax is not None:
            ds.compress(syntax, generate_instance_uid=False)

    files = write_series(tmp_path / "cut", hu=noisy, change=encode)
    whole = files[4].read_bytes()
    header = whole.index(b"\xe0\x7f\x10\x00")
    files[4].write_bytes(whole[: header + int((len(whole) - header) * share)])
    text = refusal(tmp_path / "cut")
    assert text.startswith("CT004.dcm: ")
    assert "cut off" in text or "damaged" in text


def test_a_jpeg_2000_image_cut_inside_its_frame_is_refused(tmp_path: Path) -> None:
    """Its decoder fills the rest with grey and says nothing."""

    def cut(index: int, ds: Dataset) -> None:
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        if index == 2:
            frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
            ds.PixelData = pydicom.encaps.encapsulate([frame[: len(frame) // 2]])

    write_series(tmp_path / "cut", change=cut)
    assert "cut off" in refusal(tmp_path / "cut")


def test_a_compression_without_decoder_is_named(tmp_path: Path) -> None:
    def other(index: int, ds: Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
        ds.PixelData = pydicom.encaps.encapsulate([b"\0" * 100])
        ds["PixelData"].is_undefined_length = True

    write_series(tmp_path / "movie", change=other)
    text = refusal(tmp_path / "movie")
    assert "MPEG2" in text
    assert "install" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RescaleSlope": None}, "no rescale slope and intercept"),
        ({"RescaleSlope": "0"}, "rescale slope is 0"),
        ({"SamplesPerPixel": 3}, "colour image"),
        ({"PixelData": None}, "pixel data is missing"),
    ],
)
def test_pixels_that_cannot_be_hu_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    write_series(tmp_path / "odd", **change)
    assert words in refusal(tmp_path / "odd")


def test_an_enhanced_ct_is_stacked_by_its_frames_positions(tmp_path: Path) -> None:
    hu = ct(6)
    path = save(enhanced(hu, spacing=2.5, order=[3, 0, 5, 1, 4, 2]), tmp_path / "many.dcm")
    found = read(path)
    np.testing.assert_array_equal(found.volume.array, hu)
    assert found.volume.grid.spacing == (2.5, 0.9, 0.8)
    assert found.volume.grid.origin == (-20, -15, 100)


def test_an_enhanced_ct_with_reversed_rows_keeps_its_place(tmp_path: Path) -> None:
    hu = ct(6)
    path = save(enhanced(hu, orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)), tmp_path / "left.dcm")
    grid = read(path).volume
    mark = grid.grid.points(np.argwhere(grid.array > 800)).mean(axis=0)
    index = np.argwhere(hu > 800).mean(axis=0)
    np.testing.assert_allclose(
        mark, [-20 - 0.8 * index[2], -15 + 0.9 * index[1], 100 + 2.5 * index[0]], atol=1e-6
    )


def test_fewer_functional_groups_than_frames_are_refused(tmp_path: Path) -> None:
    ds = enhanced(ct(6))
    ds.PerFrameFunctionalGroupsSequence = list(ds.PerFrameFunctionalGroupsSequence)[:5]
    assert "cannot be read" in refusal(save(ds, tmp_path / "few.dcm"))


def test_frames_without_positions_are_refused(tmp_path: Path) -> None:
    path = save(enhanced(ct(6), positions=False), tmp_path / "plain.dcm")
    assert "have no usable position" in refusal(path)


def test_the_shared_enhanced_ct_has_ten_millimetre_steps_and_is_refused_as_a_map(shared: Path) -> None:
    path = shared / "data" / "awkward-dicom" / "eCT_Supplemental.dcm"
    frames = scan([path]).frames
    assert [frame.position for frame in frames] == [(99.5, -301.5, -159.0), (99.5, -301.5, -149.0)]
    assert frames[0].orientation == (-1, 0, 0, 0, 1, 0)
    assert frames[0].pixel_spacing == (0.388672, 0.388672)
    assert "a map, not HU" in refusal(path)


def test_the_shared_slice_in_jpeg_2000_equals_its_plain_twin(shared: Path) -> None:
    folder = shared / "data" / "awkward-dicom"
    plain, packed = (read_frame(scan([folder / f"693_{n}.dcm"]).frames[0]) for n in ("UNCR", "J2KR"))
    np.testing.assert_array_equal(plain, packed)
    assert plain.min() == -1024  # padding -2000 became air
    assert "a single slice" in refusal(folder / "693_UNCR.dcm")


def test_the_shared_tilted_scan_of_varying_spacing_is_refused(shared: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(shared / "data" / "awkward-dicom" / "ge_tilt_variable_spacing.zip") as archive:
        archive.extractall(tmp_path)
    assert "unevenly spaced (1.08 to 7.00 mm apart)" in refusal(tmp_path / "ge_tilt_variable_spacing")


def test_the_evenly_spaced_part_of_the_shared_tilted_scan_is_untilted(shared: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(shared / "data" / "awkward-dicom" / "ge_tilt_variable_spacing.zip") as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "ge_tilt_variable_spacing"
    frames = [f for f in scan(sorted(folder.iterdir())).frames if (f.position or (0, 0, 0))[2] > 61]
    (stack,) = group(frames)
    layout = lay_out(stack, folder)
    assert layout.tilt_degrees == pytest.approx(18.5, abs=0.01)
    assert layout.spacing_mm == pytest.approx(7.0, abs=0.01)
    assert read_stack(layout.places).shape == (14, 512, 512)


def test_a_lossy_image_is_warned_of(tmp_path: Path) -> None:
    write_series(tmp_path / "lossy", LossyImageCompression="01")
    assert any("lossy" in warning for warning in read(tmp_path / "lossy").warnings)


def test_a_file_that_went_after_the_search_is_told(tmp_path: Path) -> None:
    files = write_series(tmp_path / "gone")
    case = only(tmp_path / "gone")
    files[2].unlink()
    with pytest.raises(InputError, match="CT002"):
        read_case(case)


def test_no_message_shows_the_patient(tmp_path: Path) -> None:
    write_series(tmp_path / "folder", leave_out=[3], SeriesDescription="TEST^ONE neck")
    assert "TEST" not in refusal(tmp_path / "folder")
    write_series(tmp_path / "good", SeriesDescription="TEST^ONE neck")
    case = only(tmp_path / "good")
    assert "TEST" not in repr(case) + repr(read_case(case).source)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_compressed_enhanced_ct_is_read_frame_by_frame(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    ds = enhanced(ct(6), order=[5, 4, 3, 2, 1, 0])
    ds.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(read(save(ds, tmp_path / "many.dcm")).volume.array, ct(6))


def test_a_frame_that_is_cut_in_a_compressed_enhanced_ct_is_refused(tmp_path: Path) -> None:
    ds = enhanced(ct(6))
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    frames = list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=6))
    frames[3] = frames[3][: len(frames[3]) // 2]
    ds.PixelData = pydicom.encaps.encapsulate(frames)
    assert "its compressed image is cut off" in refusal(save(ds, tmp_path / "many.dcm"))
