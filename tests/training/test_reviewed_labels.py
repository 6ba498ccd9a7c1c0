"""What a reader has accepted is what a training learns from; `test_train_segmenter` has nnU-Net at work."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import UsageError
from aiene.review.session import Change
from aiene.training import dataset, segmenter
from aiene.training.nnunet import Job
from builders.export_runs import write_run
from builders.plain_necks import laid, written
from builders.reviews import CountingReview
from builders.shrunk_bundle import shrunk_bundle

pytestmark = pytest.mark.slow

pytest.importorskip("nnunetv2", reason="nnU-Net is not installed (the extra `train`)")
SEEDS = range(50, 57)


def reviewed(out: Path) -> None:
    """One case without its second node, four as the model left them, one set aside, one not looked at."""
    review = CountingReview(out)
    first, *others, aside, _ = sorted(review.results)
    drawing = review.open(first).scene.labels.array.copy()
    drawing[drawing == 2] = 0
    review.save(first, Change(drawing, 0, "corrected", "a vessel"))
    for case_id in others:
        review.save(case_id, Change(None, 0, "accepted"))
    review.save(aside, Change(None, 0, "set aside"))


def test_nnunet_is_given_the_masks_of_a_review(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handed_over(job: Job, *_: object) -> None:
        raise UsageError(f"all is there: {Path(job.work).name}")

    monkeypatch.setattr(dataset, "crop_of", laid)
    monkeypatch.setattr(segmenter, "run_worker", handed_over)
    shrunk_bundle(tmp_path / "tiny")
    cts = written(tmp_path / "own", SEEDS, 110.0) / "ct"
    out = write_run(tmp_path / "out", cts).out
    reviewed(out)
    line = ["train", "segmenter", "--images", str(cts), "--labels", str(out / "review"), "--from"]
    line += [str(tmp_path / "tiny"), "-o", str(tmp_path / "mine"), "--epochs", "1", "--iterations", "1"]
    done = CliRunner().invoke(app, [*line, "-d", "cpu"])
    assert done.exit_code == 2, done.output
    said = " ".join(done.output.split())
    assert "5 cases that anna has accepted or corrected" in said
    assert "all is there: mine.training" in said

    (raw,) = (tmp_path / "mine.training" / "nnUNet_raw").iterdir()
    names = sorted(file.name for file in (raw / "labelsTr").iterdir())
    assert names == [f"p{seed}.nii.gz" for seed in SEEDS[:5]]
    for name in names:
        learned = np.asarray(nib.load(raw / "labelsTr" / name).dataobj)
        mask = np.asarray(nib.load(out / "review" / "anna" / "masks" / name).dataobj)
        np.testing.assert_array_equal(learned, mask)
    corrected, accepted = (np.asarray(nib.load(raw / "labelsTr" / name).dataobj) == 2 for name in names[:2])
    assert 0 < corrected.sum() < accepted.sum()
