"""Zip archives of a study: read as if they were folders, left as they are, and never trusted."""

from __future__ import annotations

import pickle
import stat
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from aiene.errors import InputError
from aiene.export.source_lookup import Images
from aiene.geometry.grid import Volume
from aiene.ingest import read as reading
from aiene.ingest.case import Case, Refusal
from aiene.ingest.find import find_cases, source_files
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.read import opened, read_case
from aiene.results.records import CaseResult
from builders.archives import pack
from builders.dicom_files import ct, write_nifti, write_series
from builders.dicom_stacks import only, refusal


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, empty at first."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize(("inner", "name"), [("", "pat_7.study"), ("a/deep/series", "pat_7.study_a_deep")])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_an_archive_is_read_like_the_folder_that_it_holds(
    tmp_path: Path, temporary: Path, inner: str, name: str, method: int
) -> None:
    write_series(tmp_path / "plain" / inner)
    packed = pack(tmp_path / "plain", tmp_path / "in" / "pat_7.study.zip", method)
    case = only(packed)
    assert case.case_id == name
    assert case.files == (packed,)
    assert case.file_count == 8
    assert list(temporary.iterdir()) == []
    found = read_case(case)
    np.testing.assert_array_equal(found.volume.array, ct())
    assert found.volume.grid.origin == (-20.0, -15.0, 100.0)
    assert list(temporary.iterdir()) == []
    assert sorted(p.name for p in (tmp_path / "in").iterdir()) == ["pat_7.study.zip"]


def test_the_ct_of_an_archive_is_found_again_by_its_content(tmp_path: Path) -> None:
    write_series(tmp_path / "plain")
    case = only(pack(tmp_path / "plain", tmp_path / "one.zip"))
    read = read_case(case)
    facts = {"input": {"sha256": read.source["sha256"]}, "native": read.volume.grid.facts}
    for case_id, by_content in ((case.case_id, False), ("another", True)):
        found = Images([case], by_content=by_content).ct(CaseResult(case_id, "ok", facts=facts))
        assert isinstance(found, Volume)
        np.testing.assert_array_equal(found.array, ct())
        assert found.grid == read.volume.grid


def test_the_record_hashes_the_slices_and_not_the_archive(tmp_path: Path) -> None:
    files = write_series(tmp_path / "plain")
    packed = pack(tmp_path / "plain", tmp_path / "one.zip")
    source = read_case(only(packed)).source
    assert source["sha256"] == content_sha256(files)
    assert source["files"] == 8
    assert source["archives"] == ["one.zip"]
    assert source["series_uid"] == only(tmp_path / "plain").series_uid


def test_a_case_of_an_archive_travels_to_another_process(tmp_path: Path) -> None:
    write_series(tmp_path / "plain")
    case = pickle.loads(pickle.dumps(only(pack(tmp_path / "plain", tmp_path / "one.zip"))))  # noqa: S301
    np.testing.assert_array_equal(read_case(case).volume.array, ct())


def test_archives_among_folders_are_cases_of_their_own_names(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_series(tmp_path / "plain" / name, patient=name)
    pack(tmp_path / "plain" / "a", tmp_path / "root" / "first.zip")
    pack(tmp_path / "plain" / "b", tmp_path / "root" / "hospital" / "SECOND.ZIP")
    write_series(tmp_path / "root" / "third", patient="c")
    cases = find_cases(tmp_path / "root")[0]
    assert [case.case_id for case in cases] == ["first", "hospital_SECOND", "third"]
    for case in cases:
        assert isinstance(case, Case)
        np.testing.assert_array_equal(read_case(case).volume.array, ct())


def test_only_the_chosen_series_is_unpacked_to_be_read(tmp_path: Path) -> None:
    write_series(tmp_path / "plain", series="thick", step=(0, 0, 4.0), prefix="K")
    write_series(tmp_path / "plain", series="thin", step=(0, 0, 2.0), prefix="N")
    case = only(pack(tmp_path / "plain", tmp_path / "one.zip"))
    with opened(case) as lying_open:
        (folder,) = {file.parent for file in lying_open.files}
        assert sorted(p.name for p in folder.iterdir()) == [f"N{k:03d}.dcm" for k in range(8)]
    assert not folder.exists()


def test_a_nifti_in_an_archive_is_named_after_both(tmp_path: Path) -> None:
    write_nifti(tmp_path / "plain" / "inner.nii.gz", ct())
    case = only(pack(tmp_path / "plain", tmp_path / "pat.zip"))
    assert (case.case_id, case.kind) == ("pat_inner", "nifti")
    np.testing.assert_array_equal(read_case(case).volume.array, ct())


def test_a_detached_header_in_an_archive_finds_its_voxels(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    image = sitk.GetImageFromArray(ct())
    sitk.WriteImage(image, str(tmp_path / "plain" / "ct.nhdr"))
    assert len(list((tmp_path / "plain").iterdir())) == 2
    case = only(pack(tmp_path / "plain", tmp_path / "pat.zip"))
    np.testing.assert_array_equal(read_case(case).volume.array, ct())


def test_two_studies_of_an_archive_are_two_cases(tmp_path: Path) -> None:
    for study in ("first", "second"):
        write_series(tmp_path / "plain" / study, study=study)
    assert [c.case_id for c in find_cases(pack(tmp_path / "plain", tmp_path / "pat.zip"))[0]] == [
        "pat_first",
        "pat_second",
    ]


def test_several_patients_of_an_archive_are_named_after_it_and_their_folders(tmp_path: Path) -> None:
    for patient in ("one", "two"):
        write_series(tmp_path / "plain" / patient / "s", patient=patient)
    cases, _ = find_cases(pack(tmp_path / "plain", tmp_path / "batch.zip"))
    assert [case.case_id for case in cases] == ["batch_one", "batch_two"]


def test_a_series_split_over_two_archives_is_joined(tmp_path: Path) -> None:
    write_series(tmp_path / "low", leave_out=[4, 5, 6, 7])
    write_series(tmp_path / "high", leave_out=[0, 1, 2, 3])
    for name in ("low", "high"):
        pack(tmp_path / name, tmp_path / "root" / f"{name}.zip")
    case = only(tmp_path / "root")
    assert [file.name for file in case.files] == ["high.zip", "low.zip"]
    np.testing.assert_array_equal(read_case(case).volume.array, ct())


def test_half_a_series_in_an_archive_and_half_beside_it_are_joined(tmp_path: Path) -> None:
    write_series(tmp_path / "low", leave_out=[4, 5, 6, 7])
    pack(tmp_path / "low", tmp_path / "root" / "low.zip")
    write_series(tmp_path / "root" / "high", leave_out=[0, 1, 2, 3])
    case = only(tmp_path / "root")
    assert case.file_count == 8
    np.testing.assert_array_equal(read_case(case).volume.array, ct())


def test_files_of_one_name_in_an_archive_all_count(tmp_path: Path) -> None:
    files = write_series(tmp_path / "plain")
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "same.zip", "w") as file:
        warnings.simplefilter("ignore")  # zipfile warns of what this test wants
        for path in files:
            file.write(path, "IM")
    np.testing.assert_array_equal(read_case(only(tmp_path / "same.zip")).volume.array, ct())


def test_names_of_macs_and_hidden_ones_do_not_count(tmp_path: Path) -> None:
    write_series(tmp_path / "plain" / "x")
    write_series(tmp_path / "plain" / "__MACOSX" / "x", hu=ct() + np.int16(1))
    write_series(tmp_path / "plain" / ".hidden", hu=ct() + np.int16(1))
    found = read_case(only(pack(tmp_path / "plain", tmp_path / "mac.zip")))
    np.testing.assert_array_equal(found.volume.array, ct())
    assert not any("twice" in warning for warning in found.warnings)


def with_name(name: str) -> Callable[[Path, Path], None]:
    def build(plain: Path, target: Path) -> None:
        with zipfile.ZipFile(target, "w") as file:
            for path in plain.iterdir():
                file.write(path, path.name)
            file.writestr(zipfile.ZipInfo(name), b"evil")

    return build


def flagged(plain: Path, target: Path) -> None:
    """Says of its members that they are encrypted."""
    pack(plain, target, zipfile.ZIP_STORED)
    content = bytearray(target.read_bytes())
    at = -1
    while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
        content[at + 8] |= 1
    at = -1
    while (at := content.find(b"PK\x03\x04", at + 1)) >= 0:
        content[at + 6] |= 1
    target.write_bytes(bytes(content))


def cut(plain: Path, target: Path) -> None:
    pack(plain, target)
    target.write_bytes(target.read_bytes()[:-200])


def garbled(plain: Path, target: Path) -> None:
    pack(plain, target, zipfile.ZIP_STORED)
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 0xFF
    target.write_bytes(bytes(content))


def unknown_method(plain: Path, target: Path) -> None:
    pack(plain, target, zipfile.ZIP_STORED)
    content = bytearray(target.read_bytes())
    at = content.find(b"PK\x01\x02")
    content[at + 10 : at + 12] = struct.pack("<H", 97)
    target.write_bytes(bytes(content))


def no_zip(plain: Path, target: Path) -> None:
    target.write_text("just words")


def empty(plain: Path, target: Path) -> None:
    target.write_bytes(b"")


BAD: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "climbs": (with_name("../../evil.dcm"), "leads out of the archive"),
    "climbs with backslashes": (with_name("..\\..\\evil.dcm"), "leads out of the archive"),
    "climbs in the middle": (with_name("a/../../evil"), "leads out of the archive"),
    "absolute": (with_name("/etc/evil"), "leads out of the archive"),
    "drive": (with_name("C:\\evil"), "leads out of the archive"),
    "encrypted": (flagged, "it is encrypted; unpack it with its password first"),
    "cut": (cut, "damaged or no zip archive"),
    "garbled": (garbled, "damaged or no zip archive"),
    "method": (unknown_method, "damaged or no zip archive"),
    "words": (no_zip, "damaged or no zip archive"),
    "empty": (empty, "damaged or no zip archive"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_archive_is_one_sentence_and_no_other_case_suffers(
    tmp_path: Path, temporary: Path, fault: str
) -> None:
    build, words = BAD[fault]
    write_series(tmp_path / "plain")
    (tmp_path / "root").mkdir()
    build(tmp_path / "plain", tmp_path / "root" / "bad.zip")
    write_series(tmp_path / "root" / "good", patient="two")
    before = sorted(tmp_path.rglob("*"))
    bad, good = find_cases(tmp_path / "root")[0]
    assert isinstance(bad, Refusal)
    assert bad.case_id == "bad"
    assert bad.reason.startswith("bad.zip: ")
    assert words in bad.reason
    assert isinstance(good, Case)
    assert list(temporary.iterdir()) == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_trap_that_would_fill_the_disk_is_refused_before_anything_is_written(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(20_000_000))
    monkeypatch.setattr(reading, "_SMALL", 1_000_000)
    monkeypatch.setattr(reading, "_unpack", None)
    assert "would expand" in refusal(tmp_path / "bomb.zip")


def test_an_archive_larger_than_the_room_is_refused_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "plain")
    packed = pack(tmp_path / "plain", tmp_path / "big.zip")
    monkeypatch.setattr(reading, "_SPARE", 1 << 60)
    assert "GiB, and 0.00 GiB are free; free space" in refusal(packed)


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "plain")
    packed = pack(tmp_path / "plain", tmp_path / "many.zip")
    monkeypatch.setattr(reading, "MAX_MEMBERS", 7)
    assert "it holds 8 files" in refusal(packed)


def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "plain")
    packed = pack(tmp_path / "plain", tmp_path / "one.zip")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reading, "_unpack", full)
    assert "cannot be unpacked (No space left on device)" in refusal(packed)


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    write_series(tmp_path / "plain")
    packed = pack(tmp_path / "plain", tmp_path / "link.zip")
    info = zipfile.ZipInfo("out")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(packed, "a") as file:
        file.writestr(info, "/etc/passwd")
    case = only(packed)
    assert case.file_count == 8
    with source_files(packed) as files:
        assert len(files) == 8
        assert not any(file.is_symlink() for file in files)


def test_an_archive_within_an_archive_is_noted_and_not_opened(tmp_path: Path) -> None:
    write_series(tmp_path / "plain")
    inner = pack(tmp_path / "plain", tmp_path / "plain" / "inner.zip")
    _, notes = find_cases(pack(inner.parent, tmp_path / "outer.zip"))
    assert "inner.zip: a zip archive within outer.zip was not opened" in notes


@pytest.mark.parametrize("name", ["x.tar.gz", "x.TGZ", "x.7z", "x.rar", "x.tar"])
def test_an_archive_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    write_series(tmp_path / "one")
    (tmp_path / name).write_bytes(b"\x1f\x8b packed")
    _, notes = find_cases(tmp_path)
    assert f"{name}: an archive of this kind is not opened; unpack it" in notes
    with pytest.raises(InputError, match="is not opened; unpack it, or make a zip of it"):
        find_cases(tmp_path / name)


@pytest.mark.parametrize("name", ["Müller Jörg", "患者 一", 'a\'b "c"'])
def test_names_of_any_letters_in_an_archive_work(tmp_path: Path, name: str) -> None:
    write_series(tmp_path / "plain" / name)
    np.testing.assert_array_equal(
        read_case(only(pack(tmp_path / "plain", tmp_path / f"{name}.zip"))).volume.array, ct()
    )


def test_an_archive_without_an_image_is_noted_beside_others(tmp_path: Path) -> None:
    write_series(tmp_path / "root" / "one")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("words")
    pack(tmp_path / "words", tmp_path / "root" / "words.zip")
    cases, notes = find_cases(tmp_path / "root")
    assert [case.case_id for case in cases] == ["one"]
    assert "words.zip: no image found" in notes
    with pytest.raises(InputError, match=r"words\.zip: its only file is not an image"):
        find_cases(tmp_path / "root" / "words.zip")


def test_an_archive_that_went_or_changed_after_the_search_is_told(tmp_path: Path) -> None:
    write_series(tmp_path / "plain")
    packed = pack(tmp_path / "plain", tmp_path / "one.zip")
    case = only(packed)
    (tmp_path / "plain" / "CT003.dcm").unlink()
    pack(tmp_path / "plain", packed)
    with pytest.raises(InputError, match=r"CT003\.dcm: it no longer exists"):
        read_case(case)
    packed.unlink()
    with pytest.raises(InputError, match=r"one\.zip: "):
        read_case(case)


def test_an_archive_by_content_needs_no_ending_where_it_is_the_input(tmp_path: Path) -> None:
    write_series(tmp_path / "plain")
    packed = pack(tmp_path / "plain", tmp_path / "download")
    assert only(packed).case_id == "download"
    np.testing.assert_array_equal(read_case(only(packed)).volume.array, ct())


def test_the_files_of_an_input_can_be_asked_for(tmp_path: Path) -> None:
    write_series(tmp_path / "root" / "one")
    write_series(tmp_path / "plain", patient="two")
    pack(tmp_path / "plain", tmp_path / "root" / "two.zip")
    (tmp_path / "root" / "bad.zip").write_text("words")
    with source_files(tmp_path / "root") as files:
        assert len(files) == 16
        assert all(file.is_file() for file in files)
    assert sum(file.exists() for file in files) == 8
    with pytest.raises(InputError), source_files(tmp_path / "root" / "bad.zip"):
        pass
    with pytest.raises(InputError), source_files(tmp_path / "nowhere"):
        pass


def test_messages_of_an_archive_name_it_and_no_temporary_folder(tmp_path: Path, temporary: Path) -> None:
    write_series(tmp_path / "plain", leave_out=[4])
    text = refusal(pack(tmp_path / "plain", tmp_path / "gap.zip"))
    assert text.startswith("gap.zip: 1 slice is missing within z = 109.0 to 115.0 mm")
    write_series(tmp_path / "odd", RescaleSlope=None)
    text = refusal(pack(tmp_path / "odd", tmp_path / "odd.zip"))
    assert text.startswith("CT000.dcm: it has no rescale slope")
