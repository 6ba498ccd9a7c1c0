"""Headers that hospitals really send: nobody's words reach a log, and no slice is lost for a silly number."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from ingest_builders import ct, write_series
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from aiene.ingest import Case, Refusal, find_cases, read_case
from aiene.ingest.dicom.damage import quiet


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


def test_odd_values_are_neither_logged_nor_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with quiet():
        write_series(tmp_path, change=odd)
    pydicom_talks = logging.getLogger("pydicom")
    assert not pydicom_talks.disabled
    (case,), _ = find_cases(tmp_path)
    assert isinstance(case, Case)
    read_case(case)
    assert not caplog.records
    assert not pydicom_talks.disabled  # afterwards it speaks as before


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
    assert talks.disabled
    leave.set()
    thread.join()
    assert not talks.disabled


@pytest.mark.parametrize("count", [0, 1, -3])
def test_a_single_image_may_say_that_it_has_no_frames(tmp_path: Path, count: int) -> None:
    write_series(tmp_path, NumberOfFrames=count)
    (case,), notes = find_cases(tmp_path)
    assert isinstance(case, Case), notes
    assert (read_case(case).volume.array == ct()).all()


def test_a_garbled_number_of_frames_fills_no_memory(tmp_path: Path) -> None:
    write_series(tmp_path, NumberOfFrames=2_000_000_000)
    (refused,), _ = find_cases(tmp_path)
    assert isinstance(refused, Refusal)
    assert "do not say where they lie" in refused.reason
