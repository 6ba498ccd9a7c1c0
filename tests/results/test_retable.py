"""`aiene retable`: the tables of a run at another threshold, without its networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import InputError, UsageError
from aiene.finished_runs import retable
from aiene.geometry.grid import Grid
from aiene.nodes.node import CountingRule
from aiene.results.records import CaseResult, NodeResult, recounted, threshold_warnings
from aiene.results.store import RunStore

SETTINGS = {
    "input": "/cts",
    "model": "default",
    "ene_threshold": 0.3,
    "include_short_axes": False,
    "aiene": "0",
}
GRID = Grid((20, 30, 30), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def node(rank: int, ene: float | None, pos: float | None = 0.9) -> NodeResult:
    called = None if ene is None else int(ene > 0.3)
    volume = 1000.0 / rank
    return NodeResult(
        f"GTVn_{rank:02d}", rank, pos, ene, called, volume, volume, None, volume, (1.0, 2.0, 3.0), "left",
        volume, 9.0, 8.0, False, False,
    )  # fmt: skip


def results(spread: float | None) -> list[CaseResult]:
    nodes = (node(1, 0.31), node(2, 0.6, 0.2), node(3, 0.3), node(4, None, None))
    warnings = ("short neck", *threshold_warnings(nodes, CountingRule(0.3), spread))
    return [
        CaseResult("a", "ok", nodes=nodes, warnings=warnings),
        CaseResult("b", "no_nodes"),
        CaseResult("c", "failed", "c.nii.gz: it cannot be read; copy it again."),
        CaseResult("d", "skipped", "beyond --limit 3"),
    ]


def write_run(out: Path, cases: Sequence[CaseResult] | None = None, *, killed: bool = False) -> Path:
    """A run's folder as `cohort` leaves it, without images."""
    found = results(None) if cases is None else list(cases)
    end = {} if killed else {"cases": [{"case_id": result.case_id} for result in found]}
    with RunStore(out) as store:
        store.open(SETTINGS, overwrite=False)
        for result in found:
            store.write_case(result, None)
        store.write_tables(found, axes=False, model="default", rule=CountingRule(0.3), now=None)
        store.write_run({
            "status": "running" if killed else "finished",
            "settings": SETTINGS,
            "started": "2026-01-02T03:04:05+00:00",
            "bundle": {
                "name": "default", "version": "1", "sha256": "0" * 64, "notice": "A notice.",
                "profile": "open",
            },
            **end,
        })  # fmt: skip
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*") if file.is_file()}


def test_each_table_tells_the_new_count_and_the_first_ones_stay(tmp_path: Path) -> None:
    out = write_run(tmp_path / "out")
    before = content(out)
    made = retable(out, ene_threshold=0.5)
    assert content(out) == before
    folder = out / "ene-threshold-0.5"
    cases = pd.read_csv(folder / "cases.csv", index_col="case_id", keep_default_na=False)
    assert cases.n_ai_ene.to_dict() == {"a": "1", "b": "0", "c": "", "d": ""}
    assert cases.reason.c == "c.nii.gz: it cannot be read; copy it again."
    patients = pd.read_csv(folder / "patients.csv", index_col="case_id")
    assert patients.n_ai_ene["a"] == 1
    assert set(patients.ai_threshold) == {0.5}
    nodes = pd.read_csv(folder / "nodes.csv")
    assert nodes.ene_classification.tolist()[:3] == [0, 1, 0]
    (published,) = folder.glob("prediction_list/*/*.csv")
    assert made.tables["prediction"] == published
    assert pd.read_csv(published).ene_classification.tolist()[:3] == [0, 1, 0]
    assert json.loads((folder / "retable.json").read_text())["run"]["ene_threshold"] == 0.3


def test_a_threshold_between_the_digits_of_the_tables_counts_by_the_full_numbers(tmp_path: Path) -> None:
    out = write_run(tmp_path / "out", [CaseResult("a", "ok", nodes=(node(1, 0.523454), node(2, 0.523446)))])
    assert pd.read_csv(out / "nodes.csv").ene.tolist() == [0.5235, 0.5234]
    again = retable(out, ene_threshold=0.52345).tables
    assert pd.read_csv(again["nodes"]).ene_classification.tolist() == [1, 0]
    assert (pd.read_csv(again["nodes"]).ene > 0.52345).tolist() == [True, False]
    assert pd.read_csv(again["patients"]).n_ai_ene.tolist() == [1]


def test_at_the_run_s_own_threshold_the_tables_are_the_run_s(tmp_path: Path) -> None:
    out = write_run(tmp_path / "out")
    again = retable(out, ene_threshold=0.3).tables
    for name in ("cases", "nodes", "patients"):
        assert again[name].read_bytes() == (out / f"{name}.csv").read_bytes()


def test_nodes_under_the_least_pos_stay_and_do_not_count(tmp_path: Path) -> None:
    out = write_run(tmp_path / "out")
    folder = retable(out, pos_from=0.5).tables["nodes"].parent
    assert folder.name == "ene-threshold-0.3-pos-from-0.5"
    nodes = pd.read_csv(folder / "nodes.csv")
    assert nodes.name.tolist() == pd.read_csv(out / "nodes.csv").name.tolist()
    case = CaseResult("a", "ok", nodes=(node(1, 0.9, 0.1), node(2, 0.9, 0.6)))
    again = recounted(case, CountingRule(0.3), CountingRule(0.3, 0.5), None)
    assert [n.ene_classification for n in again.nodes] == [0, 1]
    assert [n.counts for n in again.nodes] == [False, True]
    assert "GTVn_01: the ENE probability is over 0.3, but `pos` is under 0.5" in again.warnings[0]


def test_the_warning_of_an_uncertain_count_is_that_of_the_new_threshold() -> None:
    before, now = CountingRule(0.3), CountingRule(0.59)
    case = replace(results(0.02)[0])
    assert "GTVn_01, GTVn_03: the ENE probability lies within" in case.warnings[1]
    again = recounted(case, before, now, 0.02)
    assert again.warnings == ("short neck", *threshold_warnings(case.nodes, now, 0.02))
    assert recounted(again, now, before, 0.02) == case


def test_a_folder_of_one_s_own_and_what_may_not_be_replaced(tmp_path: Path) -> None:
    out = write_run(tmp_path / "out")
    assert (
        retable(out, ene_threshold=0.5, to=tmp_path / "strict").tables["cases"]
        == tmp_path / "strict/cases.csv"
    )
    retable(out, ene_threshold=0.5, to=tmp_path / "strict")
    for taken in (out, write_run(tmp_path / "other")):
        with pytest.raises(UsageError, match="holds the tables of a run, which stay"):
            retable(out, ene_threshold=0.5, to=taken)
    with pytest.raises(UsageError, match="no results of a run"):
        retable(tmp_path, ene_threshold=0.5)
    with pytest.raises(UsageError, match=r"the ENE threshold is 1\.2; it must be a probability"):
        retable(out, ene_threshold=1.2)
    (out / "cases" / "b" / "case.json").write_text("{}")
    with pytest.raises(InputError, match=r"b: its case.json cannot be read; run the case again"):
        retable(out, ene_threshold=0.5)


def test_a_new_run_clears_the_tables_of_the_old_one(tmp_path: Path) -> None:
    out = write_run(tmp_path / "out")
    retable(out, ene_threshold=0.5)
    (out / "ene-threshold-0.5" / "mine.txt").write_text("keep")
    with RunStore(out) as store:
        store.open(SETTINGS | {"ene_threshold": 0.4}, overwrite=True)
    assert [file.name for file in (out / "ene-threshold-0.5").iterdir()] == ["mine.txt"]


def test_the_command_tells_both_counts_and_warns_of_an_unfinished_run(tmp_path: Path) -> None:
    out = write_run(tmp_path / "out", killed=True)
    done = CliRunner().invoke(app, ["retable", str(out), "--ene-threshold", "0.5", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (
        told["counts"]["before"] == {"nodes": 4, "n_ai_ene": 2, "cases_with_ene": 1} or not told["finished"]
    )
    assert not told["finished"]
    done = CliRunner().invoke(app, ["retable", str(out)])
    assert (done.exit_code, "nothing to change" in done.output) == (2, True)


def test_a_run_whose_other_part_has_not_begun_is_not_finished(tmp_path: Path) -> None:
    out = write_run(tmp_path / "out")
    assert retable(out, ene_threshold=0.5).finished
    record = json.loads((out / "run.json").read_text()) | {"selection": {"num_parts": 2}}
    (out / "run.json").unlink()
    (out / "run_part-0-of-2.json").write_text(json.dumps(record))
    assert not retable(out, ene_threshold=0.5).finished


@pytest.mark.slow
def test_no_network_is_loaded(tmp_path: Path) -> None:
    out = write_run(tmp_path / "out")
    code = (
        "import sys; from aiene.cli.app import app\n"
        f"app(['retable', {str(out)!r}, '--ene-threshold', '0.5'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "AI-ENE nodes: 2 in the run, 1 now" in done.stdout
