"""The image's entry point takes the commands of today and the published words."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from aiene.cli import container
from aiene.cli.app import app

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Who was handed which words."""
    calls: list[tuple[str, list[str]]] = []

    def hears(name: str) -> Any:
        def take(words: Any, **_: Any) -> int:
            calls.append((name, list(words)))
            return 7

        return take

    monkeypatch.setattr(container, "e2e_main", hears("run_e2e.py"))
    monkeypatch.setattr(container, "benchmark_main", hears("run_benchmark.py"))
    monkeypatch.setattr(type(app), "__call__", lambda _, words, **__: hears("aiene")(words))
    return calls


@pytest.mark.parametrize(
    ("line", "who", "words"),
    [
        (
            "--input-dir /in --output-dir /out --gpu 0",
            "run_e2e.py",
            "--input-dir /in --output-dir /out --gpu 0",
        ),
        ("--dicom-dir=/in", "run_e2e.py", "--dicom-dir=/in"),
        ("--gpu cpu", "run_e2e.py", "--gpu cpu"),
        ("run_e2e.py --input-dir /in", "run_e2e.py", "--input-dir /in"),
        ("python /opt/aiene/run_e2e.py --help", "run_e2e.py", "--help"),
        ("run_benchmark.py --image-dir /in", "run_benchmark.py", "--image-dir /in"),
        ("run /in -o /out --gpu cpu", "aiene", "run /in -o /out --gpu cpu"),
        ("aiene models list", "aiene", "models list"),
        ("--help", "aiene", "--help"),
        ("--version", "aiene", "--version"),
        ("", "aiene", "--help"),
    ],
)
def test_words_go_to_whom_they_are_meant_for(
    heard: list[tuple[str, list[str]]], line: str, who: str, words: str
) -> None:
    container.main(shlex.split(line))
    assert heard == [(who, shlex.split(words))]


def test_the_published_words_are_understood_and_a_mistake_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = container.main(["--input-dir", str(tmp_path / "cts"), "--output-dir", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith("run_e2e.py: cts: it does not exist; ")
    assert not (tmp_path / "out").exists()


def test_the_image_begins_there() -> None:
    (entry,) = [
        line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("ENTRYPOINT")
    ]
    assert entry == 'ENTRYPOINT ["python", "-m", "aiene.cli.container"]'
    assert container.__name__ == "aiene.cli.container"
