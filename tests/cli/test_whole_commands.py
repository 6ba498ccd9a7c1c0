"""Whole commands, as a user gives them, on phantoms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from aiene.cli import container
from aiene.cli.app import app
from aiene.phantom.phantom import PhantomSettings, make_phantom, write_dicom_series

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SMALL = PhantomSettings(size=(70, 120, 120), spacing=(4.0, 2.2, 2.2), nodes=(2, 3), tilt_degrees=2.0)


@pytest.fixture(scope="module")
def dicom_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one patient and a folder without any CT."""
    root = tmp_path_factory.mktemp("dicom")
    write_dicom_series(make_phantom(910_003, SMALL).ct, root / "patient", name="PHANTOM^THREE")
    (root / "letters").mkdir()
    (root / "letters" / "letter.txt").write_text("no image")
    return root


def test_the_demo_runs_both_phantoms_and_shows_what_it_is(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["demo", "-o", str(tmp_path / "demo"), "--jobs", "1"])
    assert done.exit_code == 0, done.output
    assert "phantom-dicom" in done.stdout
    assert "phantom-nifti" in done.stdout
    assert "GTVn_01" in done.stdout
    said = " ".join(done.stdout.split())
    assert "not for patients" in said
    assert "not a medical device" in said
    nodes = pd.read_csv(tmp_path / "demo" / "results" / "nodes.csv")
    assert set(nodes.case_id) == {"phantom-dicom", "phantom-nifti"}
    assert len(list((tmp_path / "demo" / "phantoms" / "phantom-dicom").glob("*.dcm"))) > 50


def test_a_list_shows_cases_and_what_is_left_aside_and_writes_nothing(
    dicom_root: Path, tmp_path: Path
) -> None:
    words = ["run", str(dicom_root), "--list"]
    plain = CliRunner().invoke(app, words)
    assert plain.exit_code == 0
    assert "patient: dicom, 70 files" in plain.stdout
    shown = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [case["case_id"] for case in shown["cases"]] == ["patient"]
    assert shown["cases"][0]["series"]
    assert "PHANTOM" not in plain.stdout + json.dumps(shown)


def test_json_of_a_run_is_for_machines_and_names_no_patient(dicom_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["run", str(dicom_root), "-o", str(out), "--json", "--jobs", "1", "--gpu", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["counts"]["failed"] == 0
    assert [case["case_id"] for case in result["cases"]] == ["patient"]
    assert Path(result["tables"]["nodes"]).is_file()
    assert "not a medical device" in result["notice"]
    written = b"".join(f.read_bytes() for f in out.rglob("*") if f.suffix in (".csv", ".json"))
    assert b"PHANTOM^THREE" not in written
    assert "PHANTOM^THREE" not in done.stderr


def test_the_published_command_line_runs_the_road(dicom_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--dicom-dir", str(dicom_root), "--output-dir", str(out), "--gpu", "cpu", "--include-short-axes"]
    assert container.e2e_main(words) == 0
    (table,) = out.glob("prediction_list/predictions_*/prediction_*.csv")
    assert list(pd.read_csv(table).columns[:3]) == ["case_id", "node", "pos"]
    assert "largest_short_axis" in pd.read_csv(table).columns


def test_the_script_at_the_root_says_what_is_wrong(tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "run_e2e.py"), "--input-dir", "nowhere", "--gpu", "cpu"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 2
    assert done.stderr.startswith("run_e2e.py: nowhere: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
