"""Header values of the source that the standard does not allow: kept out of every object, and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from aiene.export.run import export_run
from aiene.ingest.case import Case
from aiene.ingest.dicom.header import quiet
from aiene.ingest.dicom.header_values import TYPE_2, headers_of, is_uid, value_of
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from builders.export_runs import says, small_grid, write_run, write_series

pytest.importorskip("highdicom", reason="the dicom extra is not installed")

EVERY = ["dicom-seg", "dicom-sr", "rtstruct", "secondary-capture"]


def item(**values: str) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def holding(**values: Any) -> Dataset:
    """A data set as it is read from a file that breaks the standard."""
    with quiet():
        return item(**values)


BAD: dict[str, list[Any]] = {
    "PatientName": ["x" * 65, "a^b^c^d^e^f", "a=b=c=d", "tab\there"],
    "PatientID": ["i" * 65, "two\\values", "bell\x07"],
    "PatientSex": ["male", "W", "m", "X"],
    "PatientBirthDate": ["1961.02.03", "19610230", "19611301", "19610203-", "1961", "19610203-19620203"],
    "StudyDate": ["20261399", "yesterday"],
    "StudyTime": ["25:99", "10:11:12", "240000", "1060", "101112-", "101112.1234567"],
    "AccessionNumber": ["a" * 17],
    "StudyID": ["s" * 17],
    "StudyDescription": ["y" * 65, "two\nlines"],
    "PatientAge": ["45", "045", "45Y", "0045Y", "045y"],
    "PatientWeight": ["70.123456789012345"],
    "SmokingStatus": ["sometimes", "MAYBE"],
    "PregnancyStatus": [9],
    "PatientComments": ["c" * 10241],
    "TimezoneOffsetFromUTC": ["x", "+9999", "0100"],
    "SpecificCharacterSet": ["latin1", "ISO_IR 999"],
    "ProcedureCodeSequence": [[item(CodeValue="1")], [item()]],
    "OtherPatientIDsSequence": [[item(PatientID="x")]],
    "IssuerOfAccessionNumberSequence": [[item()], [item(UniversalEntityID="1.2")]],
    "PatientIdentityRemoved": ["yes", "YES"],  # YES alone: without a method
    "ClinicalTrialProtocolID": ["P1"],  # alone
}

GOOD: dict[str, list[Any]] = {
    "PatientName": ["x" * 64, "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce", "a^b^c^d^e", ""],
    "PatientID": ["i" * 64, "A 1-2"],
    "PatientSex": ["M", "F", "O", ""],
    "PatientBirthDate": ["19610203", "20000229", ""],
    "StudyTime": ["10", "1011", "101112", "101112.123456", ""],
    "PatientAge": ["045Y", "003M", "010D"],
    "PatientWeight": ["70.5", "7E1", " 70 "],
    "PregnancyStatus": [4],
    "PatientComments": ["first line\r\nsecond"],
    "TimezoneOffsetFromUTC": ["+0530", "-1100"],
    "ProcedureCodeSequence": [[item(CodeValue="1", CodingSchemeDesignator="99X", CodeMeaning="CT")]],
    "OtherPatientIDsSequence": [[item(PatientID="x", TypeOfPatientID="TEXT")]],
}


@pytest.mark.parametrize(("keyword", "value"), [(k, v) for k, values in BAD.items() for v in values])
def test_what_the_standard_does_not_allow_is_refused(keyword: str, value: Any) -> None:
    source = holding(**{keyword: value})
    found = headers_of(source, [keyword])
    assert found.refused == (keyword,)
    assert not found.elements
    assert value_of(source, keyword) is None


@pytest.mark.parametrize("content", [b"70,5", b"heavy ", b"1.7.5 "])
def test_a_number_that_is_none_is_refused(content: bytes) -> None:
    source = Dataset()
    raw = RawDataElement(Tag("PatientWeight"), "DS", len(content), content, 0, False, True)
    source[raw.tag] = raw
    assert headers_of(source, ["PatientWeight"]).refused == ("PatientWeight",)


@pytest.mark.parametrize(("keyword", "value"), [(k, v) for k, values in GOOD.items() for v in values])
def test_what_the_standard_allows_is_taken_as_it_is(keyword: str, value: Any) -> None:
    source = holding(**{keyword: value, "SpecificCharacterSet": "ISO_IR 192"})
    found = headers_of(source, [keyword, "SpecificCharacterSet"])
    assert found.refused == ()
    assert found.elements[keyword] == source[keyword]
    assert not found.guessed_characters


def test_letters_without_a_character_set_get_latin_1_where_that_explains_them() -> None:
    found = headers_of(holding(PatientName="M\xfcller"), ["PatientName", "SpecificCharacterSet"])
    assert (found.guessed_characters, found.refused) == (True, ())
    assert found.elements["SpecificCharacterSet"].value == "ISO_IR 100"
    found = headers_of(holding(PatientName="\u5c71\u7530"), ["PatientName", "SpecificCharacterSet"])
    assert (found.guessed_characters, found.refused) == (False, ("PatientName",))


def test_an_attribute_goes_with_the_others_that_it_needs() -> None:
    keywords = ["PatientIdentityRemoved", "DeidentificationMethod"]
    whole = holding(PatientIdentityRemoved="YES", DeidentificationMethod="by hand")
    assert headers_of(whole, keywords).refused == ()
    trial = {"ClinicalTrialSponsorName": "S", "ClinicalTrialProtocolID": "P", "ClinicalTrialSubjectID": "7"}
    found = headers_of(holding(**trial), [*trial, "ClinicalTrialSiteID"])
    assert found.refused == ()
    assert found.elements["ClinicalTrialSiteID"].value == ""  # must be there, may be empty


@pytest.mark.parametrize(
    ("value", "good"),
    [
        *[("1.2.840.10008", True), ("0.1", True), ("1" * 64, True)],
        *[("1.02", False), ("1..2", False), ("1." * 32 + "1", False), ("", False), ("1.2 ", False)],
    ],
)
def test_uids(value: str, good: bool) -> None:
    assert is_uid(value) is good


def pairs() -> dict[str, dict[str, Any]]:
    """Headers that break the standard in every attribute of the list at once, so that few exports do."""
    depth = max(len(values) for values in BAD.values())
    made = {}
    for place in range(depth):
        made[f"{place}"] = {k: values[place] for k, values in BAD.items() if place < len(values)}
    made["characters"] = {"SpecificCharacterSet": None, "PatientName": "M\xfcller^J\xf6rg"}
    made["issue"] = {"StudyDate": None, "StudyDescription": "y" * 70, "PatientAge": "45", "PatientID": ""}
    made["issue"] |= {"PatientSex": "male", "StudyTime": "25:99"}
    made["others"] = {"PositionReferenceIndicator": "p" * 70, "BodyPartExamined": "head and neck"}
    made["others"] |= {"LossyImageCompression": "yes", "Occupation": "o" * 20, "MedicalAlerts": "m" * 70}
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", pairs())
def test_objects_stand_the_check_of_dicom3tools_whatever_the_source_says(tmp_path: Path, name: str) -> None:
    with quiet():
        write_series(tmp_path / "in", small_grid(), header=pairs()[name])
    run = write_run(tmp_path / "out", tmp_path / "in")
    (row,) = export_run(run.out, EVERY).rows
    assert row.status == "ok", row.reason
    if name != "others":  # what is not of the patient or the study is not told
        assert any(warning.startswith("source header: ") for warning in row.warnings)
    for file in row.files:
        said = says("dciodvfy", run.out / file)[1]
        assert "Error" not in said, (file, said)


@pytest.mark.slow
def test_what_is_kept_out_is_told_by_keyword_and_without_its_value(tmp_path: Path) -> None:
    header = {"PatientName": "SECRET" * 20, "PatientAge": "SECRET", "StudyTime": "25:99"}
    with quiet():
        write_series(tmp_path / "in", small_grid(), header=header)
    run = write_run(tmp_path / "out", tmp_path / "in")
    (row,) = export_run(run.out, EVERY).rows
    empty, out = row.warnings
    assert "PatientName, StudyTime" in empty
    assert "leave it empty" in empty
    assert "PatientAge" in out
    assert "leave it out" in out
    table = (run.out / "export.csv").read_text() + json.dumps(row.warnings)
    assert "SECRET" not in table
    assert empty in table
    for file in row.files:
        made = pydicom.dcmread(run.out / file)
        assert all(keyword in made for keyword in TYPE_2)
        assert (str(made.PatientName), made.StudyTime, "PatientAge" in made) == ("", "", False)
        assert made.PatientID == "ID-77"


@pytest.mark.slow
def test_a_run_notes_for_case_json_what_objects_will_leave_out(tmp_path: Path) -> None:
    with quiet():
        write_series(tmp_path / "in", small_grid(), header={"PatientAge": "45", "StudyTime": "25:99"})
    (case,), _ = find_cases(tmp_path / "in")
    assert isinstance(case, Case)
    empty, out = read_case(case).notes
    assert "StudyTime" in empty
    assert "PatientAge" in out
    assert "25:99" not in empty


@pytest.mark.slow
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID"])
def test_a_uid_that_is_malformed_is_repeated_and_told_and_what_is_no_uid_refused(
    tmp_path: Path, keyword: str
) -> None:
    for name, value in (("odd", "1.2.03.4"), ("none", "no uid")):
        with quiet():
            write_series(tmp_path / name, small_grid(), header={keyword: value})
        run = write_run(tmp_path / f"out-{name}", tmp_path / name)
        (row,) = export_run(run.out, EVERY).rows
        if name == "odd":
            assert row.status == "ok", row.reason
            assert f"{keyword}: no valid UID" in " ".join(row.warnings)
        else:
            assert row.status == "failed"
            assert "internal" not in row.reason
