"""Names of files that would break a table, a terminal or a file system: each is a row like any other."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aiene.cli.app import app

pytestmark = pytest.mark.slow

NAMES = (
    *(
        b"new\nline",
        b"\x1b[31mred\x1b[0m",
        b"=cmd|' calc'!A0",
        b"+1-cmd",
        b"@SUM(A1)",
        b"tab\tbed",
        b"caf\xe9",
    ),
    *(
        "a" * 247,
        "CON",
        "pt",
        "PT",
        "\u202egz.iin",
        "\u00e9",
        "e\u0301",
        "dot.",
        " blank ",
        "emoji \U0001f600",
    ),
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are an image by name only: failed rows, so that no network is needed."""
    root = tmp_path_factory.mktemp("hostile") / "in"
    root.mkdir()
    for name in NAMES:
        raw = name if isinstance(name, bytes) else name.encode()
        Path(os.fsdecode(os.fsencode(root) + b"/" + raw + b".nii.gz")).write_text("words")
    return root


def table(out: Path, name: str = "cases.csv") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / name).read_text(encoding="utf-8"))))


def harmless(text: str) -> None:
    assert not set(text) & set("\x1b\x07\r\u202e\t")
    text.encode()


@pytest.fixture(scope="module")
def ran(
    hostile: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[bytes]]:
    out = tmp_path_factory.mktemp("out") / "out"
    words = ["run", str(hostile), "-o", str(out), "--device", "cpu", "--json"]
    return out, subprocess.run([sys.executable, "-m", "aiene", *words], capture_output=True, check=False)


def test_every_name_is_a_row_and_nothing_is_obeyed(
    ran: tuple[Path, subprocess.CompletedProcess[bytes]],
) -> None:
    out, done = ran
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    harmless(done.stderr.decode())
    harmless(done.stdout.decode())
    assert len(json.loads(done.stdout)["cases"]) == len(NAMES)
    assert done.stderr.count(b"it contains no image") == len(NAMES)
    assert len([line for line in done.stderr.splitlines() if line.startswith(b"[")]) == len(NAMES)
    for name in ("cases.csv", "patients.csv"):
        harmless((out / name).read_text(encoding="utf-8"))
        rows = table(out, name)
        assert len(rows) == len(NAMES)
        assert len({row["case_id"].casefold() for row in rows}) == len(NAMES)
        assert not [v for row in rows for v in row.values() if v.startswith(("=", "+", "-", "@"))]
        for row in rows:
            record = json.loads((out / "cases" / row["case_id"] / "case.json").read_text(encoding="utf-8"))
            assert record["case_id"] == row["case_id"]
            assert record["source"].endswith(".nii.gz")


def test_the_source_of_every_row_stands_in_the_table(
    ran: tuple[Path, subprocess.CompletedProcess[bytes]],
) -> None:
    sources = {row["source"] for row in table(ran[0])}
    assert {"CON.nii.gz", "new\\nline.nii.gz", "caf\\xe9.nii.gz", "'=cmd|' calc'!A0.nii.gz"} <= sources
    assert len(sources) == len(NAMES)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_the_list_shows_every_name_on_a_line_of_its_own(hostile: Path, words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["run", str(hostile), "--list", *words])
    assert done.exit_code == 0, done.output
    harmless(done.stdout)
    assert "new\\nline.nii.gz" in done.stdout.replace("\\\\", "\\")
    if words:
        assert len(json.loads(done.stdout)["cases"]) == len(NAMES)
    else:
        assert len([line for line in done.stdout.splitlines() if "cannot be run" in line]) == len(NAMES)


def test_a_pseudonymised_run_takes_them_too(hostile: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    words = ["run", str(hostile), "-o", str(tmp_path / "out"), "--device", "cpu", "--pseudonymise", str(key)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    harmless(done.stderr)
    assert "cmd" not in done.stderr + (tmp_path / "out" / "cases.csv").read_text(encoding="utf-8")
    rows = table(tmp_path / "out")
    assert {row["case_id"][:2] for row in rows} == {"P-"}
    assert {row["source"][:2] for row in rows} == {"F-"}
