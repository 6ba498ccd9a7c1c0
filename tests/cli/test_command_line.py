"""The `aiene` command as a shell sees it."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest


def aiene(*words: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aiene", *words], capture_output=True, text=True, check=False, **more
    )


def test_help_answers_without_loading_a_network_library():
    code = (
        "import sys; from aiene.cli.app import app; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'SimpleITK', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_answers_in_half_a_second():
    aiene("--help")
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        done = aiene("--help")
        taken.append(time.perf_counter() - start)
        assert done.returncode == 0
    assert min(taken) < 0.5
    assert "not a medical device" in " ".join(done.stdout.split())


def test_the_default_bundle_is_listed_and_good():
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
def test_wrong_use_is_one_sentence_and_exit_code_2(words, sentence, tmp_path):
    done = aiene(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
