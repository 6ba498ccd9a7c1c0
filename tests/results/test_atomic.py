"""Files are whole or absent, and the system's refusals become sentences."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from aiene.errors import OutputError
from aiene.results import atomic


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "table.csv"
    file.write_text("old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match=r"table\.csv: the disk is full; free some space"):
        atomic.write_bytes(file, b"new")
    assert [f.name for f in tmp_path.iterdir()] == ["table.csv"]
    assert file.read_text() == "old"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EACCES, "no permission to write here; choose another folder with -o"),
        (errno.EROFS, "the file system is read-only; choose another folder with -o"),
        (errno.EDQUOT, "the disk quota is used up; free some space"),
        (errno.EIO, "it cannot be written"),
    ],
)
def test_each_refusal_of_the_system_is_a_sentence_and_leaves_nothing(
    number: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match=rf"nodes\.csv: {sentence}"):
        atomic.write_bytes(tmp_path / "nodes.csv", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic.os, "access", lambda *_: False)  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match="out: no permission to write here"):
        atomic.make_folder(tmp_path / "out")


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out: a file is in the way of this folder"):
        atomic.make_folder(tmp_path / "out")


def test_json_refuses_numbers_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "a.json", {"ene": float("nan")})
