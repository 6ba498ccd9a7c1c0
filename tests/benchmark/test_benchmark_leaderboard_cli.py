"""`aiene benchmark leaderboard`, as a user types it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aiene.benchmark.leaderboard.entry import Entry
from aiene.benchmark.leaderboard.store import add_entries, read_entries
from aiene.cli.benchmark import leaderboard_app as app

RUN = CliRunner()
SETTINGS = {"rule": 2, "iou_threshold": 0.3, "patients": "c3" * 32, "prompts": "none"}


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Two models on one data set."""
    path = tmp_path / "board.sqlite"
    rows = (("good [v2]", 0.8, 4.0), ("bad", 0.4, 2.0))
    entries = [
        Entry(
            "da7a" * 16,
            SETTINGS,
            m,
            None,
            "0.1.0",
            "a machine",
            "2026-11-25T10:00:00Z",
            30,
            30,
            {"dice_GTVn": d, "hd95_mm_GTVn": h},
        )
        for m, d, h in rows
    ]
    add_entries(path, entries)
    return path


@pytest.mark.parametrize("words", [["show"], []])
def test_the_board_is_shown_best_first(board: Path, words: list[str]) -> None:
    result = RUN.invoke(app, [*words, str(board)])
    assert result.exit_code == 0, result.output
    assert result.stdout.index("good [v2]") < result.stdout.index("bad")
    assert "ranked by dice_GTVn" in result.stdout
    assert "Research software, not a medical device." in result.output


def test_the_board_is_sorted_by_what_is_asked(board: Path) -> None:
    result = RUN.invoke(app, [str(board), "--sort", "hd95_mm_GTVn", "--json"])
    (found,) = json.loads(result.stdout)
    assert [(e["rank"], e["model"]) for e in found["entries"]] == [(1, "bad"), (2, "good [v2]")]
    result = RUN.invoke(app, [str(board), "--sort", "dice_GTVn", "--ascending", "--json"])
    assert [e["model"] for e in json.loads(result.stdout)[0]["entries"]] == ["bad", "good [v2]"]


def test_the_board_is_found_by_the_environment(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIENE_LEADERBOARD", str(board))
    assert "good [v2]" in RUN.invoke(app, []).stdout


@pytest.mark.slow
def test_without_a_board_the_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIENE_LEADERBOARD", raising=False)
    result = RUN.invoke(app, [])
    assert result.exit_code == 2
    assert "BOARD" in result.output


def test_the_page_is_written(board: Path, tmp_path: Path) -> None:
    html = tmp_path / "pages" / "board.html"
    assert RUN.invoke(app, [str(board), "--html", str(html), "--latest"]).exit_code == 0
    assert "good [v2]" in html.read_text()


def test_boards_go_from_site_to_site(board: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "shared.json", tmp_path / "other"
    assert RUN.invoke(app, ["export", str(board), "-o", str(file)]).exit_code == 0
    result = RUN.invoke(app, ["import", str(other), str(file)])
    assert result.exit_code == 0
    assert "2 new entries, 0 known already" in result.output
    assert len(read_entries(other)) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--sort", "dise"],
        ["--metric", "dise"],
        ["--data", "ffff"],
    ],
)
def test_wrong_words_are_one_sentence_and_exit_code_2(board: Path, words: list[str]) -> None:
    result = RUN.invoke(app, [str(board), *words])
    assert result.exit_code == 2
    assert result.stderr.startswith("aiene: no ")
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_malformed_import_is_one_sentence_and_exit_code_2(board: Path, tmp_path: Path) -> None:
    file = tmp_path / "foreign.json"
    file.write_text('{"kind": "aiene-leaderboard", "format": 2, "entries": [{"patient": "x"}]}')
    result = RUN.invoke(app, ["import", str(board), str(file)])
    assert result.exit_code == 2
    assert result.stderr.strip() == (
        "aiene: foreign.json: entry 1: an entry holds unknown fields (patient); "
        "export it again at the other site."
    )


def test_a_board_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["show", str(tmp_path / "none.sqlite")])
    assert result.exit_code == 2
    assert "there is no leaderboard" in result.stderr


def test_help_is_there_for_the_whole_and_the_parts() -> None:
    for words in (
        ["--help"],
        ["-h"],
        ["show", "--help"],
        ["verify", "--help"],
        ["export", "--help"],
        ["import", "--help"],
    ):
        result = RUN.invoke(app, words)
        assert result.exit_code == 0
        assert "Usage" in result.output


def test_verify_tells_each_row_and_a_changed_one_is_exit_code_1(board: Path) -> None:
    result = RUN.invoke(app, ["verify", str(board)])
    assert (result.exit_code, result.stdout.count("  ok  ")) == (0, 2)
    with closing(sqlite3.connect(board)) as connection:
        connection.execute("UPDATE entries SET content = replace(content, '0.4', '0.9')")
        connection.commit()
    result = RUN.invoke(app, ["verify", str(board)])
    assert result.exit_code == 1
    assert "changed after it was made" in result.stdout
    assert "1 entries are valid, 1 are not." in result.stderr
    shown = RUN.invoke(app, ["show", str(board)])
    assert "bad" not in shown.stdout
    assert "not ranked: " in shown.stderr
    shared = RUN.invoke(app, ["export", str(board), "-o", str(board.parent / "shared.json")])
    assert "not exported: " in shared.stderr
    assert "1 entries written" in shared.stderr
