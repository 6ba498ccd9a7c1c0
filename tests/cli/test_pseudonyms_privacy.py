"""Whose CT it was stands in no byte of a pseudonymised run, and patient data in none of any run."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pydicom
import pytest
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.deidentify import read_key
from aiene.export.run import export_run
from aiene.phantom.phantom import PhantomSettings, make_phantom, write_dicom_series
from aiene.results.nifti import write_nifti

pytestmark = pytest.mark.slow

SMALL = PhantomSettings(size=(70, 120, 120), spacing=(4.0, 2.2, 2.2), nodes=(2, 3), tilt_degrees=2.0)
IN_THE_HEADER = ("Tell^Tale", "ID-7788", "19330407", "Gandalf", "ACC-5566", "Frodo Neck", "St Mungo")
PATIENT = "Bilbo_Baggins_1_his neck (Shelob)"
BY_NAME = ("Bilbo", "Baggins", "Gollum", "Sauron", "Merry", "Rosie", "Pippin", "Shelob")


@dataclass(frozen=True)
class Cohort:
    """An input where everything tells a name."""

    root: Path
    masks: Path
    key: Path
    uids: tuple[str, ...]


@dataclass(frozen=True)
class Ran:
    """A run that has ended."""

    out: Path
    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """A patient as DICOM, one as NIfTI, a broken file, a note, an empty folder, and own masks."""
    top = tmp_path_factory.mktemp("hospital")
    root, masks, key = top / "ct of Pippin", top / "masks_Rosie", top / "key.bin"
    folder = root / "Bilbo_Baggins_1" / "his neck (Shelob)"
    phantom = make_phantom(910_001, SMALL)
    for number, file in enumerate(write_dicom_series(phantom.ct, folder, name="Tell^Tale")):
        ds = pydicom.dcmread(file)
        ds.PatientID, ds.PatientBirthDate, ds.AccessionNumber = "ID-7788", "19330407", "ACC-5566"
        ds.ReferringPhysicianName, ds.InstitutionName = "Gandalf^Grey", "St Mungo"
        ds.SeriesDescription, ds.StudyDescription = "Frodo Neck", "Frodo Neck"
        ds.save_as(file.with_name(f"Bilbo{number:03d}.dcm"), enforce_file_format=True)
        file.unlink()
    other = make_phantom(910_002, SMALL)
    write_nifti(other.ct, root / "Sauron.nii.gz")
    (root / "Gollum.nii.gz").write_text("no image")
    (root / "Merry").mkdir()
    (root / "Merry" / "Merry.txt").write_text("a note")
    masks.mkdir()
    write_nifti(phantom.labels, masks / f"{PATIENT}.nii.gz")
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    uids = tuple(str(ds[k].value) for k in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"))
    return Cohort(root, masks, key, uids)


def words_of(cohort: Cohort, out: Path) -> list[str]:
    masks = ["--masks", str(cohort.masks), "--keep-prepared"]
    return ["run", str(cohort.root), "-o", str(out), "--device", "cpu", "--jobs", "1", "--json", *masks]


def run(cohort: Cohort, out: Path, *words: str) -> Ran:
    done = CliRunner().invoke(app, [*words_of(cohort, out), *words])
    return Ran(out, done.exit_code, done.stdout, done.stderr)


def run_in_a_process(cohort: Cohort, out: Path, *words: str) -> Ran:
    """What C++ libraries say counts too."""
    line = [sys.executable, "-m", "aiene", *words_of(cohort, out), *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return Ran(out, done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def hidden(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A pseudonymised run that also writes DICOM objects."""
    out = tmp_path_factory.mktemp("hidden") / "out"
    return run_in_a_process(cohort, out, "--dicom-out", "--pseudonymise", str(cohort.key))


@pytest.fixture(scope="module")
def plain(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The same with true names, and one kind of object."""
    return run(cohort, tmp_path_factory.mktemp("plain") / "out", "--to", "rtstruct,secondary-capture")


def places(ran: Ran, *, dicom: bool = False) -> Iterator[tuple[str, bytes]]:
    """Everything that a run wrote or said, unpacked, lower case."""
    yield "stdout", ran.stdout.lower().encode()
    yield "stderr", ran.stderr.lower().encode()
    for file in ran.out.rglob("*"):
        name = str(file.relative_to(ran.out))
        yield f"the name of {name}", name.lower().encode()
        if not file.is_file() or (file.suffix == ".dcm") != dicom:
            continue
        content = file.read_bytes()
        yield name, (gzip.decompress(content) if file.suffix == ".gz" else content).lower()


def test_no_byte_of_a_pseudonymised_run_tells_whose_it_is(hidden: Ran, cohort: Cohort) -> None:
    assert hidden.code == 1, hidden.stderr  # Gollum's file is broken, and Sauron has no mask
    for word in (*IN_THE_HEADER, *BY_NAME, *cohort.uids):
        for place, content in places(hidden):
            assert word.lower().encode() not in content, f"{word} in {place}"


def test_names_stand_in_the_dicom_objects_as_they_must(hidden: Ran, cohort: Cohort) -> None:
    objects = list(hidden.out.rglob("*.dcm"))
    assert objects, hidden.stderr
    for file in objects:
        ds = pydicom.dcmread(file)
        assert (str(ds.PatientName), ds.PatientID) == ("Tell^Tale", "ID-7788")
        assert ds.StudyInstanceUID == cohort.uids[1]
    for word in ("Bilbo", "Baggins", "Pippin"):  # but never the names of files
        for place, content in places(hidden, dicom=True):
            assert word.lower().encode() not in content, f"{word} in {place}"


def test_a_plain_run_tells_no_more_than_the_names_of_files(plain: Ran) -> None:
    for word in IN_THE_HEADER:
        for place, content in places(plain):
            assert word.lower().encode() not in content, f"{word} in {place}"
    assert PATIENT in (plain.out / "nodes.csv").read_text()


def test_dicom_objects_come_with_the_run_where_they_are_asked_for(plain: Ran, hidden: Ran) -> None:
    folder = plain.out / "cases" / PATIENT / "dicom"
    names = {file.name for file in folder.iterdir()}
    assert "rtstruct.dcm" in names
    assert "capture-01.dcm" in names
    assert "seg.dcm" not in names
    exported = json.loads(plain.stdout)["dicom"]
    assert exported["counts"] == {"ok": 1, "skipped": 2}
    assert {f.name for f in hidden.out.rglob("*.dcm")} == {"seg.dcm", "sr.dcm", "rtstruct.dcm"}


def test_pseudonyms_change_names_and_nothing_else(hidden: Ran, plain: Ran, cohort: Cohort) -> None:
    key, _ = read_key(cohort.key)
    for name in ("nodes.csv", "cases.csv", "patients.csv"):
        shown, true = (pd.read_csv(ran.out / name, keep_default_na=False) for ran in (hidden, plain))
        for column in {"case_id", "patient_id"} & set(true.columns):
            true[column] = true[column].map(key.pseudonym)
        left = [c for c in shown.columns if c not in ("reason", "warnings", "seconds", "source", "ct_date")]
        pd.testing.assert_frame_equal(
            shown[left].sort_values(left[:2]).reset_index(drop=True),
            true[left].sort_values(left[:2]).reset_index(drop=True),
        )
    assert shown.ct_date.eq("").all()
    assert shown.case_id.str.fullmatch(r"P-[0-9a-z]{10}").all()
    assert shown.case_id.is_unique


def test_reasons_and_notes_stay_readable(hidden: Ran, cohort: Cohort) -> None:
    key, _ = read_key(cohort.key)
    cases = pd.read_csv(hidden.out / "cases.csv", keep_default_na=False).set_index("case_id")
    broken, unmasked = (key.pseudonym(name) for name in ("Gollum", "Sauron"))
    assert "it contains no image, although its name suggests one" in cases.loc[broken, "reason"]  # type: ignore[operator]
    assert f"no mask for the case {unmasked}" in cases.loc[unmasked, "reason"]  # type: ignore[operator]
    record = json.loads((hidden.out / "run.json").read_text())
    assert any("left out" in note for note in record["left_aside"])


def test_the_record_keeps_the_content_hash_and_pseudonymous_uids(
    hidden: Ran, plain: Ran, cohort: Cohort
) -> None:
    key, _ = read_key(cohort.key)
    name = PATIENT
    shown = json.loads((hidden.out / "cases" / key.pseudonym(name) / "case.json").read_text())
    true = json.loads((plain.out / "cases" / name / "case.json").read_text())
    mine, theirs = shown["facts"]["input"], true["facts"]["input"]
    assert mine["sha256"] == theirs["sha256"]
    assert mine["lattice"] == theirs["lattice"]
    for kind, uid in zip(("series_uid", "study_uid", "frame_of_reference_uid"), cohort.uids, strict=True):
        assert mine[kind] == key.uid(uid)
        assert pydicom.uid.UID(mine[kind]).is_valid
        assert theirs[kind] == uid


def test_the_key_is_nowhere_in_the_results(hidden: Ran, cohort: Cohort) -> None:
    secret = cohort.key.read_bytes()
    for place, content in places(hidden):
        for form in (secret, secret.hex().encode()):
            assert form.lower() not in content, place


def test_a_pseudonymised_run_is_taken_up_again_with_the_same_key_alone(
    hidden: Ran, cohort: Cohort, tmp_path: Path
) -> None:
    again = run(cohort, hidden.out, "--pseudonymise", str(cohort.key))
    assert "already done" in again.stderr
    other = tmp_path / "other.key"
    other.write_bytes(bytes(range(40, 80)))
    other.chmod(0o600)
    refused = run(cohort, hidden.out, "--pseudonymise", str(other))
    assert refused.code == 2
    assert "other settings" in refused.stderr
    assert "pseudonyms" in refused.stderr


def test_an_export_finds_the_source_by_its_content_and_names_no_folder(
    hidden: Ran, cohort: Cohort, tmp_path: Path
) -> None:
    out, wrong = tmp_path / "out", tmp_path / "of Bilbo"
    shutil.copytree(hidden.out, out)
    wrong.mkdir()
    key, _ = read_key(cohort.key)
    patient = key.pseudonym(PATIENT)
    for folder, status in ((None, "failed"), (wrong, "failed"), (cohort.root, "ok")):
        rows = {row.case_id: row for row in export_run(out, ["rtstruct"], source_dicom=folder).rows}
        assert rows[patient].status == status, rows[patient].reason
        for place, content in places(Ran(out, 0, "", "")):
            assert b"bilbo" not in content, place


def test_an_export_refuses_a_source_of_the_same_uid_and_another_content(
    hidden: Ran, cohort: Cohort, tmp_path: Path
) -> None:
    out, changed = tmp_path / "out", tmp_path / "changed"
    shutil.copytree(hidden.out, out)
    shutil.copytree(cohort.root, changed)
    file = next(changed.rglob("*.dcm"))
    ds = pydicom.dcmread(file)
    ds.PixelData = ds.PixelData[:-2] + b"\1\0"
    ds.save_as(file)
    (failed,) = (
        row for row in export_run(out, ["rtstruct"], source_dicom=changed).rows if row.status == "failed"
    )
    assert "no series has the content of this case" in failed.reason
