"""Headers that hospitals really send: nobody's words reach a log, and no slice is lost for a silly number."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from aiene.errors import InputError
from aiene.ingest.case import Case, Refusal
from aiene.ingest.dicom.header import quiet
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from builders.dicom_files import ct, write_series


def raw(ds: Dataset, keyword: str, vr: str, value: bytes) -> None:
    """An attribute as it stands in a file, whatever the standard says of it."""
    tag = Tag(keyword)
    ds._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


def odd(_: int, ds: Dataset) -> None:
    """A person's words where numbers and codes belong."""
    raw(ds, "SpecificCharacterSet", "CS", b"ISO_IR SECRET ")
    raw(ds, "PatientName", "PN", b"SECR\xc9T^ONE ")
    raw(ds, "SeriesNumber", "IS", b"SECRET")
    raw(ds, "NumberOfFrames", "IS", b"SECRET")
    raw(ds, "AcquisitionTime", "TM", b"SECRET")
    raw(ds, "PixelPaddingValue", "DS", b"SECRET")
    raw(ds, "LossyImageCompression", "CS", b"secret")


def only_case(folder: Path) -> Case:
    (case,), _ = find_cases(folder)
    assert isinstance(case, Case)
    return case


def test_odd_values_are_neither_logged_nor_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with quiet():
        write_series(tmp_path, change=odd)
    pydicom_talks = logging.getLogger("pydicom")
    assert _speaks(pydicom_talks)
    (case,), _ = find_cases(tmp_path)
    assert isinstance(case, Case)
    read_case(case)
    assert not caplog.records
    assert _speaks(pydicom_talks)  # afterwards it speaks as before


def _speaks(logger: logging.Logger) -> bool:
    return bool(logger.filter(logging.makeLogRecord({"name": logger.name})))


def test_silence_ends_when_the_last_has_left() -> None:
    talks = logging.getLogger("pydicom")
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with quiet():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        inside.wait(10)
    assert not _speaks(talks)
    leave.set()
    thread.join()
    assert _speaks(talks)


@pytest.mark.parametrize("count", [0, 1, -3])
def test_a_single_image_may_say_that_it_has_no_frames(tmp_path: Path, count: int) -> None:
    write_series(tmp_path, NumberOfFrames=count)
    (case,), notes = find_cases(tmp_path)
    assert isinstance(case, Case), notes
    assert (read_case(case).volume.array == ct()).all()


@pytest.mark.slow
def test_a_garbled_number_of_frames_fills_no_memory(tmp_path: Path) -> None:
    write_series(tmp_path, NumberOfFrames=2_000_000_000)
    (refused,), _ = find_cases(tmp_path)
    assert isinstance(refused, Refusal)
    assert "have no usable position" in refused.reason


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("PatientID", "SECRET{}", "name 8 patients"),
        ("StudyInstanceUID", "1.2.3.{}", "name 8 studies"),
        ("SeriesInstanceUID", "1.2.3.{}", "name 8 series"),
    ],
)
def test_slices_that_each_name_another_owner_are_one_row(
    tmp_path: Path, keyword: str, value: str, said: str
) -> None:
    write_series(tmp_path / "torn", change=lambda index, ds: setattr(ds, keyword, value.format(index)))
    write_series(tmp_path / "sound", patient="two")
    found, _ = find_cases(tmp_path)
    assert [type(case) for case in found] == [Case, Refusal]
    assert isinstance(found[1], Refusal)
    assert said in found[1].reason
    assert keyword in found[1].reason
    assert "SECRET" not in found[1].reason


def test_a_negative_pixel_spacing_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, pixel_spacing=(-0.9, 0.8))
    (refused,), _ = find_cases(tmp_path)
    assert isinstance(refused, Refusal)
    assert "3 x -0.9 x 0.8 mm" in refused.reason


def high(hu: np.ndarray, *, signed: bool) -> np.ndarray:
    """12 bits in the upper part of 16, as before 2014, with rubbish below them."""
    stored = hu.astype(np.int64) + (0 if signed else 1024)
    return (((stored & 0xFFF) << 4) | 0x5).astype(np.uint16)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_that_are_stored_high_give_the_same_hu(tmp_path: Path, signed: bool) -> None:
    def change(index: int, ds: Dataset) -> None:
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 15, int(signed)
        ds.RescaleIntercept = "0" if signed else "-1024"
        ds.PixelData = high(ct()[index], signed=signed).astype("<u2").tobytes()

    write_series(tmp_path, change=change)
    (case,), _ = find_cases(tmp_path)
    assert isinstance(case, Case)
    np.testing.assert_array_equal(read_case(case).volume.array, ct())


@pytest.mark.parametrize("highest", [3, 16])
def test_a_highest_bit_that_cannot_be_is_told(tmp_path: Path, highest: int) -> None:
    write_series(tmp_path, BitsStored=12, HighBit=highest)
    with pytest.raises(InputError, match="contradicts itself: 12 bits stored"):
        read_case(only_case(tmp_path))


@pytest.mark.parametrize(
    "tags",
    [
        {"SamplesPerPixel": None},
        {"PhotometricInterpretation": None},
        {"PhotometricInterpretation": "GREY"},
        {"HighBit": None},
    ],
)
def test_what_only_a_grey_ct_can_mean_is_supplied(tmp_path: Path, tags: dict[str, Any]) -> None:
    write_series(tmp_path, **tags)
    np.testing.assert_array_equal(read_case(only_case(tmp_path)).volume.array, ct())


@pytest.mark.parametrize("keyword", ["BitsStored", "PixelRepresentation"])
def test_what_the_pixels_cannot_be_read_without_is_named(tmp_path: Path, keyword: str) -> None:
    write_series(tmp_path, **{keyword: None})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"does not say {keyword}"):
        read_case(only_case(tmp_path))


@pytest.mark.parametrize("colour", ["RGB", "PALETTE COLOR"])
def test_colours_are_no_hu(tmp_path: Path, colour: str) -> None:
    write_series(tmp_path, PhotometricInterpretation=colour, SamplesPerPixel=None)
    with pytest.raises(InputError, match="colour image"):
        read_case(only_case(tmp_path))


def test_an_unknown_transfer_syntax_is_no_damage(tmp_path: Path) -> None:
    for file in write_series(tmp_path):
        file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.1.2.1\0", 1))
    with pytest.raises(InputError, match="transfer syntax is unknown"):
        read_case(only_case(tmp_path))
