"""The folder of a run: nothing of the user's is lost, no row is, and every end leaves a table.

The networks are stood in for by a road that is quick: what is tried here is what lies around it.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import aiene.case_worker
import aiene.cohort
import aiene.object_store
from aiene.cli.app import app
from aiene.cohort import RunSummary, Selection, run_cohort
from aiene.errors import OutputError, UsageError
from aiene.geometry.grid import Grid, Volume
from aiene.hashing import joined_sha256
from aiene.ingest.fingerprint import content_sha256
from aiene.results.nifti import nifti_bytes
from aiene.results.records import CaseArrays, CaseResult
from aiene.results.store import RunStore

GRID = Grid((6, 7, 8), (3.0, 2.0, 2.0), (0.0, 0.0, 0.0))
LABELS = Volume(np.zeros(GRID.size, np.uint8), GRID)


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the cases that were worked on, by a road without networks."""
    done: list[str] = []

    def preprocess_case(case: Any, preparation: Any, masks: Path | None = None, *, room: Any = None) -> Any:
        return SimpleNamespace(
            case=case, sha256=joined_sha256(content_sha256(case.files), content_sha256(()))
        )

    def infer_case(at: Any, networks: Any, settings: Any, *, labels: Any, midline_x: Any) -> Any:
        done.append(at.case.case_id)
        facts = {"content_sha256": at.sha256}
        return CaseResult(at.case.case_id, "no_nodes", facts=facts), CaseArrays(LABELS, LABELS)

    monkeypatch.setattr(aiene.case_worker, "preprocess_case", preprocess_case)
    monkeypatch.setattr(aiene.cohort, "infer_case", infer_case)
    monkeypatch.setattr(aiene.case_worker, "load_preparation", lambda *_: SimpleNamespace(midline_x=0.0))
    monkeypatch.setattr(aiene.case_worker, "load_networks", lambda *_, **__: SimpleNamespace(segmenter=None))
    return done


def write_ct(file: Path, value: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.decompress(nifti_bytes(Volume(np.full(GRID.size, value, np.int16), GRID))))
    return file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four CTs, a to d."""
    for name in "abcd":
        write_ct(tmp_path / "in" / f"{name}.nii")
    return tmp_path / "in"


def run(source: Path, out: Path, **more: Any) -> RunSummary:
    return run_cohort(source, out, device="cpu", jobs=1, **more)


def statuses(out: Path) -> dict[str, str]:
    table = pd.read_csv(out / "cases.csv", keep_default_na=False)
    return dict(zip(table.case_id, table.status, strict=True))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("given", "out"),
    [
        ("study/cases", "study"),
        ("study", "study"),
        ("study", "study/out"),
        ("link", "study"),
        ("study/cases", "link"),
    ],
)
def test_results_among_the_source_cts_are_refused_and_not_a_byte_is_lost(
    tmp_path: Path, worked: list[str], given: str, out: str
) -> None:
    for name in ("a", "b"):
        write_ct(tmp_path / "study" / "cases" / name / "ct.nii")
    (tmp_path / "link").symlink_to(tmp_path / "study")
    before = snapshot(tmp_path / "study")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="choose a folder beside it"):
            run(tmp_path / given, tmp_path / out, overwrite=overwrite)
    assert snapshot(tmp_path / "study") == before
    assert worked == []


def test_masks_among_the_results_are_refused(tmp_path: Path, source: Path, worked: list[str]) -> None:
    masks = tmp_path / "out" / "cases"
    for name in "abcd":
        write_ct(masks / f"{name}.nii")
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match="holds the folder of the masks"):
        run(source, tmp_path / "out", masks=masks)
    (tmp_path / "linked").mkdir()
    for name in "abcd":
        (tmp_path / "linked" / f"{name}.nii").symlink_to(masks / f"{name}.nii")
    with pytest.raises(UsageError, match="a mask, is in the folder for the results"):
        run(source, tmp_path / "out", masks=tmp_path / "linked")
    shutil.rmtree(tmp_path / "linked")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["patients.csv", "cases.csv", "nodes.csv", "run.json", "cases/a/ct.nii", "cases/a", "cases"]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_the_users_in_the_place_of_ours_is_refused_and_kept(
    tmp_path: Path, source: Path, worked: list[str], name: str, overwrite: bool
) -> None:
    (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / name).write_text("the user's own")
    before = snapshot(tmp_path / "out")
    with pytest.raises(UsageError, match=r"not written by aiene.*; move it away"):
        run(source, tmp_path / "out", overwrite=overwrite)
    assert snapshot(tmp_path / "out") == before
    assert worked == []


@pytest.mark.slow
def test_overwrite_removes_ours_and_nothing_else(tmp_path: Path, source: Path, worked: list[str]) -> None:
    out = tmp_path / "out"
    run(source, out)
    (source / "d.nii").unlink()
    (out / "cases" / "mine").mkdir()
    kept = {"cases/mine/ct.nii": "1", "cases/d/notes.txt": "2", "notes.txt": "3", "run_of_mine.json": "{}"}
    for name, content in kept.items():
        (out / name).write_text(content)
    run(source, out, overwrite=True)
    assert {name: (out / name).read_text() for name in kept} == kept
    assert [p.name for p in (out / "cases" / "d").iterdir()] == ["notes.txt"]
    assert statuses(out) == dict.fromkeys("abc", "no_nodes")
    assert len(worked) == 7


def test_a_table_that_was_edited_is_not_replaced_even_with_overwrite(
    tmp_path: Path, source: Path, worked: list[str]
) -> None:
    out = tmp_path / "out"
    run(source, out)
    (out / "patients.csv").write_text("edited")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"patients\.csv in out: .* changed since"):
            run(source, out, overwrite=overwrite)
    assert (out / "patients.csv").read_text() == "edited"
    assert len(list((out / "cases").iterdir())) == 4


def test_a_name_that_differs_in_case_alone_is_not_ours(
    tmp_path: Path, source: Path, worked: list[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "CASES.CSV").write_text("mine")
    if (out / "cases.csv").exists():  # such a file system: it is the same file
        with pytest.raises(UsageError):
            run(source, out)
    else:
        run(source, out)
    assert (out / "CASES.CSV").read_text() == "mine"


def set_back(file: Path, change: Callable[[Path], object]) -> None:
    """Change a file and give it the time that it had."""
    before = file.stat()
    change(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_changed_ct_with_its_old_size_and_time_is_done_again(
    tmp_path: Path, source: Path, worked: list[str]
) -> None:
    run(source, tmp_path / "out")
    set_back(source / "b.nii", lambda file: write_ct(file, 7))
    worked.clear()
    run(source, tmp_path / "out")
    assert worked == ["b"]


@pytest.mark.slow
def test_the_voxels_beside_a_header_count_too(tmp_path: Path, worked: list[str]) -> None:
    (tmp_path / "in").mkdir()
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 8 7 6\nencoding: raw\nendian: little\ndata file: a.raw\n"
    )
    (tmp_path / "in" / "a.nhdr").write_text(
        header
        + "space: left-posterior-superior\nspace directions: (2,0,0) (0,2,0) (0,0,3)\nspace origin: (0,0,0)\n"
    )
    (tmp_path / "in" / "a.raw").write_bytes(bytes(2 * 8 * 7 * 6))
    run(tmp_path / "in", tmp_path / "out")
    run(tmp_path / "in", tmp_path / "out")
    assert worked == ["a"]
    set_back(tmp_path / "in" / "a.raw", lambda file: file.write_bytes(b"\1" * (2 * 8 * 7 * 6)))
    run(tmp_path / "in", tmp_path / "out")
    assert worked == ["a", "a"]


def test_the_same_content_in_new_files_is_taken_up_again(
    tmp_path: Path, source: Path, worked: list[str]
) -> None:
    run(source, tmp_path / "out")
    for file in list(source.iterdir()):
        copied = shutil.copy2(file, tmp_path / "copied")
        Path(copied).replace(file)
    worked.clear()
    assert run(source, tmp_path / "out").exit_code == 0
    assert worked == []


@pytest.mark.slow
def test_check_content_reads_every_byte(
    tmp_path: Path, source: Path, worked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiene.object_store, "seal", lambda _: "a file system whose times say nothing")
    run(source, tmp_path / "out")
    set_back(source / "b.nii", lambda file: write_ct(file, 7))
    worked.clear()
    run(source, tmp_path / "out")
    assert worked == []
    run(source, tmp_path / "out", check_content=True)
    assert worked == ["b"]
    said = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).stdout
    assert "--check-content" in said
    assert "ctime" in said


def test_results_whose_label_maps_are_gone_are_made_again(
    tmp_path: Path, source: Path, worked: list[str]
) -> None:
    run(source, tmp_path / "out")
    (tmp_path / "out" / "cases" / "c" / "nodes.nii.gz").unlink()
    worked.clear()
    run(source, tmp_path / "out")
    assert worked == ["c"]
    assert (tmp_path / "out" / "cases" / "c" / "nodes.nii.gz").exists()


@pytest.mark.slow
def test_parts_that_end_together_lose_no_row(tmp_path: Path, source: Path, worked: list[str]) -> None:
    for round_ in range(4):
        out = tmp_path / f"out{round_}"
        parts = [
            threading.Thread(
                target=run, args=(source, out), kwargs={"selection": Selection(num_parts=4, part_id=k)}
            )
            for k in range(4)
        ]
        for part in parts:
            part.start()
        for part in parts:
            part.join()
        assert statuses(out) == dict.fromkeys("abcd", "no_nodes")
        assert len(pd.read_csv(out / "patients.csv")) == 4


def test_what_another_part_has_not_done_yet_is_a_row_that_says_so(
    tmp_path: Path, source: Path, worked: list[str]
) -> None:
    run(source, tmp_path / "out", selection=Selection(num_parts=2, part_id=0))
    table = pd.read_csv(tmp_path / "out" / "cases.csv", keep_default_na=False).set_index("case_id")
    assert table.status.to_dict() == {"a": "no_nodes", "b": "skipped", "c": "no_nodes", "d": "skipped"}
    assert table.reason["b"] == "not done yet: it is for --part-id 1 of 2"


@pytest.mark.slow
def test_overwrite_of_one_part_leaves_the_others_results(
    tmp_path: Path, source: Path, worked: list[str]
) -> None:
    for part_id in (0, 1):
        run(source, tmp_path / "out", selection=Selection(num_parts=2, part_id=part_id))
    worked.clear()
    run(source, tmp_path / "out", selection=Selection(num_parts=2, part_id=1), overwrite=True)
    assert worked == ["b", "d"]
    assert statuses(tmp_path / "out") == dict.fromkeys("abcd", "no_nodes")


@pytest.mark.slow
def test_half_a_case_of_a_live_call_is_left_alone_and_overwrite_waits(
    tmp_path: Path, source: Path, worked: list[str]
) -> None:
    out = tmp_path / "out"
    with RunStore(out) as live:
        half = live.room / "case-1"
        half.mkdir()
        run(source, out)
        assert half.exists()
        with pytest.raises(UsageError, match="another aiene run is active in out"):
            run(source, out, overwrite=True)
    run(source, out, overwrite=True)
    assert statuses(out) == dict.fromkeys("abcd", "no_nodes")


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.EACCES, errno.EILSEQ])
@pytest.mark.slow
def test_a_case_that_cannot_be_written_is_a_row_and_the_next_one_goes_on(
    tmp_path: Path, source: Path, worked: list[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if Path(target).name == "b":
            raise OSError(number, os.strerror(number))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    summary = run(source, tmp_path / "out", selection=Selection(num_parts=2, part_id=1))
    assert [r.status for r in summary.results] == ["failed", "no_nodes"]
    assert "its results cannot be written: " in summary.results[0].reason
    monkeypatch.setattr(Path, "rename", rename)
    run(
        source, tmp_path / "out", selection=Selection(num_parts=2, part_id=0)
    )  # the other part tells of it too
    assert statuses(tmp_path / "out") == {"a": "no_nodes", "b": "failed", "c": "no_nodes", "d": "no_nodes"}


def test_the_longest_name_that_the_file_system_takes_is_a_case(tmp_path: Path, worked: list[str]) -> None:
    long = "x" * 255
    write_ct(tmp_path / "in" / long / "ct.nii")
    write_ct(tmp_path / "in" / "a" / "ct.nii")
    run(tmp_path / "in", tmp_path / "out")
    (short,) = set(statuses(tmp_path / "out")) - {"a"}  # cut, so that names made from it fit too
    assert re.fullmatch(r"x{150,}~\w+", short)
    assert statuses(tmp_path / "out") == {"a": "no_nodes", short: "no_nodes"}
    assert (tmp_path / "out" / "cases" / short / "case.json").is_file()


@pytest.mark.parametrize("case_id", ["..", ".", "", "a/b", "a\0b"])
def test_an_id_that_leads_elsewhere_is_never_a_path(tmp_path: Path, case_id: str) -> None:
    with (
        RunStore(tmp_path / "out") as store,
        pytest.raises(OutputError, match="cannot be used as a folder name"),
    ):
        store.write_case(CaseResult(case_id, "failed", "x"), None)
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_no_record_can_hold_is_a_row(
    tmp_path: Path, source: Path, worked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    infer_case = aiene.cohort.infer_case  # type: ignore[attr-defined]

    def odd(at: Any, *words: Any, **more: Any) -> Any:
        result, arrays = infer_case(at, *words, **more)
        if result.case_id == "b":
            result.facts["odd"] = float("nan")
        return result, arrays

    monkeypatch.setattr(aiene.cohort, "infer_case", odd)
    run(source, tmp_path / "out")
    assert statuses(tmp_path / "out") == {"a": "no_nodes", "b": "failed", "c": "no_nodes", "d": "no_nodes"}


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_a_run_that_ends_early_leaves_a_row_for_every_case(
    tmp_path: Path, source: Path, worked: list[str], end: type[BaseException]
) -> None:
    def stop(step: Any) -> None:
        if step.number == 2:
            raise end

    with pytest.raises(end):
        run(source, tmp_path / "out", on_case=stop)
    assert statuses(tmp_path / "out") == {"a": "no_nodes", "b": "no_nodes", "c": "skipped", "d": "skipped"}
    assert len(pd.read_csv(tmp_path / "out" / "patients.csv")) == 2
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["status"], [c["case_id"] for c in record["cases"]]) == ("stopped", ["a", "b"])
    assert not (tmp_path / "out" / "prediction_list").exists()
    worked.clear()
    run(source, tmp_path / "out")
    assert worked == ["c", "d"]


def test_the_table_of_cases_grows_while_the_run_goes_on(
    tmp_path: Path, source: Path, worked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiene.cohort, "_TABLE_EVERY_S", 0.0)
    monkeypatch.setattr(aiene.cohort, "_TABLE_SHARE", 0.0)
    seen = []
    run(source, tmp_path / "out", on_case=lambda _: seen.append(sorted(statuses(tmp_path / "out").values())))
    done = [["no_nodes"] * n + ["skipped"] * (4 - n) for n in (1, 2, 3, 4)]
    assert seen == done


def test_nothing_half_written_stays_and_zips_are_unpacked_inside_out(
    tmp_path: Path, worked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ct(tmp_path / "ct.nii")
    (tmp_path / "in").mkdir()
    with ZipFile(tmp_path / "in" / "z.zip", "w") as archive:
        archive.write(tmp_path / "ct.nii", "ct.nii")
    monkeypatch.setattr("tempfile.gettempdir", lambda: pytest.fail("not in the system's temporary folder"))
    run(tmp_path / "in", tmp_path / "out")
    assert statuses(tmp_path / "out") == {"z": "no_nodes"}
    assert {p.name for p in (tmp_path / "out" / ".aiene").rglob("*")} == {"lock", "written.jsonl"}


def test_an_unwritable_folder_is_named_by_its_own_name(
    tmp_path: Path, source: Path, worked: list[str]
) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(
        OutputError, match=r"^results: a file is in the way of this folder; choose another folder"
    ):
        run(source, tmp_path / "results")
    with pytest.raises(OutputError, match=r"^out: part of this path is a file"):
        run(source, tmp_path / "results" / "out")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_folder_without_permission_is_named(tmp_path: Path, source: Path) -> None:
    tmp_path.chmod(0o755)
    program = f"""
import os
from pathlib import Path
from aiene.results.store import RunStore
from aiene.errors import OutputError
os.setuid(65534)
for name in ("{tmp_path}/out", "{tmp_path}"):
    try:
        with RunStore(Path(name)) as store:
            store.open({{}}, overwrite=False)
    except OutputError as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    lines = said.stdout.splitlines()
    assert lines[0] == "out: no permission to write here; choose another folder with -o.", said.stderr
    assert lines[1].startswith(f"{tmp_path.name}: no permission to write here")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process(cts: Path, tmp_path: Path, number: signal.Signals) -> None:
    line = [
        sys.executable,
        "-m",
        "aiene",
        "run",
        str(cts),
        "-o",
        str(tmp_path / "out"),
        "--jobs",
        "2",
        "-d",
        "cpu",
    ]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        workers: list[int] = []
        end = time.monotonic() + 120
        while len(workers) < 2 and time.monotonic() < end:
            workers = _spawned_by(process.pid)
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate()
    assert len(workers) == 2
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert "aiene: stopped; the same command continues from here." in said
        assert "Traceback" not in said
        assert set(statuses(tmp_path / "out").values()) == {"skipped"}
    end = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def _spawned_by(parent: int) -> list[int]:
    """Workers of a process, by what Linux tells; empty elsewhere."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, words = (folder / "status").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"\nPPid:\t{parent}\n" in status and b"spawn_main" in words:
            found.append(int(folder.name))
    return found
