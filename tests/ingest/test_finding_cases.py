"""What a folder holds: case ids, order, formats, and everything that is no CT."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom.fileset import FileSet

from aiene.errors import InputError, said
from aiene.ingest.case import Case, Refusal
from aiene.ingest.case_id import case_id, distinct, safe
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from builders.dicom_files import ct, write_nifti, write_series
from builders.dicom_stacks import only


def ids(source: Path, **options: object) -> list[str]:
    return [case.case_id for case in find_cases(source, **options)[0]]  # type: ignore[arg-type]


def test_a_root_of_patients_gives_one_case_a_sub_folder_at_any_depth(tmp_path: Path) -> None:
    write_series(tmp_path / "b.second", patient="b")
    write_series(tmp_path / "a" / "study" / "series one", patient="a")
    assert ids(tmp_path) == ["a", "b.second"]


def test_dicom_files_in_the_source_itself_are_named_after_it(tmp_path: Path) -> None:
    write_series(tmp_path / "patient.7")
    assert ids(tmp_path / "patient.7") == ["patient.7"]


def test_formats_are_recognised_by_content_and_may_be_mixed(tmp_path: Path) -> None:
    write_series(tmp_path / "dicom_one")
    shutil.move(write_nifti(tmp_path / "x.nii", ct()), tmp_path / "scan.with.dots")
    write_nifti(tmp_path / "packed.nii.gz", ct())
    cases = find_cases(tmp_path)[0]
    assert [(c.case_id, c.kind) for c in cases if isinstance(c, Case)] == [
        ("packed", "nifti"),
        ("scan.with.dots", "nifti"),
        ("dicom_one", "dicom"),
    ]
    for case in cases:
        assert isinstance(case, Case)
        np.testing.assert_array_equal(read_case(case).volume.array, ct())


def test_dicom_without_preamble_is_recognised(tmp_path: Path) -> None:
    for file in write_series(tmp_path / "bare"):
        content = file.read_bytes()[132:]
        file.write_bytes(content)
    np.testing.assert_array_equal(read_case(only(tmp_path / "bare")).volume.array, ct())


def test_nii_comes_before_nii_gz_where_the_format_is_named(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii", "c.nii.gz", "d.nii"):
        write_nifti(tmp_path / name, ct())
    assert ids(tmp_path, format="nii") == ["b", "d", "a", "c"]
    assert ids(tmp_path, format="nii.gz") == ["b", "d", "a", "c"]
    assert ids(tmp_path) == ["a", "b", "c", "d"]


def test_the_whole_name_without_its_ending_is_the_id(tmp_path: Path) -> None:
    for name in ("p.one.nii.gz", "p.two.nii.gz", "p_2.nii"):
        write_nifti(tmp_path / name, ct())
    assert ids(tmp_path) == ["p.one", "p.two", "p_2"]


def test_the_channel_suffix_of_nnunet_is_no_part_of_the_id(tmp_path: Path) -> None:
    write_nifti(tmp_path / "pt_0000.nii.gz", ct())
    assert ids(tmp_path) == ["pt"]


def test_in_a_sub_folder_the_file_called_ct_is_the_case(tmp_path: Path) -> None:
    for patient in ("pt_1", "pt_2"):
        for name in ("ct.nii.gz", "mask.nii.gz"):
            write_nifti(tmp_path / patient / name, ct())
    cases, notes = find_cases(tmp_path)
    assert [c.case_id for c in cases] == ["pt_1", "pt_2"]
    assert "pt_1: used because it is called ct; left out: mask.nii.gz" in notes


def test_files_of_a_sub_folder_are_named_after_it_and_themselves_however_many(tmp_path: Path) -> None:
    for count, name in enumerate(("x.nii.gz", "y.nii.gz"), start=1):
        write_nifti(tmp_path / "all" / name, ct())
        assert ids(tmp_path) == ["all_x", "all_y"][:count]


def test_sub_folders_that_are_series_of_one_study_are_one_patient(tmp_path: Path) -> None:
    write_series(tmp_path / "patient" / "s1", series="thick", step=(0, 0, 4.0))
    write_series(tmp_path / "patient" / "s2", series="thin", step=(0, 0, 2.0))
    case = only(tmp_path / "patient")
    assert case.case_id == "patient"
    assert {file.parent.name for file in case.files} == {"s2"}


def test_sub_folders_with_copies_of_one_series_stay_two_cases(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_series(tmp_path / name)
    assert ids(tmp_path) == ["a", "b"]


def test_hidden_names_dicomdir_and_earlier_results_are_passed_over(tmp_path: Path) -> None:
    write_series(tmp_path / "one")
    write_series(tmp_path / ".trash")
    write_nifti(tmp_path / "._x.nii.gz", ct())
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    write_nifti(tmp_path / "out" / "cases" / "one" / "labels.nii.gz", ct())
    for name in ("run.json", "cases.csv"):
        (tmp_path / "out" / name).touch()
    cases, notes = find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["one"]
    assert "out: the results of an earlier run were skipped" in notes


def test_files_that_are_no_image_are_counted(tmp_path: Path) -> None:
    write_nifti(tmp_path / "one.nii.gz", ct())
    for name in ("readme.txt", "table.csv"):
        (tmp_path / name).write_text("words")
    _, notes = find_cases(tmp_path)
    assert "2 files left out: not an image" in notes


def test_a_symlink_loop_ends_and_a_link_to_data_is_followed(tmp_path: Path) -> None:
    write_series(tmp_path / "store" / "deep")
    root = tmp_path / "root"
    (root / "patient").mkdir(parents=True)
    (root / "patient" / "data").symlink_to(tmp_path / "store")
    (root / "patient" / "up").symlink_to(root)
    (root / "patient" / "self").symlink_to(root / "patient")
    (root / "circle").symlink_to(root / "circle")
    cases, notes = find_cases(root)
    assert [case.case_id for case in cases] == ["patient_deep"]
    assert sum("a link to a folder that was already searched" in note for note in notes) == 2


def test_a_dead_link_with_an_images_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gone.nii.gz").symlink_to(tmp_path / "nowhere")
    (case,) = find_cases(tmp_path)[0]
    assert isinstance(case, Refusal)
    assert case.reason.startswith("gone.nii.gz: it cannot be read")


@pytest.mark.parametrize("name", ["Müller Jörg", "患者 一", "nai\u0308ve'; rm x", "\U0001f9ea lab"])
def test_names_with_any_letters_and_blanks_work(tmp_path: Path, name: str) -> None:
    write_series(tmp_path / "root" / name)
    write_nifti(tmp_path / "root" / f"{name} file.nii.gz", ct())
    cases = find_cases(tmp_path / "root")[0]
    shown = unicodedata.normalize("NFC", name)
    assert [case.case_id for case in cases] == [f"{shown} file", shown]
    for case in cases:
        assert isinstance(case, Case)
        np.testing.assert_array_equal(read_case(case).volume.array, ct())


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"just words\n" * 50, "text.nii.gz", "contains no image"),
        (b"", "empty.nii", "contains no image"),
        (b"\x1f\x8b\x08\x00cut", "cut.nii.gz", "contains no image"),
        (b"PK\x03\x04zip", "zip.nrrd", "contains no image"),
    ],
)
def test_a_file_that_is_an_image_by_name_only_is_refused(
    tmp_path: Path, content: bytes, name: str, words: str
) -> None:
    write_nifti(tmp_path / "good.nii.gz", ct())
    (tmp_path / name).write_bytes(content)
    refused = [c for c in find_cases(tmp_path)[0] if isinstance(c, Refusal)]
    assert [c.case_id for c in refused] == [name.split(".")[0]]
    assert refused[0].reason.startswith(f"{name}: ")
    assert words in refused[0].reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_refused(tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "locked.nii.gz", ct())
    folder = tmp_path / "closed"
    folder.mkdir()
    file.chmod(0)
    folder.chmod(0)
    try:
        reasons = [c.reason for c in find_cases(tmp_path)[0] if isinstance(c, Refusal)]
    finally:
        file.chmod(0o600)
        folder.chmod(0o700)
    assert any("locked.nii.gz: it cannot be read" in reason for reason in reasons)
    assert any("closed: it cannot be opened" in reason for reason in reasons)


def test_files_that_fail_to_open_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without permissions, which root does not feel."""
    write_nifti(tmp_path / "locked.nii.gz", ct())
    write_nifti(tmp_path / "open.nii.gz", ct())
    really = Path.open

    def guarded(self: Path, *args: Any) -> object:
        if self.name.startswith("locked"):
            raise PermissionError(13, "Permission denied")
        return really(self, *args)

    monkeypatch.setattr(Path, "open", guarded)
    locked, fine = find_cases(tmp_path)[0]
    assert isinstance(locked, Refusal)
    assert locked.reason == (
        "locked.nii.gz: it cannot be read (Permission denied); copy the file again, or remove it."
    )
    assert isinstance(fine, Case)


def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it does not exist"):
        find_cases(tmp_path / "nowhere")


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it contains no image"):
        find_cases(tmp_path)


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(InputError, match="its only file is not an image"):
        find_cases(tmp_path)


@pytest.mark.parametrize("wanted", ["dicom", "nrrd"])
def test_another_format_than_asked_for_is_told(tmp_path: Path, wanted: str) -> None:
    write_nifti(tmp_path / "one.nii.gz", ct())
    with pytest.raises(InputError, match=f"no {wanted} image, but 1 of another format"):
        find_cases(tmp_path, format=wanted)  # type: ignore[arg-type]


def test_an_empty_patient_folder_among_others_is_noted(tmp_path: Path) -> None:
    write_series(tmp_path / "one")
    (tmp_path / "two").mkdir()
    _, notes = find_cases(tmp_path)
    assert "two: no image found" in notes


def test_a_single_file_is_a_case(tmp_path: Path) -> None:
    assert ids(write_nifti(tmp_path / "one.ct.nii.gz", ct())) == ["one.ct"]


def test_the_search_gives_the_same_on_each_call(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_series(tmp_path / name, patient=name)
    assert find_cases(tmp_path) == find_cases(tmp_path)


def test_ids_are_never_empty() -> None:
    hidden = Path("/data/in/.hidden.nii")
    assert case_id(hidden, hidden, is_file=True) == "hidden"
    for name in ("", "...", ". .", "\n"):
        assert safe(name)


def test_refusals_get_distinct_ids_too() -> None:
    found = distinct([Refusal("a", said("x"), source="p/a"), Refusal("a", said("y"), source="q/a")])
    assert len({item.case_id for item in found} | {"a"}) == 3
    assert all(item.case_id.startswith("a~") for item in found)


def test_a_broken_file_of_a_sub_folder_is_named_like_the_case_it_should_be(tmp_path: Path) -> None:
    write_nifti(tmp_path / "pt_1" / "ct.nii.gz", ct())
    (tmp_path / "pt_2").mkdir()
    (tmp_path / "pt_2" / "ct.nii.gz").write_text("words")
    write_nifti(tmp_path / "pt_2" / "mask.nii.gz", ct())
    good, bad = find_cases(tmp_path)[0]
    assert (good.case_id, bad.case_id) == ("pt_1", "pt_2")
    assert isinstance(bad, Refusal)


def test_a_slice_that_cannot_be_opened_is_told_though_its_name_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_series(tmp_path / "one")
    files[7].rename(files[7].with_name("IM7"))
    really = Path.open

    def guarded(self: Path, *args: Any) -> object:
        if self.name == "IM7":
            raise OSError(5, "Input/output error")
        return really(self, *args)

    monkeypatch.setattr(Path, "open", guarded)
    assert any("IM7 cannot be read" in warning for warning in only(tmp_path / "one").warnings)


@pytest.mark.parametrize("name", ["DICOMDIR", "index"])
def test_a_file_set_is_read_without_its_directory(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As on a disc from a hospital, made by pydicom; also where the directory file was renamed."""
    monkeypatch.setattr(  # pydicom leaves its own to the garbage collector, which warns
        "pydicom.fileset.TemporaryDirectory",
        lambda: SimpleNamespace(name=str(tmp_path_factory.mktemp("stage")), cleanup=lambda: None),
    )
    files = FileSet()
    for file in reversed(
        write_series(tmp_path / "plain", StudyTime="120000", StudyID="1", AccessionNumber="")
    ):
        files.add(file)
    files.write(tmp_path / "disc")
    (tmp_path / "disc" / "DICOMDIR").rename(tmp_path / "disc" / name)
    case = only(tmp_path / "disc")
    assert case.case_id == "PT000000_ST000000"
    assert case.warnings == ()
    np.testing.assert_array_equal(read_case(case).volume.array, ct())


def test_a_folder_that_cannot_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "one" / "a")
    write_series(tmp_path / "two")
    really = Path.iterdir

    def guarded(self: Path) -> object:
        if self.name == "one":
            raise PermissionError(13, "Permission denied")
        return really(self)

    monkeypatch.setattr(Path, "iterdir", guarded)
    closed, fine = find_cases(tmp_path)[0]
    told = said("one: it cannot be opened; check its permissions.")
    assert closed == Refusal("one", told, source="one", patient="one")
    assert isinstance(fine, Case)
    with pytest.raises(InputError, match="it cannot be opened"):
        find_cases(tmp_path / "one")


def test_results_of_an_earlier_run_deep_inside_are_passed_over(tmp_path: Path) -> None:
    write_series(tmp_path / "one" / "ct")
    write_nifti(tmp_path / "one" / "out" / "cases" / "labels.nii.gz", ct())
    for name in ("run.json", "cases.csv"):
        (tmp_path / "one" / "out" / name).touch()
    assert ids(tmp_path) == ["one"]
