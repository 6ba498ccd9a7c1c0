"""`aiene merge`: parts of a run in folders of their own become the run; nothing is missing in silence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import aiene.case_worker
import aiene.cohort
from aiene.cli.app import app
from aiene.cohort import Selection, run_cohort
from aiene.errors import UsageError
from aiene.finished_runs import merge
from aiene.geometry.grid import Grid, Volume
from aiene.hashing import joined_sha256
from aiene.ingest.fingerprint import content_sha256
from aiene.results.nifti import write_nifti
from aiene.results.records import CaseArrays, CaseResult

GRID = Grid((6, 7, 8), (3.0, 2.0, 2.0), (0.0, 0.0, 0.0))


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the cases that were worked on, by a road without networks; `c` cannot be done."""
    worked: list[str] = []

    def infer_case(at: Any, networks: Any, settings: Any, *, labels: Any, midline_x: Any) -> Any:
        worked.append(at.case.case_id)
        if at.case.case_id == "c":
            return CaseResult("c", "failed", "it is broken."), None
        marked = Volume(np.full(GRID.size, len(worked), np.uint8), GRID)
        sha256 = joined_sha256(content_sha256(at.case.files), content_sha256(()))
        facts = {"content_sha256": sha256}
        return CaseResult(at.case.case_id, "no_nodes", facts=facts), CaseArrays(marked, marked)

    monkeypatch.setattr(
        aiene.case_worker, "preprocess_case", lambda case, *_, **__: SimpleNamespace(case=case)
    )
    monkeypatch.setattr(aiene.cohort, "infer_case", infer_case)
    monkeypatch.setattr(aiene.case_worker, "load_preparation", lambda *_: SimpleNamespace(midline_x=0.0))
    monkeypatch.setattr(aiene.case_worker, "load_networks", lambda *_, **__: SimpleNamespace(segmenter=None))
    return worked


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for place, name in enumerate("abcde"):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_nifti(Volume(np.full(GRID.size, place, np.int16), GRID), tmp_path / "in" / f"{name}.nii.gz")
    return tmp_path / "in"


def part(source: Path, out: Path, number: int, of: int = 2, **words: float) -> Path:
    run_cohort(source, out, device="cpu", jobs=1, selection=Selection(num_parts=of, part_id=number), **words)  # type: ignore[arg-type]
    return out


@pytest.mark.slow
def test_two_parts_are_the_run(done: list[str], source: Path, tmp_path: Path) -> None:
    parts = [part(source, tmp_path / f"part{n}", n) for n in (0, 1)]
    merged = merge(parts, tmp_path / "whole")
    assert [(r.case_id, r.status) for r in merged.results] == [
        ("a", "no_nodes"), ("b", "no_nodes"), ("c", "failed"), ("d", "no_nodes"), ("e", "no_nodes"),
    ]  # fmt: skip
    assert (merged.missing, merged.absent, merged.exit_code) == ((), (), 1)  # one failed
    for name in "abde":
        (here,) = (p / "cases" / name for p in parts if (p / "cases" / name).exists())
        for file in here.iterdir():
            assert (tmp_path / "whole" / "cases" / name / file.name).read_bytes() == file.read_bytes(), file
    table = pd.read_csv(tmp_path / "whole" / "cases.csv")
    assert table.case_id.tolist() == list("abcde")
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert record["status"] == "finished"
    assert [one["folder"] for one in record["merged"]] == ["part0", "part1"]
    # the whole can be gone on with: what is done is taken up, what failed is tried again
    before = len(done)
    run_cohort(source, tmp_path / "whole", device="cpu", jobs=1)
    assert done[before:] == ["c"]


def test_what_is_missing_is_told(done: list[str], source: Path, tmp_path: Path) -> None:
    only = part(source, tmp_path / "part0", 0, of=3)
    told = CliRunner().invoke(app, ["merge", str(only), "-o", str(tmp_path / "whole")])
    assert told.exit_code == 1
    text = " ".join(told.output.split())
    assert "5 cases: 2 done, 0 failed, 3 missing." in text
    assert "missing: b, c, e" in text
    assert "no folder of --part-id 1, 2 was named." in text
    rows = pd.read_csv(tmp_path / "whole" / "cases.csv").set_index("case_id")
    assert rows.loc["b", "status"] == "skipped"
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["status"] == "stopped"


@pytest.mark.slow
def test_a_case_is_taken_from_where_it_is_done(done: list[str], source: Path, tmp_path: Path) -> None:
    first = part(source, tmp_path / "part0", 0)  # a, c, e
    (first / "cases" / "a" / "case.json").unlink()
    again = part(source, tmp_path / "again", 0)
    merged = merge([first, again, part(source, tmp_path / "part1", 1)], tmp_path / "whole")
    assert {r.case_id: r.status for r in merged.results}["a"] == "no_nodes"
    assert merged.missing == ()


def test_other_runs_are_refused_and_nothing_is_written(done: list[str], source: Path, tmp_path: Path) -> None:
    one = part(source, tmp_path / "one", 0)
    other = part(source, tmp_path / "other", 1, ene_threshold=0.4)
    whole = tmp_path / "whole"
    with pytest.raises(UsageError, match=r"of different runs \(different: ene_threshold\)"):
        merge([one, other], whole)
    with pytest.raises(UsageError, match="named twice"):
        merge([one, one], whole)
    with pytest.raises(UsageError, match="there are no results of a run"):
        merge([one, source], whole)
    with pytest.raises(UsageError, match=r"overlap|lies in|inside"):
        merge([one], one / "whole")
    with pytest.raises(UsageError, match="holds a run already"):
        merge([one], other)
    assert not whole.exists()


@pytest.mark.slow
def test_one_case_from_two_inputs_is_refused(done: list[str], source: Path, tmp_path: Path) -> None:
    one = part(source, tmp_path / "one", 0)
    shutil.copy(source / "b.nii.gz", source / "a.nii.gz")
    two = part(source, tmp_path / "two", 0)
    with pytest.raises(UsageError, match="did the case a from different images"):
        merge([one, two], tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
