"""What belongs together: series in several folders, several studies, several patients, and their names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from aiene.ingest.case import Case, Refusal
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from builders.dicom_files import ct, save, uid, write_series
from builders.dicom_stacks import only
from builders.dicom_studies import other as other_object
from builders.dicom_studies import small, structure_set

LOW: dict[str, Any] = {"leave_out": [4, 5, 6, 7]}
HIGH: dict[str, Any] = {"leave_out": [0, 1, 2, 3]}


def ids(source: Path) -> list[str]:
    return [case.case_id for case in find_cases(source)[0]]


def same(case: Case | Refusal, hu: np.ndarray | None = None) -> None:
    assert isinstance(case, Case), case.reason
    np.testing.assert_array_equal(read_case(case).volume.array, ct() if hu is None else hu)


@pytest.mark.parametrize(
    ("low", "high", "source", "name"),
    [
        ("pat/s1", "pat/s2", "pat", "pat"),  # halves side by side, the patient is the input
        ("pat/s1", "pat/s2", "", "pat"),  # the patient is a sub-folder
        ("pat/a/b/c", "pat/d", "pat", "pat"),  # at different depths
        ("pat", "pat/more", "pat", "pat"),  # one half in the input itself
        ("pat/x/1", "pat/x/2/3", "", "pat_x"),
    ],
)
@pytest.mark.parametrize("parts", [(LOW, HIGH), ({"leave_out": [0, 2, 4, 6]}, {"leave_out": [1, 3, 5, 7]})])
def test_a_series_split_over_two_folders_is_one_case(
    tmp_path: Path, low: str, high: str, source: str, name: str, parts: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    write_series(tmp_path / low, **parts[0])
    write_series(tmp_path / high, **parts[1])
    case = only(tmp_path / source)
    assert case.case_id == name
    same(case)
    assert any(note.startswith("its slices are in 2 folders: ") for note in case.notes)


def test_halves_in_sibling_folders_among_other_patients_are_joined(tmp_path: Path) -> None:
    write_series(tmp_path / "a" / "deep" / "s1", **LOW)
    write_series(tmp_path / "b" / "s2", **HIGH)
    write_series(tmp_path / "c", patient="two")
    cases, notes = find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["a_deep", "c"]
    same(cases[0])
    assert "b: its part of a series was joined with that of a" in notes
    assert "b: no image found" not in notes


def test_what_lies_beside_a_moved_half_moves_with_it_if_it_is_of_the_same_study(tmp_path: Path) -> None:
    write_series(tmp_path / "a", **LOW)
    write_series(tmp_path / "b", **HIGH)
    save(other_object(structure_set), tmp_path / "b" / "rs.dcm")
    write_series(tmp_path / "b" / "else", patient="two")
    first, second = find_cases(tmp_path)[0]
    same(first)
    assert isinstance(first, Case)
    assert "left out: 1 x RTSTRUCT" in first.notes
    assert second.case_id == "b_else"
    same(second)


def test_two_series_that_were_split_alike_come_together_once(tmp_path: Path) -> None:
    for folder, part in (("a", LOW), ("b", HIGH)):
        for series, kernel in (("soft", "B31f"), ("bone", "B70s")):
            write_series(tmp_path / folder / series, series=series, ConvolutionKernel=kernel, **part)
    write_series(tmp_path / "c", patient="two")
    cases, notes = find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["a", "c"]
    same(cases[0])
    assert isinstance(cases[0], Case)
    assert [aside.why for aside in cases[0].aside] == ["bone or lung kernel"]
    assert sum(note == "b: its part of a series was joined with that of a" for note in notes) == 1


def test_halves_of_two_patients_are_never_joined_though_their_uids_agree(tmp_path: Path) -> None:
    for patient, part in (("one", LOW), ("two", HIGH)):
        write_series(
            tmp_path / patient,
            patient=patient,
            StudyInstanceUID=uid("shared study"),
            SeriesInstanceUID=uid("shared"),
            FrameOfReferenceUID=uid("shared frame"),
            **part,
        )
    cases, _ = find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["one", "two"]
    for case in cases:
        assert isinstance(case, Case)
        assert case.file_count == 4


@pytest.mark.parametrize("name", [("DOE^ANNA", "DOE^BERTA"), ("DOE^ANNA", "")])
def test_without_patient_ids_the_names_keep_patients_apart(tmp_path: Path, name: tuple[str, str]) -> None:
    shared: dict[str, Any] = {
        "SeriesInstanceUID": uid("s"),
        "StudyInstanceUID": uid("t"),
        "FrameOfReferenceUID": uid("f"),
    }
    write_series(tmp_path / "pat", PatientID=None, PatientName=name[0], prefix="a", **shared, **LOW)
    write_series(tmp_path / "pat", PatientID=None, PatientName=name[1], prefix="b", **shared, **HIGH)
    assert len(find_cases(tmp_path)[0]) == 2


def test_a_name_spelled_otherwise_is_the_same_patient(tmp_path: Path) -> None:
    def spelled(index: int, ds: Dataset) -> None:
        ds.PatientID, ds.PatientName = "", "TEST^ONE" if index % 2 else "Test^One^^"

    write_series(tmp_path / "pat", change=spelled)
    same(only(tmp_path / "pat"))


def test_copies_of_a_series_stay_cases_of_their_own(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    cases, _ = find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["a", "b"]
    for case, other in zip(cases, "ba", strict=True):
        assert isinstance(case, Case)
        assert case.warnings[0] == f"the same series is also the case {other}: a duplicate"
    assert [case.counts for case in cases] == [True, False]


def test_a_part_beside_the_whole_is_not_joined_and_told(tmp_path: Path) -> None:
    write_series(tmp_path / "part", **LOW)
    write_series(tmp_path / "whole")
    part, whole = find_cases(tmp_path)[0]
    assert isinstance(part, Case)
    assert part.file_count == 4
    assert any("another part of one of its series is in another folder" in w for w in part.warnings)
    same(whole)


def test_parts_that_leave_a_gap_are_not_joined_and_told(tmp_path: Path) -> None:
    write_series(tmp_path / "low", slices=12, leave_out=range(4, 12))
    write_series(tmp_path / "high", slices=12, leave_out=range(7))
    cases, _ = find_cases(tmp_path)
    assert len(cases) == 2
    for case in cases:
        assert isinstance(case, Case)
        assert any("does not fit: the CT may be incomplete" in warning for warning in case.warnings)


def test_parts_that_show_different_images_at_one_place_are_not_joined(tmp_path: Path) -> None:
    write_series(tmp_path / "a", leave_out=[5, 6, 7])
    write_series(
        tmp_path / "b", leave_out=[0, 1, 2], change=lambda i, ds: setattr(ds, "SOPInstanceUID", f"1.2.{i}")
    )
    cases, _ = find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["a", "b"]
    assert all(isinstance(case, Case) and case.file_count == 5 for case in cases)


def test_parts_that_overlap_in_the_same_images_are_joined(tmp_path: Path) -> None:
    write_series(tmp_path / "a", leave_out=[5, 6, 7])
    write_series(tmp_path / "b", leave_out=[0, 1, 2])
    case = only(tmp_path)
    found = read_case(case)
    np.testing.assert_array_equal(found.volume.array, ct())
    assert "2 slices are duplicated with the same pixels: one of each was kept" in found.warnings


def test_a_series_without_a_uid_is_never_joined(tmp_path: Path) -> None:
    for name, part in (("a", LOW), ("b", HIGH)):
        write_series(tmp_path / name, SeriesInstanceUID=None, **part)
    write_series(tmp_path / "c", patient="two")
    assert ids(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (("first", "second"), ["pat_first", "pat_second"]),
        (("", ""), ["pat~yn09t1", "pat~nxs348"]),
        (("x/first", "x/second"), ["pat_x_first", "pat_x_second"]),
    ],
)
def test_two_studies_of_a_patient_are_two_cases(
    tmp_path: Path, layout: tuple[str, str], names: list[str]
) -> None:
    for study, folder, grey in (("first", layout[0], 0), ("second", layout[1], 1)):
        write_series(
            tmp_path / "root" / "pat" / folder,
            study=study,
            prefix=study,
            StudyDate="20250101" if study == "first" else "20260101",
            hu=ct() + np.int16(grey),
        )
    cases, _ = find_cases(tmp_path / "root")
    assert [case.case_id for case in cases] == names
    same(cases[0])
    same(cases[1], ct() + np.int16(1))


def test_sub_folders_that_are_two_studies_keep_their_names(tmp_path: Path) -> None:
    for study in ("baseline", "follow_up"):
        write_series(tmp_path / "pat" / study, study=study)
    assert ids(tmp_path / "pat") == ["baseline", "follow_up"]


def test_dates_do_not_part_a_study(tmp_path: Path) -> None:
    def dated(index: int, ds: Dataset) -> None:
        ds.StudyDate = ("20260101", "", "20260102")[index % 3]

    write_series(tmp_path / "pat", change=dated)
    same(only(tmp_path / "pat"))


def test_studies_without_a_uid_are_told_apart_by_date(tmp_path: Path) -> None:
    for date in ("20250101", "20260101"):
        write_series(tmp_path / "pat", study=date, StudyDate=date, StudyInstanceUID=None, prefix=date)
    first, second = ids(tmp_path / "pat")
    assert first != second
    assert first.startswith("pat~")


def test_patients_in_folders_of_their_own_below_one_folder_are_named_after_these(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        for study in ("s1", "s2"):
            write_series(tmp_path / "site" / patient / study / "series", patient=patient, study=study)
    assert sorted(ids(tmp_path)) == ["site_p1_s1", "site_p1_s2", "site_p2_s1", "site_p2_s2"]


def test_a_patient_takes_its_whole_path_without_the_words_that_say_nothing(tmp_path: Path) -> None:
    for count, patient in enumerate(("p1", "p2"), start=1):
        write_series(tmp_path / "site" / "ward" / patient / "study" / "series", patient=patient)
        assert ids(tmp_path) == ["site_ward_p1", "site_ward_p2"][:count]


def test_patients_that_share_a_folder_are_told_apart_by_a_hash_of_their_study(tmp_path: Path) -> None:
    write_series(tmp_path / "site" / "mixed", patient="one", prefix="a")
    write_series(tmp_path / "site" / "mixed", patient="two", prefix="b")
    write_series(tmp_path / "site" / "own", patient="three")
    mixed = set(ids(tmp_path)) - {"site_own"}
    assert len(mixed) == 2
    assert all(name.startswith("site_mixed~") for name in mixed)


@pytest.mark.parametrize("what", ["ImageType", "FrameOfReferenceUID"])
def test_slices_that_are_called_otherwise_but_fit_one_stack_are_taken_together(
    tmp_path: Path, what: str
) -> None:
    """Every second slice left out would be a stack of twice the spacing."""
    values = {
        "ImageType": (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "PRIMARY", "AXIAL"]),
        "FrameOfReferenceUID": ("1.2.3", "1.2.4"),
    }[what]
    write_series(tmp_path / "mixed", change=lambda index, ds: setattr(ds, what, values[index % 2]))
    case = only(tmp_path / "mixed")
    same(case)
    assert any("fit one stack: taken together" in warning for warning in case.warnings)


def test_two_reconstructions_under_one_series_uid_stay_apart(tmp_path: Path) -> None:
    write_series(tmp_path / "two", prefix="a", hu=small(20))
    write_series(
        tmp_path / "two", prefix="b", hu=small(20), name="b", ImageType=["DERIVED", "PRIMARY", "AXIAL"]
    )
    case = only(tmp_path / "two")
    assert case.file_count == 20
    assert all(file.name.startswith("a") for file in case.files)


def test_a_slice_that_cannot_be_read_is_named_where_its_absence_refuses_the_case(tmp_path: Path) -> None:
    files = write_series(tmp_path / "one")
    files[4].write_bytes(files[4].read_bytes()[:700])
    (case,) = find_cases(tmp_path)[0]
    assert isinstance(case, Refusal)
    assert "1 slice is missing within z = 109.0 to 115.0 mm" in case.reason
    assert "and the file CT004.dcm cannot be read and was left out; export" in case.reason


def test_an_empty_file_without_an_ending_is_a_damaged_slice(tmp_path: Path) -> None:
    write_series(tmp_path / "one")
    (tmp_path / "one" / "IM8").touch()
    (tmp_path / "one" / "notes.txt").touch()
    assert only(tmp_path / "one").warnings == ("the file IM8 cannot be read and was left out",)
