"""Looking through many files: each opened once, several at a time, with progress, headers alone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from aiene.ingest import file_head as heads
from aiene.ingest.dicom.header import Words, read_header
from aiene.ingest.dicom.study import Contrast, contrast
from aiene.ingest.file_head import HEAD_BYTES, Head, HeadTooShort, read_head, read_heads
from aiene.ingest.find import find_cases
from builders.archives import pack
from builders.dicom_files import ct, enhanced, save, slice_dataset, write_nifti, write_series
from builders.dicom_stacks import only, read
from builders.dicom_studies import small


def test_each_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "one")
    write_nifti(tmp_path / "two.nii.gz", ct())
    opened: list[str] = []
    really = Path.open

    def counting(self: Path, *args: Any) -> object:
        opened.append(self.name)
        return really(self, *args)

    monkeypatch.setattr(Path, "open", counting)
    monkeypatch.setattr(pydicom, "dcmread", _of_memory_alone(pydicom.dcmread))
    find_cases(tmp_path)
    assert sorted(opened) == sorted(["two.nii.gz", *(f"CT{k:03d}.dcm" for k in range(8))])


def _of_memory_alone(really: Any) -> Any:
    def dcmread(source: Any, **options: Any) -> Any:
        assert not isinstance(source, Path), "a header was read from the disk a second time"
        return really(source, **options)

    return dcmread


def test_files_that_are_slow_to_open_are_waited_for_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "one", hu=small(64))
    really, together = Path.open, threading.Barrier(8)

    def slow(self: Path, *args: str) -> object:
        together.wait(timeout=120)  # until eight are being opened; breaks where they are opened in turn
        return really(self, *args)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", slow)
    find_cases(tmp_path)
    assert not together.broken


def test_progress_goes_from_the_first_file_to_the_last(tmp_path: Path) -> None:
    write_series(tmp_path / "one")
    write_series(tmp_path / "two", patient="two")
    write_series(tmp_path / "plain", patient="three")
    pack(tmp_path / "plain", tmp_path / "three.zip")
    seen: list[tuple[int, int]] = []
    find_cases(tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, 33))
    assert seen[-1] == (32, 32)
    assert all(done <= total for done, total in seen)


def test_the_order_of_the_heads_is_that_of_the_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k:03d}" for k in range(200)]
    for k, path in enumerate(paths):
        path.write_bytes(b"x" * k)
    found = list(read_heads([*paths, tmp_path / "nowhere"]))
    assert [head.path for head in found] == [*paths, tmp_path / "nowhere"]
    assert [len(head.content) for head in found[:-1]] == list(range(200))
    assert isinstance(found[-1].error, FileNotFoundError)


def test_no_more_heads_are_held_than_a_few(tmp_path: Path) -> None:
    taken = 0

    def paths() -> Any:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield tmp_path / "nowhere"

    reader = read_heads(paths())
    next(reader)
    assert taken <= heads._AHEAD + 1
    reader.close()  # type: ignore[attr-defined]


@given(st.integers(0, 40), st.lists(st.integers(0, 20), max_size=6))
def test_a_beginning_gives_its_bytes_or_says_that_it_is_too_short(length: int, reads: list[int]) -> None:
    content = bytes(range(length))
    file, at = Head(Path("x"), content, whole=False).open(), 0
    for size in reads:
        if at + size > length:
            with pytest.raises(HeadTooShort):
                file.read(size)
            return
        assert file.read(size) == content[at : at + size]
        at += size
    with pytest.raises(HeadTooShort):
        file.read()


@pytest.mark.slow
def test_a_header_longer_than_a_head_is_read_from_the_file(tmp_path: Path) -> None:
    private = slice_dataset((ct()[0].astype(np.int32) + 1024).astype(np.uint16))
    block = private.private_block(0x0019, "TEST", create=True)
    block.add_new(1, "OB", bytes(HEAD_BYTES + 100))
    head = read_head(save(private, tmp_path / "long.dcm"))
    assert not head.whole
    (frame,) = read_header(head)  # type: ignore[misc]
    assert frame.rows == 32
    many = save(enhanced(small(600)), tmp_path / "many.dcm")
    assert len(read_header(read_head(many))) == 600  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2500))
def test_a_header_cut_anywhere_reads_like_the_file_itself(tmp_path_factory: Any, length: int) -> None:
    """A short head of a longer file gives what the whole file gives, wherever it ends."""
    folder = tmp_path_factory.getbasetemp() / "cut_heads"
    path = folder / "one.dcm"
    if not path.exists():
        save(slice_dataset((ct()[0].astype(np.int32) + 1024).astype(np.uint16)), path)
    content = path.read_bytes()
    assert read_header(Head(path, content[:length], whole=False)) == read_header(read_head(path))


def test_a_deflated_header_is_read(tmp_path: Path) -> None:
    def deflate(index: int, ds: pydicom.Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    noise = np.random.default_rng(3).integers(-50, 50, (8, 256, 256)).astype(np.int16)
    noise[:, :40] = -1000
    write_series(tmp_path / "one", hu=noise, change=deflate)
    np.testing.assert_array_equal(read(tmp_path / "one").volume.array, noise)


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("preamble", [True, False])
def test_files_of_old_archives_without_a_meta_header_are_read(
    tmp_path: Path, implicit: bool, preamble: bool
) -> None:
    for file in write_series(tmp_path / "old"):
        ds = pydicom.dcmread(file)
        ds.file_meta = FileMetaDataset()
        pydicom.dcmwrite(file, ds, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
        start = b"\0" * 128 + b"DICM" if preamble else b""
        file.with_suffix("").write_bytes(start + file.read_bytes().removeprefix(b"\0" * 128 + b"DICM"))
        file.unlink()
    np.testing.assert_array_equal(read(tmp_path / "old").volume.array, ct())


@pytest.mark.parametrize(
    ("start", "scan", "expected"),
    [
        ("120000", "120025", Contrast.ARTERIAL),
        ("120000", "120110.5", Contrast.VENOUS),
        ("12:00:00", "120110", Contrast.VENOUS),
        ("120000", "115900", Contrast.PRESENT),
        ("120000", "140000", Contrast.PRESENT),
        ("120000", "", Contrast.PRESENT),
        ("noon", "120010", Contrast.PRESENT),
    ],
)
def test_the_time_since_the_injection_tells_the_phase(
    tmp_path: Path, start: str, scan: str, expected: Contrast
) -> None:
    tags: dict[str, Any] = {"ContrastBolusAgent": "X", "AcquisitionTime": scan}
    ds = slice_dataset(ct()[0].astype(np.uint16), **tags)
    ds.add_new("ContrastBolusStartTime", "LO", start)  # as it stands, valid or not
    (frame,) = read_header(read_head(save(ds, tmp_path / "x.dcm")))  # type: ignore[misc]
    assert contrast(frame.words) == expected


def test_the_description_counts_before_the_time() -> None:
    assert contrast(Words(description="neck venous", delay_seconds=20.0)) == Contrast.VENOUS
    assert contrast(Words(description="neck native", delay_seconds=70.0)) == Contrast.NONE


def test_a_search_loads_no_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in write_series(tmp_path / "one"):
        content = file.read_bytes()
        file.write_bytes(content[: content.index(b"\xe0\x7f\x10\x00") + 12])  # the header alone is there
    case = only(tmp_path / "one")
    assert case.file_count == 8
