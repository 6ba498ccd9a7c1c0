"""A run with the fast engine: told in its record and notes, kept apart from exact results."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from aiene.cohort import run_cohort
from aiene.errors import UsageError
from aiene.models.bundle import LABEL_VALUES
from aiene.segment.engines import fastest_here


@pytest.mark.slow
def test_a_fast_run_says_so_and_an_exact_one_cannot_go_on_from_it(
    cts: Path, segmented_run: Path, tmp_path: Path
) -> None:
    ct, out = cts / "one.nii.gz", tmp_path / "out"
    summary = run_cohort(ct, out, device="cpu", jobs=1, engine="fast")
    record = json.loads((out / "run.json").read_text())
    assert record["engine"] == fastest_here(torch.device("cpu"))
    assert record["settings"]["engine"] == "fast"
    said = (
        [f"segmented with --engine fast ({record['engine']})"] if record["engine"] != "torch float32" else []
    )
    assert [[n for n in r.notes if "--engine" in n] for r in summary.results] == [said] * len(summary.results)
    with pytest.raises(UsageError, match="other settings"):
        run_cohort(ct, out, device="cpu", jobs=1)
    assert "engine" not in json.loads((segmented_run / "run.json").read_text())["settings"]
    assert summary.results[0].nodes
    # how far ENE moves with a few voxels is a measurement: tools/measurements/engines.py
    fast, slow = (
        np.asarray(nib.load(folder / "cases/one/labels.nii.gz").dataobj) == LABEL_VALUES["GTVn"]
        for folder in (out, segmented_run)
    )
    assert 2 * np.sum(fast & slow) > 0.9 * (np.sum(fast) + np.sum(slow)) > 0
    exact = pd.read_csv(segmented_run / "nodes.csv")
    # a piece whose lead is about its core may come or go by the rounding
    assert abs(len(summary.results[0].nodes) - (exact.case_id == "one").sum()) <= 1
