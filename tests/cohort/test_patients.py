"""A run's patients: one row each in `patients.csv`, whichever CTs there are and whenever they came."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import aiene.case_worker
import aiene.cohort
from aiene.cohort import Selection, run_cohort
from aiene.deidentify import Key
from aiene.errors import UsageError
from aiene.geometry.grid import Grid, Volume
from aiene.results.nifti import write_nifti
from aiene.results.records import CaseArrays, CaseResult

GRID = Grid((6, 7, 8), (3.0, 2.0, 2.0), (0.0, 0.0, 0.0))
LABELS = Volume(np.zeros(GRID.size, np.uint8), GRID)
SECRET = Key(b"0123456789abcdefghij")


@pytest.fixture(autouse=True)
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the cases that were worked on, by a road without networks."""
    done: list[str] = []

    def infer_case(at: Any, networks: Any, settings: Any, *, labels: Any, midline_x: Any) -> Any:
        done.append(at.case.case_id)
        facts = {"input": {"kind": "nifti", "voxels_sha256": at.case.files[0].read_bytes().hex()[-64:]}}
        return CaseResult(at.case.case_id, "no_nodes", facts=facts), CaseArrays(LABELS, LABELS)

    monkeypatch.setattr(
        aiene.case_worker, "preprocess_case", lambda case, *_, **__: SimpleNamespace(case=case)
    )
    monkeypatch.setattr(aiene.cohort, "infer_case", infer_case)
    monkeypatch.setattr(aiene.case_worker, "load_preparation", lambda *_: SimpleNamespace(midline_x=0.0))
    monkeypatch.setattr(aiene.case_worker, "load_networks", lambda *_, **__: SimpleNamespace(segmenter=None))
    return done


def write_ct(file: Path, value: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(Volume(np.full(GRID.size, value, np.int16), GRID), file)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A patient with CTs of 2019 and 2021, and another."""
    for place, value in (("PT1/2019-05-01", 1), ("PT1/2021-05-01", 2), ("PT2", 3)):
        write_ct(tmp_path / "in" / place / "ct.nii", value)
    return tmp_path / "in"


def run(source: Path, out: Path, **more: Any) -> pd.DataFrame:
    run_cohort(source, out, device="cpu", jobs=1, **more)
    return pd.read_csv(out / "patients.csv", keep_default_na=False)


def test_a_patient_is_one_row_and_every_case_one_in_cases(source: Path, tmp_path: Path) -> None:
    patients = run(source, tmp_path / "out")
    columns = ["patient_id", "case_id", "ct_date", "other_cases"]
    assert patients[columns].to_numpy().tolist() == [
        ["PT1", "PT1_2019-05-01", "2019-05-01", "PT1_2021-05-01"],
        ["PT2", "PT2", "", ""],
    ]
    cases = pd.read_csv(tmp_path / "out" / "cases.csv")
    assert cases["counts"].tolist() == [True, False, True]
    assert cases["patient_id"].tolist() == ["PT1", "PT1", "PT2"]


@pytest.mark.slow
def test_a_ct_that_is_added_changes_which_counts_and_no_case_is_done_again(
    source: Path, tmp_path: Path, worked: list[str]
) -> None:
    run(source, tmp_path / "out")
    write_ct(source / "PT1" / "2018-05-01" / "ct.nii", 4)
    patients = run(source, tmp_path / "out")
    assert patients["case_id"].tolist() == ["PT1_2018-05-01", "PT2"]
    assert worked == ["PT1_2019-05-01", "PT1_2021-05-01", "PT2", "PT1_2018-05-01"]
    latest = run(source, tmp_path / "out", selection=Selection(timepoint="latest"))
    assert latest["case_id"].tolist() == ["PT1_2021-05-01", "PT2"]
    assert len(worked) == 4


def test_parts_agree_on_who_counts(source: Path, tmp_path: Path) -> None:
    for part in (1, 0):
        patients = run(source, tmp_path / "out", selection=Selection(num_parts=2, part_id=part))
    assert patients["case_id"].tolist() == ["PT1_2019-05-01", "PT2"]


def test_the_same_ct_under_two_names_is_told(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "PT2", source / "PT3")
    run(source, tmp_path / "out")
    cases = pd.read_csv(tmp_path / "out" / "cases.csv", index_col="case_id", keep_default_na=False)
    assert cases.loc["PT2", "warnings"] == "the same CT, voxel for voxel, is also the case PT3"
    assert "case PT2" in cases.loc["PT3", "warnings"]  # type: ignore[operator]
    assert "voxel" not in cases.loc["PT1_2019-05-01", "warnings"]  # type: ignore[operator]


def test_pseudonyms_keep_patients_together_and_hide_dates(source: Path, tmp_path: Path) -> None:
    patients = run(source, tmp_path / "out", key=SECRET)
    assert sorted(patients["patient_id"]) == sorted([SECRET.pseudonym("PT1"), SECRET.pseudonym("PT2")])
    text = "".join(file.read_text() for file in (tmp_path / "out").rglob("*.*s*") if file.suffix != ".gz")
    assert "PT1" not in text
    assert "2019" not in text
    row = patients.set_index("patient_id").loc[SECRET.pseudonym("PT1")]
    assert row["case_id"] == SECRET.pseudonym("PT1_2019-05-01")


def test_a_list_names_cases_patients_and_which_ct_was_before_treatment(source: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "case,patient,treatment,date,image\n"
        "early,Q1,2021-06-01,2019-05-01,in/PT1/2019-05-01/ct.nii\n"
        "late,Q1,2021-06-01,2021-05-01,in/PT1/2021-05-01/ct.nii\n"
        "gone,Q2,,,in/nowhere.nii\n"
    )
    patients = run(tmp_path / "list.csv", tmp_path / "out")
    assert patients[["patient_id", "case_id", "status"]].to_numpy().tolist() == [
        ["Q1", "late", "no_nodes"],
        ["Q2", "gone", "failed"],
    ]


def test_masks_in_the_list_and_in_a_folder_are_one_too_many(source: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image,mask\nin/PT2/ct.nii,in/PT1/2019-05-01/ct.nii\n")
    with pytest.raises(UsageError, match="leave one of them out"):
        run(tmp_path / "list.csv", tmp_path / "out", masks=source)


def test_results_may_not_lie_on_a_ct_of_the_list(source: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image\nin/PT2/ct.nii\n")
    with pytest.raises(UsageError):
        run(tmp_path / "list.csv", source)
    assert sorted(p.name for p in source.iterdir()) == ["PT1", "PT2"]
