"""The `aiene` command as a shell sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aiene.cli.app import app


def aiene(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aiene", *words], capture_output=True, text=True, check=False, **more
    )


HEAVY = ("torch", "SimpleITK", "pandas", "scipy", "matplotlib", "pydicom", "nibabel", "skimage", "sklearn")
LOADED = f"""
import atexit, sys
atexit.register(lambda: print(*sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr))
from aiene.cli.app import main
main()
"""


@pytest.mark.parametrize(
    "words", [("--help",), ("run", "--help"), ("risk", "--help"), ("benchmark", "--help")]
)
@pytest.mark.slow
def test_help_imports_no_heavy_package(words: tuple[str, ...]) -> None:
    """So that it answers at once: `tools.measurements.help_speed` takes the time."""
    done = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Usage: " in done.stdout
    assert done.stderr.strip() == ""


def test_help_says_what_the_software_is_not() -> None:
    assert "not a medical device" in " ".join(aiene("--help").stdout.split())


@pytest.mark.slow
def test_the_default_bundle_is_listed_and_good() -> None:
    listed = json.loads(aiene("models", "list", "--json").stdout)
    assert listed["models"][0]["name"] == "default"
    assert json.loads(aiene("models", "verify", "default", "--json").stdout)["good"] is True
    assert "not for patients" in json.loads(aiene("models", "show", "default", "--json").stdout)["notice"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", "nowhere"), "name one with -o"),
        (("run", "nowhere", "-o", "out"), "nowhere"),
        (("run", ".", "-o", "out", "--model", "nobody"), "nobody: no model bundle of this name"),
        (("run", ".", "-o", "out", "--device", "abacus"), "--device abacus: no such device"),
        (("run", ".", "-o", "out", "--jobs", "0"), "--jobs must be at least 1"),
        (("run", ".", "-o", "out", "--num-parts", "2", "--part-id", "2"), "--part-id must be from 0"),
        (("run", ".", "-o", "out", "--masks", "nowhere"), "--masks nowhere: no such folder"),
        (("run", ".", "-o", "out", "--fg-labels", "900"), "900"),
        (("models", "show", "nobody"), "nobody: no model bundle of this name"),
        (("models", "verify", "./nobody"), "no model bundle here"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    words: Any, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_shell_sees_that_sentence_and_that_code(tmp_path: Path) -> None:
    done = aiene("run", ".", "-o", "out", "--jobs", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("aiene: --jobs must be at least 1")
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
