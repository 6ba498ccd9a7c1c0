"""`aiene benchmark` and the published command line, as a user gives them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from aiene.benchmark import run as runner
from aiene.benchmark.report import write as report
from aiene.cli.benchmark import SEVERAL, app, configuration, spread
from aiene.cli.container import benchmark_main as main
from aiene.errors import UsageError
from aiene.results.nifti import write_nifti
from builders import benchmarks as build

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["a", "b", "c"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words for three cases; models run in this process, which is quicker, and no report is made."""
    real = runner.run_benchmark
    monkeypatch.setattr(runner, "run_benchmark", lambda *a, **k: real(*a, **{**k, "apart": False, "jobs": 1}))
    monkeypatch.setattr(report, "write_report", lambda out: None)
    images, masks = build.write_cases(tmp_path, NAMES)
    (tmp_path / "config.yaml").write_text("resamples: 100\n", encoding="utf-8")
    for name, seed in (("one", 0), ("two", 1)):
        folder = tmp_path / name
        folder.mkdir()
        for case in NAMES:
            write_nifti(build.labels(nodes=(1, 2)[: 2 - seed]), folder / f"{case}.nii.gz")
    return [
        "--image-dir", str(images), "--seg-dir", str(masks), "--config", str(tmp_path / "config.yaml"),
        "-o", str(tmp_path / "out"),
    ]  # fmt: skip


def _call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


@pytest.mark.slow
def test_several_words_after_one_option_are_all_taken(here: list[str], tmp_path: Path) -> None:
    done = _call("--predictions", f"one={tmp_path / 'one'}", f"two={tmp_path / 'two'}", *here)
    assert done.exit_code == 0, done.output
    assert "not a medical device" in done.stdout
    assert "one" in done.stdout
    assert "two" in done.stdout
    assert len(list((tmp_path / "out").glob("benchmark_results_*.csv"))) == 1
    assert len(list((tmp_path / "out").glob("benchmark_summary_*.json"))) == 1


def test_a_failed_model_is_exit_code_1_and_its_reason_is_told(here: list[str], tmp_path: Path) -> None:
    done = _call("--predictions", f"one={tmp_path / 'one'}", "--hf-models", str(tmp_path / "gone"), *here)
    assert done.exit_code == 1
    assert "gone: no such folder" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--predictions", "one"], "write NAME=DIR"),
        (["--predictions", "x=one", "x=two"], "x is named twice"),
        (["--reference", "gone", "--predictions", "one=one"], "no model of this name"),
        (["--image-dir", "nowhere"], "nowhere: no such folder"),
        (["--config", "gone.yaml"], "gone.yaml: it cannot be read"),
        (["--device", "tpu"], "no such device"),
        (["--max-cases", "0"], ""),
        (["--jobs", "0"], ""),
        (["--ene-csv", "gone.csv"], "gone.csv: it cannot be read"),
    ],
)
def test_wrong_use_is_exit_code_2_and_one_sentence(
    here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = _call(*here, *words)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_json_is_the_summary(here: list[str], tmp_path: Path) -> None:
    done = _call("--json", "--predictions", f"one={tmp_path / 'one'}", *here)
    shown = json.loads(done.stdout)
    assert [model["name"] for model in shown["models"]] == ["one"]
    assert str(tmp_path) not in done.stdout


def test_unpaired_cases_are_told(here: list[str], tmp_path: Path) -> None:
    write_nifti(build.labels(), tmp_path / "masks" / "lonely.nii.gz")
    done = _call("--predictions", f"one={tmp_path / 'one'}", *here)
    assert done.exit_code == 0
    assert "masks without image: lonely" in done.stderr


def test_where_every_case_is_refused_the_reason_is_told(here: list[str], tmp_path: Path) -> None:
    """Node maps laid below the masks are second masks; "no mask of the same case id" would mislead."""
    (tmp_path / "masks" / "nodes").mkdir()
    for case in NAMES:
        write_nifti(build.labels(), tmp_path / "masks" / "nodes" / f"{case}.nii.gz")
    done = _call("--predictions", f"one={tmp_path / 'one'}", *here)
    assert done.exit_code == 2
    assert "3 refused, the first, a: 2 masks of this case" in " ".join(done.stderr.split())


def test_the_commands_words_stand_over_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("seed: 3\nmax_cases: 5\nhf_models: [x]\n", encoding="utf-8")
    chosen = configuration(file, {"max_cases": 2, "seed": None, "hf_models": None, "resample": None})
    assert (chosen.seed, chosen.max_cases, chosen.hf_models) == (3, 2, ("x",))
    with pytest.raises(UsageError, match="--max-cases"):
        configuration(file, {"max_cases": 0})


@given(st.lists(st.sampled_from([*SEVERAL, "-o", "--json", "a", "b=c", "leaderboard"]), max_size=8))
def test_spreading_loses_and_invents_no_word(words: list[str]) -> None:
    done = spread(words)
    assert [w for w in done if not w.startswith("-")] == [w for w in words if not w.startswith("-")]
    assert spread(done) == done


def test_the_leaderboard_is_a_command_below(tmp_path: Path) -> None:
    done = _call("leaderboard", "--help")
    assert done.exit_code == 0
    assert "image-dir" not in done.stdout


def test_a_run_is_added_to_a_leaderboard(here: list[str], tmp_path: Path) -> None:
    board = tmp_path / "board.sqlite"
    words = ["--predictions", f"one={tmp_path / 'one'}", "--leaderboard", str(board)]
    assert _call(*words, *here).exit_code == 0
    from aiene.benchmark.leaderboard.store import read_entries

    (entry,) = read_entries(board)
    assert entry.model == "one"
    assert entry.metrics["dice_GTVn"] == 1
    assert entry.n_cases == 3


@pytest.mark.slow
def test_the_published_words_do_the_same(
    here: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(build.tiny(tmp_path / "m", "swinv2"))
    ene = str(build.write_ene(tmp_path / "ene.csv", NAMES))
    code = main([*here, "--hf-models", model, "--ene-csv", ene, "--max-cases", "2"])
    assert code == 0
    assert "swinv2" in capsys.readouterr().out
    assert main(["--image-dir", "nowhere", "--seg-dir", "nowhere"]) == 2
    assert "run_benchmark.py: nowhere: no such folder" in capsys.readouterr().err


def test_the_script_at_the_root_shows_the_published_flags() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_benchmark.py"), "--help"], capture_output=True, text=True, check=True
    )
    for flag in ("--image-dir", "--seg-dir", "--ene-csv", "--config", "--hf-models", "--max-cases", "-o"):
        assert flag in done.stdout
