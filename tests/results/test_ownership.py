"""Only what was noted as ours is replaced or removed; results never lie among inputs."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from aiene.errors import OutputError, UsageError
from aiene.results.ownership import (
    MARKER,
    Owned,
    refuse_files_within,
    refuse_overlap,
    write_with_record,
)


def test_ours_is_replaced_and_removed_and_anything_else_is_not(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("the user's own")
    owned = Owned(tmp_path)
    with pytest.raises(UsageError, match=r"patients\.csv in .*not written by aiene.*move it away"):
        owned.check("cases.csv", "patients.csv")
    with pytest.raises(OutputError, match=r"patients\.csv: the file there was not written by aiene"):
        owned.write(tmp_path / "patients.csv", b"ours")
    owned.remove(tmp_path / "patients.csv")
    assert (tmp_path / "patients.csv").read_text() == "the user's own"
    for content in (b"1", b"2"):
        owned.write(tmp_path / "cases.csv", content)
    assert Owned(tmp_path).owns(tmp_path / "cases.csv")  # another process
    owned.remove(tmp_path / "cases.csv")
    assert not (tmp_path / "cases.csv").exists()


def test_a_table_of_ours_that_was_edited_is_the_users(tmp_path: Path) -> None:
    owned = Owned(tmp_path)
    owned.write(tmp_path / "patients.csv", b"case_id\na\n")
    with (tmp_path / "patients.csv").open("ab") as file:
        file.write(b"b\n")
    with pytest.raises(OutputError, match="changed since"):
        owned.write(tmp_path / "patients.csv", b"new")
    owned.clear()
    assert (tmp_path / "patients.csv").read_bytes() == b"case_id\na\nb\n"


@pytest.mark.parametrize("to", ["elsewhere.csv", "nowhere.csv"])
def test_a_link_in_the_place_of_a_file_is_never_followed(tmp_path: Path, to: str) -> None:
    (tmp_path / "elsewhere.csv").write_text("far away")
    out = tmp_path / "out"
    owned = Owned(out)
    owned.write(out / "cases.csv", b"far away")  # the same content as what the link leads to
    (out / "cases.csv").unlink()
    (out / "cases.csv").symlink_to(tmp_path / to)
    with pytest.raises(OutputError):
        owned.write(out / "cases.csv", b"new")
    owned.clear()
    assert (out / "cases.csv").is_symlink()
    assert (tmp_path / "elsewhere.csv").read_text() == "far away"


def test_a_folder_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "cases").symlink_to(tmp_path / "theirs")
    with pytest.raises(OutputError):
        Owned(out).write(out / "cases" / "case.json", b"{}")
    assert list((tmp_path / "theirs").iterdir()) == []


def test_a_folder_of_the_users_is_not_claimed_and_ours_is_ours_again(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    owned = Owned(tmp_path)
    owned.claim("tables")  # empty: nothing can be lost
    (tmp_path / "tables" / "t.csv").write_text("1")
    Owned(tmp_path).claim("tables")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.png").write_text("1")
    with pytest.raises(UsageError, match=r"figures in .* the folder there was not made by aiene"):
        owned.claim("figures")
    owned.clear(tmp_path / "tables")
    assert not (tmp_path / "tables").exists()
    assert (tmp_path / "figures" / "mine.png").exists()


def made(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def test_what_others_laid_into_a_case_folder_stays_where_it_is(tmp_path: Path) -> None:
    owned, target = Owned(tmp_path), tmp_path / "cases" / "one"
    target.parent.mkdir()
    owned.put(made(tmp_path / "a", case="1", old="1"), target, last="case")
    assert not (tmp_path / "a").exists()
    (target / "notes.txt").write_text("read by Dr. A")
    owned.put(made(tmp_path / "b", case="2", new="2"), target, last="case")
    assert {p.name: p.read_text() for p in target.iterdir()} == {
        "case": "2",
        "new": "2",
        "notes.txt": "read by Dr. A",
    }
    owned.clear(tmp_path / "cases")
    assert [p.name for p in target.iterdir()] == ["notes.txt"]


def test_a_corrected_mask_in_a_case_folder_is_not_replaced(tmp_path: Path) -> None:
    owned, target = Owned(tmp_path), tmp_path / "one"
    owned.put(made(tmp_path / "a", case="1", labels="1"), target, last="case")
    (target / "labels").write_text("corrected by hand")
    with pytest.raises(OutputError, match="labels: the file there"):
        owned.put(made(tmp_path / "b", case="2", labels="2"), target, last="case")
    assert (target / "labels").read_text() == "corrected by hand"
    assert (target / "case").read_text() == "1"


def test_a_note_that_a_killed_process_left_half_does_not_spoil_the_next(tmp_path: Path) -> None:
    Owned(tmp_path).write(tmp_path / "a.csv", b"a")
    with (tmp_path / MARKER / "written.jsonl").open("ab") as file:
        file.write(b'{"path": "b.csv", "sh')
    Owned(tmp_path).write(tmp_path / "c.csv", b"c")
    later = Owned(tmp_path)
    assert later.owns(tmp_path / "a.csv")
    assert later.owns(tmp_path / "c.csv")


def test_what_another_process_notes_meanwhile_is_known(tmp_path: Path) -> None:
    first, second = Owned(tmp_path), Owned(tmp_path)
    first.write(tmp_path / "a.csv", b"1")
    second.write(tmp_path / "a.csv", b"2")
    first.write(tmp_path / "a.csv", b"3")
    assert (tmp_path / "a.csv").read_bytes() == b"3"


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    Owned(tmp_path).write(tmp_path / "seg.dcm", b"1", private=True)
    assert stat.S_IMODE((tmp_path / "seg.dcm").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / MARKER).stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("study/cases", "study"),
        ("study", "study"),
        ("study", "study/results/new"),
        ("study", "study/../study/"),
        ("study/cases", "link"),
        ("link/cases", "study"),
        ("link", "study/out"),
        ("study/cases/a.nii.gz", "study/cases"),
    ],
)
def test_results_among_inputs_are_refused_by_whatever_name(tmp_path: Path, source: str, out: str) -> None:
    (tmp_path / "study" / "cases").mkdir(parents=True)
    (tmp_path / "study" / "cases" / "a.nii.gz").touch()
    (tmp_path / "link").symlink_to(tmp_path / "study")
    with pytest.raises(
        UsageError, match=r"the folder for the results .* the input .*choose a folder beside it"
    ):
        refuse_overlap(tmp_path / out, {"the input": tmp_path / source})


def test_results_beside_the_input_are_taken(tmp_path: Path) -> None:
    (tmp_path / "study" / "in").mkdir(parents=True)
    (tmp_path / "study" / "a.nii.gz").touch()
    for source in ("study/in", "study/a.nii.gz"):
        refuse_overlap(tmp_path / "study" / "out", {"the input": tmp_path / source, "masks": None})
    refuse_overlap(tmp_path / "study2", {"the input": tmp_path / "study"})


def test_a_link_in_the_input_that_leads_into_the_results_is_seen(tmp_path: Path) -> None:
    for folder in ("in", "out/cases/a"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "out" / "cases" / "a" / "ct.nii.gz").touch()
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "out" / "cases")
    (tmp_path / "in" / "file.nii.gz").symlink_to(tmp_path / "out" / "cases" / "a" / "ct.nii.gz")
    for found in ("folder/a/ct.nii.gz", "file.nii.gz"):
        with pytest.raises(UsageError, match="a file of the input, is in the folder for the results"):
            refuse_files_within(tmp_path / "out", [tmp_path / "in" / found], "a file of the input")


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="Linux only")  # noqa: PTH110
def test_a_lock_is_let_go(tmp_path: Path) -> None:
    owned = Owned(tmp_path)
    for _ in range(2):
        with owned.lock():
            owned.write(tmp_path / "a", b"1")


def test_a_single_file_is_ours_by_the_record_beside_it(tmp_path: Path) -> None:
    table, record = tmp_path / "t.csv", tmp_path / "t.json"
    for content in (b"a\n1\n", b"a\n2\n"):
        assert write_with_record(table, content, {"how": 1}) == record
        assert table.read_bytes() == content
    assert json.loads(record.read_text())["how"] == 1
    table.write_bytes(b"a\n3\n")
    with pytest.raises(OutputError, match=r"t\.csv: the file there was not written by aiene"):
        write_with_record(table, b"a\n4\n", {})
    assert table.read_bytes() == b"a\n3\n"


@pytest.mark.parametrize("name", ["t.csv", "t.json"])
def test_a_single_file_of_the_users_is_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"file": "mine"}')
    with pytest.raises(OutputError, match=name):
        write_with_record(tmp_path / "t.csv", b"a\n1\n", {})
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == '{"file": "mine"}'


def test_a_record_of_another_table_does_not_make_this_one_ours(tmp_path: Path) -> None:
    write_with_record(tmp_path / "t.csv", b"a\n1\n", {})
    (tmp_path / "t.tsv").write_bytes(b"a\n1\n")
    with pytest.raises(OutputError, match=r"t\.tsv"):
        write_with_record(tmp_path / "t.tsv", b"new", {})
