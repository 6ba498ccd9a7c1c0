"""Rooms of live processes are left alone, those of dead ones go; workers end with their parent."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from zipfile import ZipFile

import pytest

from aiene.ingest.read import unpacked
from aiene.results.atomic import PREFIX, Room, clear_abandoned, others_at_work

HOLD = """
import sys, time
from pathlib import Path
from aiene.results.atomic import Room
with Room(Path(sys.argv[1])) as room:
    (room.path / "half").write_text("half")
    print(room.path, flush=True)
    time.sleep(600)
"""
WORK = """
import os, sys, time
from aiene.parallel import Crew

def busy():
    time.sleep(600)

if __name__ == "__main__":
    with Crew(2) as crew:
        print(*(crew.submit(os.getpid).result() for _ in range(4)), flush=True)
        futures = [crew.submit(time.sleep, 600) for _ in range(2)]
        print(*(p.pid for p in crew._workers), flush=True)
        futures[0].result()
"""


def started(program: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True)


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def gone_soon(pid: int, seconds: float = 120.0) -> bool:
    end = time.monotonic() + seconds
    while lives(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not lives(pid)


def test_a_room_is_private_and_goes_with_all_that_was_made_for_it(tmp_path: Path) -> None:
    with Room(tmp_path / "out" / ".aiene" / "work") as room:
        assert stat.S_IMODE(room.path.stat().st_mode) == 0o700
        (room.path / "x").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_a_room_that_the_next_one_clears_and_a_live_one_is_left(
    tmp_path: Path,
) -> None:
    (tmp_path / f"{PREFIX}of-the-user").mkdir()  # no room: nothing in it says so
    with started(HOLD, str(tmp_path)) as process, Room(tmp_path) as mine:
        assert process.stdout is not None
        room = Path(process.stdout.readline().strip())
        clear_abandoned(tmp_path)
        assert (room / "half").exists()
        assert mine.path.exists()
        assert others_at_work(tmp_path, mine)
        process.kill()
        process.wait()
        assert (room / "half").exists()
        clear_abandoned(tmp_path)
        assert not room.exists()
        assert mine.path.exists()
        assert not others_at_work(tmp_path, mine)
    assert [p.name for p in tmp_path.iterdir()] == [f"{PREFIX}of-the-user"]


@pytest.mark.parametrize("with_room", [True, False])
def test_an_archive_is_unpacked_where_a_killed_process_is_cleared(
    tmp_path: Path, with_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with ZipFile(tmp_path / "in-use", "w") as archive:  # the name of a room's own file, too
        archive.writestr("ct.txt", "voxels")
    room = tmp_path / "room" if with_room else None
    if room is not None:
        room.mkdir()
    with unpacked(tmp_path / "in-use", room=room) as folder:
        assert (folder / "ct.txt").read_text() == "voxels"
        assert (room or tmp_path / "tmp") in folder.parents
    assert list((room or tmp_path / "tmp").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent_at_once(number: signal.Signals) -> None:
    with started(WORK) as process:
        assert process.stdout is not None
        process.stdout.readline()
        workers = [int(word) for word in process.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(lives, workers))
        os.kill(process.pid, number)
        assert all(map(gone_soon, workers))


def test_a_removal_that_was_broken_off_is_taken_up_again(tmp_path: Path) -> None:
    with Room(tmp_path) as room:
        half = tmp_path / f"{PREFIX}half"
        half.mkdir()
        (half / "case").mkdir()
        (half / next(room.path.iterdir()).name).touch()  # what says that it is a room; nobody holds it
        clear_abandoned(tmp_path)
        assert not half.exists()
        assert room.path.exists()
