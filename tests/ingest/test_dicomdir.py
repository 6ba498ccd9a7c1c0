"""The DICOMDIR of a disc: given as the input it stands for its files, and it never is an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from aiene.errors import InputError
from aiene.ingest.case import Case
from aiene.ingest.dicom.header import quiet
from aiene.ingest.discovery import read_directory
from aiene.ingest.find import find_cases, source_files
from aiene.ingest.read import read_case
from builders.dicom_files import ct, uid, write_nifti, write_series
from builders.dicom_stacks import only

EXTRA = {"StudyTime": "120000", "StudyID": "1", "AccessionNumber": ""}


def directory(path: Path, names: Sequence[str | list[str]]) -> Path:
    """A DICOMDIR that lists files, written by hand so that any name can stand in it."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    ds.file_meta.MediaStorageSOPInstanceUID = uid("directory")
    ds.FileSetID = "TEST"
    records = []
    patient = Dataset()
    patient.DirectoryRecordType, patient.PatientName = "PATIENT", "TEST^ONE"
    records.append(patient)
    for name in names:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        with quiet():  # not every name here is one that the standard allows
            record.ReferencedFileID = name
        records.append(record)
    ds.DirectoryRecordSequence = records
    path.parent.mkdir(parents=True, exist_ok=True)
    with quiet():
        ds.save_as(path, enforce_file_format=True)
    return path


def disc(folder: Path, **tags: object) -> Path:
    """A disc of eight slices called A/IM0 to A/IM7, and its DICOMDIR."""
    for k, file in enumerate(write_series(folder / "A", **tags)):  # type: ignore[arg-type]
        file.rename(file.with_name(f"IM{k}"))
    return directory(folder / "DICOMDIR", [["A", f"IM{k}"] for k in reversed(range(8))])


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir", "index.dat"])
def test_a_dicomdir_as_input_stands_for_the_files_that_it_lists(tmp_path: Path, name: str) -> None:
    path = disc(tmp_path / "disc.7").rename(tmp_path / "disc.7" / name)
    write_series(tmp_path / "disc.7" / "unlisted", patient="other")
    case = only(path)
    assert case.case_id == "A"
    assert case.warnings == ()
    np.testing.assert_array_equal(read_case(case).volume.array, ct())


def test_a_disc_made_by_pydicom_is_read_through_its_dicomdir(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(  # pydicom leaves its own to the garbage collector, which warns
        "pydicom.fileset.TemporaryDirectory",
        lambda: SimpleNamespace(name=str(tmp_path_factory.mktemp("stage")), cleanup=lambda: None),
    )
    files = FileSet()
    for patient in ("one", "two"):
        for file in reversed(write_series(tmp_path / "plain" / patient, patient=patient, **EXTRA)):  # type: ignore[arg-type]
            files.add(file)
    files.write(tmp_path / "disc")
    cases = find_cases(tmp_path / "disc" / "DICOMDIR")[0]
    assert [case.case_id for case in cases] == ["PT000000_ST000000", "PT000001_ST000000"]
    for case in cases:
        assert isinstance(case, Case)
        np.testing.assert_array_equal(read_case(case).volume.array, ct())


def test_names_in_other_letters_with_versions_and_slashes_are_found(tmp_path: Path) -> None:
    for k, file in enumerate(write_series(tmp_path / "disc" / "a")):
        file.rename(file.with_name(f"im{k}."))
    names = [
        "A/IM0.",
        "A\\IM1",
        ["A", "IM2;1"],
        ["a", "im3"],
        ["A", "Im4"],
        *(["A", f"IM{k}"] for k in (5, 6, 7)),
    ]
    case = only(directory(tmp_path / "disc" / "DICOMDIR", names))  # type: ignore[arg-type]
    assert case.file_count == 8


def test_a_name_that_climbs_out_of_the_disc_is_not_followed(tmp_path: Path) -> None:
    path = disc(tmp_path / "disc")
    write_series(tmp_path / "secret", patient="other")
    medium = read_directory(
        directory(path, [["A", "IM0"], ["..", "secret", "CT000.dcm"], "../secret/CT001.dcm"])
    )
    assert [file.name for file in medium.files] == ["IM0"]
    assert medium.missing == 0


def test_listed_files_that_are_not_there_are_warned_of(tmp_path: Path) -> None:
    path = disc(tmp_path / "disc")
    for k in (6, 7):
        (path.parent / "A" / f"IM{k}").unlink()
    words = "the DICOMDIR lists 2 files that are missing: the copy of the disc is incomplete"
    assert words in only(path).warnings
    assert words in only(tmp_path / "disc").warnings
    assert words in only(tmp_path).warnings


def test_a_dicomdir_whose_files_all_went_is_told(tmp_path: Path) -> None:
    path = directory(tmp_path / "DICOMDIR", [["A", "IM0"], ["A", "IM1"]])
    with pytest.raises(InputError, match="DICOMDIR: none of the 2 files that it lists exists"):
        find_cases(path)


def test_a_dicomdir_that_cannot_be_read_gives_way_to_its_folder(tmp_path: Path) -> None:
    path = disc(tmp_path / "disc")
    path.write_bytes(b"\0" * 128 + b"DICM\x02\0\0\0UL\x04\0")
    cases, notes = find_cases(path)
    assert [case.case_id for case in cases] == ["A"]
    assert any("every file in its folder was searched" in note for note in notes)
    assert only(tmp_path / "disc").file_count == 8


@pytest.mark.parametrize("name", ["DICOMDIR", "index.dat"])
def test_a_folder_of_a_dicomdir_alone_holds_no_image(tmp_path: Path, name: str) -> None:
    directory(tmp_path / "disc" / name, [["A", "IM0"]])
    with pytest.raises(InputError, match="it contains no image"):
        find_cases(tmp_path / "disc")


def test_a_dicomdir_does_not_stand_in_the_way_of_other_formats(tmp_path: Path) -> None:
    disc(tmp_path / "root" / "disc")
    write_nifti(tmp_path / "root" / "x.nii.gz", ct())
    assert [case.case_id for case in find_cases(tmp_path / "root")[0]] == ["x", "disc_A"]


def test_two_studies_on_a_disc_are_two_cases(tmp_path: Path) -> None:
    names: list[str | list[str]] = []
    for study in ("first", "second"):
        for k, file in enumerate(write_series(tmp_path / "disc" / study, study=study)):
            file.rename(file.with_name(f"IM{k}"))
            names.append([study, f"IM{k}"])
    cases = find_cases(directory(tmp_path / "disc" / "DICOMDIR", names))[0]
    assert [case.case_id for case in cases] == ["first", "second"]


def test_the_files_of_a_dicomdir_can_be_asked_for(tmp_path: Path) -> None:
    with source_files(disc(tmp_path / "disc")) as files:
        assert sorted(file.name for file in files) == [f"IM{k}" for k in range(8)]
