"""Whose CT a case is: ids by rule, patients, and which of a patient's CTs counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import UsageError, said
from aiene.ingest.case import Case, Refusal, iso_date
from aiene.ingest.find import find_cases
from aiene.ingest.identity import date_in_id, group_by_patient, parse_id_rule, patient_of_id
from builders.dicom_files import ct, write_nifti, write_series


def case(name: str, **more: Any) -> Case:
    return Case(name, "nifti", (Path(name),), source=name, **more)


@pytest.mark.parametrize(
    ("case_id", "patient"),
    [
        ("PT1_2019-03-02", "PT1"),
        ("PT1_20190302", "PT1"),
        ("2019_03_02_PT1", "PT1"),
        ("siteA_PT1_2019.03.02", "siteA_PT1"),
        ("PT1_baseline", "PT1"),
        ("PT1_visit2", "PT1"),
        ("PT1-week-3", "PT1"),
        ("site_sub-01_ses-2", "site_sub-01"),
        ("sub-01", "sub-01"),
        # what tells nothing: an id, numbers that are no date, what might be dates of birth
        ("PT1", ""),
        ("HN_19600101", ""),
        ("20190302", ""),
        ("PT1_20191302", ""),
        ("HN-120190302", ""),
        ("PT1_revisit2", ""),
        ("Pfeiffer_week", ""),
    ],
)
def test_an_id_without_its_date_or_visit_is_the_patient(case_id: str, patient: str) -> None:
    assert patient_of_id(case_id) == patient


@settings(max_examples=30)
@given(st.text(max_size=40))
def test_no_id_is_too_odd(case_id: str) -> None:
    base = patient_of_id(case_id)
    assert base == "" or any(c.isdigit() for c in base)
    assert date_in_id(case_id) == "" or iso_date(date_in_id(case_id))


def test_dates_are_those_of_the_calendar() -> None:
    assert iso_date("20240229") == iso_date(" 2024-02-29 ") == "2024-02-29"
    assert [iso_date(bad) for bad in ("2023-02-29", "2024-2-9", "", "24-02-29", "2024-02-29T10")] == [""] * 5


def grouped(*items: Case | Refusal, timepoint: Any = "auto") -> dict[str, Case | Refusal]:
    return {item.case_id: item for item in group_by_patient(items, timepoint)}


def test_the_earliest_ct_counts_and_the_others_are_named() -> None:
    found = grouped(case("PT1_2020-01-01"), case("PT1_2019-01-01"), case("PT2_2018-01-01"), case("other"))
    assert {name: item.patient for name, item in found.items()} == {
        "PT1_2020-01-01": "PT1",
        "PT1_2019-01-01": "PT1",
        "PT2_2018-01-01": "PT2",
        "other": "other",
    }
    assert [name for name, item in found.items() if item.counts] == [
        "PT1_2019-01-01",
        "PT2_2018-01-01",
        "other",
    ]
    assert found["PT1_2019-01-01"].warnings == (  # type: ignore[union-attr]
        "the earliest of 2 CTs of one patient counts; the others: PT1_2020-01-01",
    )
    assert not found["PT1_2020-01-01"].warnings  # type: ignore[union-attr]
    last = grouped(case("PT1_2020-01-01"), case("PT1_2019-01-01"), timepoint="latest")
    assert last["PT1_2020-01-01"].counts
    assert not last["PT1_2019-01-01"].counts


@pytest.mark.parametrize(
    ("treatment", "timepoint", "counts"),
    [
        ("2019-06-01", "auto", "2019-03-01"),
        ("2019-03-01", "auto", "2019-03-01"),  # a planning CT on the first day
        ("2021-01-01", "auto", "2020-01-01"),
        ("2018-01-01", "auto", "2019-01-01"),  # all after it
        ("2019-06-01", "first", "2019-01-01"),
        ("2019-06-01", "latest", "2020-01-01"),
    ],
)
def test_the_latest_before_treatment(treatment: str, timepoint: str, counts: str) -> None:
    days = ("2019-01-01", "2020-01-01", "2019-03-01")
    found = grouped(
        *(case(day, patient="PT1", date=day, treatment=treatment) for day in days),
        timepoint=timepoint,
    )
    assert [name for name, item in found.items() if item.counts] == [counts]


def test_a_ct_that_cannot_be_read_does_not_stand_for_its_patient() -> None:
    broken = Refusal("PT1_2018-01-01", said("PT1: it is broken; mend it."))
    found = grouped(broken, case("PT1_2019-01-01"))
    assert found["PT1_2019-01-01"].counts
    assert not found["PT1_2018-01-01"].counts


def test_two_people_are_never_one(tmp_path: Path) -> None:
    """Of DICOM, PatientID tells them apart, whatever their folders are called."""
    write_series(tmp_path / "PT1_2019-01-01", patient="A", study="1", slices=4)
    write_series(tmp_path / "PT1_2020-01-01", patient="B", study="2", slices=4)
    found, _ = find_cases(tmp_path)
    assert len({item.patient for item in found}) == 2
    assert all(item.counts for item in found)


def test_one_person_in_differently_called_folders_is_one_patient(tmp_path: Path) -> None:
    write_series(tmp_path / "first", patient="A", study="1", slices=4)
    write_series(tmp_path / "later", patient="A", study="2", slices=4)
    found, _ = find_cases(tmp_path)
    assert {item.patient for item in found} == {"first"}
    assert [item.case_id for item in found if item.counts] == ["first"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for place in ("siteA/PT1/2019/ct", "siteA/PT2/2019/ct", "siteB/PT3/2020/ct"):
        (tmp_path / place).parent.mkdir(parents=True)
        write_nifti(tmp_path / f"{place}.nii.gz", ct())
    return tmp_path


def ids(source: Path, rule: str) -> dict[str, tuple[str, str]]:
    found, _ = find_cases(source, id_rule=parse_id_rule(rule))
    return {
        item.case_id: (item.patient, item.reason if isinstance(item, Refusal) else "run") for item in found
    }


def test_ids_from_a_folder_or_an_expression(tree: Path) -> None:
    by_folder = {"PT1": ("PT1", "run"), "PT2": ("PT2", "run"), "PT3": ("PT3", "run")}
    assert ids(tree, "folder:2") == ids(tree, "folder:-2") == ids(tree, r"PT\d") == by_folder
    named = ids(tree, r"(?P<case>(?P<patient>PT\d)/\d+)")
    assert [patient for patient, _ in named.values()] == ["PT1", "PT2", "PT3"]
    assert all(name.startswith("PT") and "_20" in name for name in named)


def test_what_a_rule_does_not_fit_is_a_row_with_its_reason(tree: Path) -> None:
    write_nifti(tree / "loose.nii.gz", ct())
    assert ids(tree, "folder:2")["loose"][1] == (
        "--id-from folder:2: it is in 0 folders below INPUT; use another rule, or an input list."
    )
    assert (
        ids(tree, r"PT\d")["loose"][1] == "--id-from finds nothing in loose.nii.gz; correct the expression."
    )
    assert "it is not a DICOM series" in ids(tree, "PatientID")["loose"][1]


def test_patient_ids_are_shown_only_where_they_are_asked_for(tmp_path: Path) -> None:
    write_series(tmp_path / "a", patient="SECRET7", study="1", slices=4)
    write_series(tmp_path / "b", patient="SECRET7", study="2", slices=4)
    runner = CliRunner()
    plain = runner.invoke(app, ["run", str(tmp_path), "--list", "--json"])
    assert "SECRET7" not in plain.output
    asked = runner.invoke(app, ["run", str(tmp_path), "--list", "--json", "--id-from", "PatientID"])
    rows = json.loads(asked.stdout)["cases"]
    assert {row["patient_id"] for row in rows} == {"TEST-SECRET7"}
    assert len({row["case_id"] for row in rows}) == 2
    assert sorted(row["counts"] for row in rows) == [False, True]


@pytest.mark.parametrize("words", ["folder:0", "(", "PT(\\d"])
def test_a_rule_that_is_none_is_told_at_once(words: str) -> None:
    with pytest.raises(UsageError, match="--id-from"):
        parse_id_rule(words)


def test_dates_tell_cases_of_one_id_apart_where_each_has_another() -> None:
    from aiene.ingest.identity import named_by_rule

    items = [
        replace(case(f"x/{day}"), source=f"PT1/{day}.nii", date=day) for day in ("2019-01-01", "2020-01-01")
    ]
    named = named_by_rule(items, parse_id_rule("folder:1"))
    assert [item.case_id for item in named] == ["PT1_2019-01-01", "PT1_2020-01-01"]
