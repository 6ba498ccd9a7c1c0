"""From a DICOM series through the networks and back into DICOM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from aiene.cohort import run_cohort
from aiene.export.case import on_source
from aiene.export.run import ExportSummary, export_run
from aiene.export.source_lookup import source_index
from aiene.export.verification import read_segments
from aiene.finished_runs import read_labels
from aiene.geometry.grid import Grid
from aiene.phantom.phantom import PhantomSettings, make_phantom, write_dicom_series
from builders.export_runs import says

pytestmark = pytest.mark.slow

pytest.importorskip("highdicom", reason="the dicom extra is not installed")

SMALL = PhantomSettings(size=(70, 120, 120), spacing=(4.0, 2.2, 2.2), nodes=(2, 3), tilt_degrees=2.0)
KINDS = ["dicom-seg", "dicom-sr", "rtstruct", "dicom-seg-fractional"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a phantom patient with the default bundle."""
    folder = tmp_path_factory.mktemp("whole")
    write_dicom_series(make_phantom(910_001, SMALL).ct, folder / "in", name="phantom^one")
    summary = run_cohort(folder / "in", folder / "out", device="cpu", jobs=1, keep_prepared=True)
    assert summary.exit_code == 0
    return folder / "out"


@pytest.fixture(scope="module")
def exported(out: Path) -> ExportSummary:
    """Every kind of object of it."""
    return export_run(out, KINDS)


def test_every_object_of_a_true_run_is_made_and_valid(out: Path, exported: ExportSummary) -> None:
    assert exported.exit_code == 0, exported.rows
    assert len(exported.rows[0].files) == 4
    for file in exported.rows[0].files:
        said = says("dciodvfy", out / file)[1]
        assert "Error" not in said, said


def test_the_networks_probabilities_agree_with_its_labels(out: Path, exported: ExportSummary) -> None:
    folder = out / "cases/in"
    facts = json.loads((folder / "case.json").read_text())["facts"]
    with source_index(out.parent / "in") as index:
        source = index.find(facts)
    labels = read_labels(folder / "labels.nii.gz", Grid.from_facts(facts["native"]), np.uint8)
    node_label = on_source(labels, source) == 2
    segments = read_segments(pydicom.dcmread(folder / "dicom/seg-probabilities.dcm"), source)
    likely = segments["GTVn"].voxels > 127
    dice = 2 * (likely & node_label).sum() / (likely.sum() + node_label.sum())
    assert dice > 0.9
    assert exported.rows[0].status == "ok"


def test_probabilities_cannot_be_had_without_what_the_run_saw(out: Path, exported: ExportSummary) -> None:
    assert exported.exit_code == 0
    whole = out.parent / "copy"
    shutil.copytree(out, whole)
    (whole / "cases/in/prepared.nii.gz").unlink()
    (row,) = export_run(whole, ["dicom-seg-fractional"]).rows
    assert "--keep-prepared" in row.reason
    shutil.copy(out / "cases/in/prepared.nii.gz", whole / "cases/in/prepared.nii.gz")
    record = json.loads((whole / "run.json").read_text())
    record["bundle"]["sha256"] = "0" * 64
    (whole / "run.json").write_text(json.dumps(record))
    (row,) = export_run(whole, ["dicom-seg-fractional"]).rows
    assert "the bundle default is not the one of the run" in row.reason
    record["settings"]["masks"] = "own"
    (whole / "run.json").write_text(json.dumps(record))
    (row,) = export_run(whole, ["dicom-seg-fractional"]).rows
    assert "the masks were the user's own" in row.reason
