"""Source series that cannot be told apart, or contradict themselves: said before anything is made."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest

from aiene.export.run import export_run
from builders.export_runs import small_grid, write_run, write_series

KINDS = ("dicom-seg", "dicom-sr", "rtstruct")


def rewrite(folder: Path, keyword: str, values: list[str]) -> None:
    for number, file in enumerate(sorted(folder.glob("*.dcm"))):
        dataset = pydicom.dcmread(file)
        setattr(dataset, keyword, values[number % len(values)])
        dataset.save_as(file, enforce_file_format=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_images_of_one_uid_cannot_be_referred_to(tmp_path: Path, kind: str) -> None:
    write_series(tmp_path / "in", small_grid())
    rewrite(tmp_path / "in", "SOPInstanceUID", ["1.2.3", "1.2.4"])
    run = write_run(tmp_path / "out", tmp_path / "in")
    (row,) = export_run(run.out, [kind]).rows
    assert row.status == "failed"
    assert "24 source images have 2 different image UIDs" in row.reason
    assert not row.files


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_source_without_a_study_uid_is_refused_by_each_kind(tmp_path: Path, kind: str) -> None:
    write_series(tmp_path / "in", small_grid(), header={"StudyInstanceUID": None})
    run = write_run(tmp_path / "out", tmp_path / "in")
    (row,) = export_run(run.out, [kind]).rows
    assert row.status == "failed"
    assert "no study UID" in row.reason


@pytest.mark.parametrize(
    ("keyword", "values", "said"),
    [
        ("FrameOfReferenceUID", ["1.2.3", "1.2.4"], "2 frames of reference"),
        ("PatientName", ["SECRET^A", "SECRET^B", "SECRET^C"], "3 patient names"),
    ],
)
@pytest.mark.slow
def test_images_that_contradict_each_other_are_warned_of_without_a_name(
    tmp_path: Path, keyword: str, values: list[str], said: str
) -> None:
    write_series(tmp_path / "in", small_grid())
    rewrite(tmp_path / "in", keyword, values)
    run = write_run(tmp_path / "out", tmp_path / "in")
    (row,) = export_run(run.out, ["dicom-seg"]).rows
    assert row.status == "ok", row.reason
    (warning,) = row.warnings
    assert said in warning
    assert "SECRET" not in warning


@pytest.mark.slow
def test_a_pseudonymised_record_does_not_claim_that_the_source_is_gone(tmp_path: Path) -> None:
    write_series(tmp_path / "in", small_grid())
    run = write_run(tmp_path / "out", tmp_path / "in")
    record = json.loads((run.out / "run.json").read_text(encoding="utf-8"))
    record["settings"]["pseudonyms"] = "HMAC-SHA256"
    (run.out / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (row,) = export_run(run.out, ["dicom-seg"]).rows
    assert row.status == "failed"
    assert "does not record where its source series are; name their folder with --source-dicom" in row.reason
    assert export_run(run.out, ["dicom-seg"], source_dicom=tmp_path / "in").exit_code == 0
