"""Every later command takes what a reader made of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import UsageError
from aiene.export.run import export_run
from aiene.nodes.node import CountingRule
from aiene.results.store import RunStore
from aiene.review.session import Change
from builders.export_runs import OBLIQUE, Run, small_grid, write_run, write_series
from builders.reviews import CountingReview


@pytest.fixture
def dicom_run(tmp_path: Path) -> Run:
    write_series(tmp_path / "cts" / "case", small_grid(OBLIQUE, (24, 40, 51)))
    return write_run(tmp_path / "out", tmp_path / "cts")


def corrected(run: Run) -> str:
    """A review in which the second node is gone; the case's id."""
    review = CountingReview(run.out)
    (case_id,) = review.results
    drawing = review.open(case_id).scene.labels.array.copy()
    drawing[drawing == 2] = 0
    review.save(case_id, Change(drawing, 0, "corrected", "a vessel"))
    return case_id


@pytest.mark.slow
def test_an_export_of_the_review_shows_the_readers_nodes_and_says_that_a_person_drew(dicom_run: Run) -> None:
    with pytest.raises(UsageError, match="not been reviewed"):
        export_run(dicom_run.out, ["dicom-seg"], reviewed=True)
    assert export_run(dicom_run.out, ["dicom-seg"]).counts == {"ok": 1}
    case_id = corrected(dicom_run)
    summary = export_run(dicom_run.out, ["dicom-seg,rtstruct"], reviewed=True)
    assert summary.counts == {"ok": 1}, summary.rows
    folder = dicom_run.out / "review" / "anna" / "dicom" / case_id
    seg = pydicom.dcmread(folder / "seg.dcm")
    assert {s.SegmentAlgorithmType for s in seg.SegmentSequence} == {"SEMIAUTOMATIC"}
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["GTVn_01", "GTVp"]
    structures = pydicom.dcmread(folder / "rtstruct.dcm")
    assert {s.ROIGenerationAlgorithm for s in structures.StructureSetROISequence} == {"SEMIAUTOMATIC"}
    models = pydicom.dcmread(dicom_run.out / "cases" / case_id / "dicom" / "seg.dcm")
    assert {s.SegmentAlgorithmType for s in models.SegmentSequence} == {"AUTOMATIC"}
    assert len(models.SegmentSequence) == 3
    assert models.SOPInstanceUID != seg.SOPInstanceUID


def test_a_case_that_nobody_is_done_with_is_skipped(dicom_run: Run) -> None:
    review = CountingReview(dicom_run.out)
    (case_id,) = review.results
    review.save(case_id, Change(None, 0, "set aside"))
    (row,) = export_run(dicom_run.out, ["dicom-seg"], reviewed=True).rows
    assert row.status == "skipped"


@pytest.mark.slow
def test_risk_groups_follow_the_correction(run: Run, tmp_path: Path) -> None:
    review = CountingReview(run.out)
    empty = np.zeros_like(review.open("case").scene.labels.array)
    review.save("case", Change(empty, 0, "corrected", "no nodes"))
    RunStore(run.out).write_tables(
        [run.result], axes=False, model="default", rule=CountingRule(0.3), now=None
    )
    table = {"patient_id": ["case"], "site": "oropharynx", "hpv": "positive"}
    pd.DataFrame(table).to_csv(tmp_path / "cohort.csv", index=False)
    counts = {}
    for name, more in (("model", []), ("reader", ["--reviewed"])):
        target = tmp_path / f"{name}.csv"
        words = [
            "risk",
            "stratify",
            str(tmp_path / "cohort.csv"),
            "--ai-ene",
            str(run.out),
            "-o",
            str(target),
        ]
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, done.output
        counts[name] = int(pd.read_csv(target)["n_ai_ene"].iloc[0])
    assert counts == {"model": 1, "reader": 0}
