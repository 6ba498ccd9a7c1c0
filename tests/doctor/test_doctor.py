"""What is broken in an install is named, with what to do."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.doctor import bundles, machine
from aiene.doctor.bundles import Answer, judged
from aiene.doctor.machine import Diagnosis, Finding, examine
from aiene.doctor.report import write_report
from aiene.errors import OutputError
from aiene.models.bundle import default_folder, find_bundle
from aiene.pacs.config import Settings
from aiene.pacs.queue import Instance, Queue
from aiene.pacs.store import Store

Memory = namedtuple("Memory", ["available", "total"])


def problems(check: Any) -> list[str]:
    return [f"{f.area}: {f.text}; {f.remedy}" for f in check() if f.level == "problem"]


@pytest.fixture
def copy_of_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with a copy of the default bundle."""
    monkeypatch.setenv("AIENE_MODELS", str(tmp_path / "models"))
    shutil.copytree(default_folder(), tmp_path / "models" / "copy")
    return tmp_path / "models" / "copy"


def of_bundles() -> list[str]:
    return problems(lambda: bundles.bundles(quick=True))


def test_a_bundle_with_a_changed_a_missing_and_a_strange_file_and_a_broken_card(
    copy_of_the_bundle: Path,
) -> None:
    assert of_bundles() == []
    weights = copy_of_the_bundle / "classifier" / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"x")
    assert "weights.safetensors: its SHA-256 is not the one on the model card" in of_bundles()[0]
    weights.unlink()
    assert "weights.safetensors: missing from the model bundle" in of_bundles()[0]
    weights.write_bytes(content)
    (copy_of_the_bundle / "stranger.bin").write_text("x")
    assert "stranger.bin: not on the model card" in of_bundles()[0]
    (copy_of_the_bundle / "stranger.bin").unlink()
    (copy_of_the_bundle / "model.json").write_text("{")
    assert "not a model card" in of_bundles()[0]


@pytest.mark.parametrize(
    ("answer", "wanted", "level"),
    [
        (Answer(1000, 4, 0.5), {"voxels": 1000, "ene": 0.5}, "ok"),
        (Answer(1015, 4, 0.51), {"voxels": 1000, "ene": 0.5}, "ok"),  # another processor
        (Answer(900, 4, 0.5), {"voxels": 1000, "ene": 0.5}, "problem"),
        (Answer(1000, 4, 0.6), {"voxels": 1000, "ene": 0.5}, "problem"),
        (Answer(0, 0, None), {"voxels": 1000, "ene": 0.5}, "problem"),
        (Answer(5, 1, 0.1), None, "ok"),  # a bundle of one's own: no known answer
    ],
)
def test_an_answer_of_the_networks_is_compared(answer: Answer, wanted: Any, level: str) -> None:
    assert judged("bundle x", answer, wanted).level == level


def test_the_answer_of_the_default_bundle_is_known() -> None:
    """After each change of its card: python -m tools.measurements.doctor_expected."""
    assert find_bundle("default").sha256 in bundles.expected()


@pytest.mark.slow
def test_the_default_bundle_gives_the_answer_that_is_known() -> None:
    bundle = find_bundle("default")
    finding = judged("bundle default", bundles.answer_of(bundle), bundles.expected()[bundle.sha256])
    assert (finding.level, finding.text[:23]) == ("ok", "self-test: as expected ")


def test_a_python_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "version_info", (3, 9, 1))  # type: ignore[attr-defined]
    assert "use Python 3.11 to 3.13" in problems(machine.python)[0]


def test_a_package_that_is_missing_or_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_one.py").write_text("raise ImportError('no such symbol')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(machine, "_CORE", ("numpy", "broken_one", "not_there_at_all"))
    said = problems(machine.core)
    assert said[0].startswith("packages: broken_one cannot be loaded (ImportError)")
    assert said[1].startswith("packages: not_there_at_all cannot be loaded (not installed)")
    monkeypatch.setattr(machine, "_MODULES", {"hospital": ("broken_one",), "risk": ("not_there_at_all",)})
    found = {f.area: f for f in machine.extras()}
    assert found["extra hospital"].level == "problem"
    assert found["extra risk"].level == "note"
    assert "pip install 'aiene[risk]'" in found["extra risk"].remedy


def test_threads_that_are_no_number_or_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert "not a number of threads; unset OMP_NUM_THREADS" in problems(machine.cores_and_threads)[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    (first, *_) = machine.cores_and_threads()
    assert (first.level, "4096, more than" in first.text) == ("note", True)


def test_too_little_memory_also_by_a_containers_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: Memory(2e9, 4e9))  # type: ignore[attr-defined]
    assert "give it 6 GB" in problems(machine.memory)[0]
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: Memory(60e9, 64e9))  # type: ignore[attr-defined]
    monkeypatch.setattr(machine, "_cgroup_limit", lambda: int(3e9))
    assert "of 3.0 GB" in problems(machine.memory)[0]
    monkeypatch.setattr(machine, "_cgroup_limit", lambda: None)
    assert problems(machine.memory) == []


def test_a_disk_without_room_and_a_folder_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = namedtuple("usage", ["free"])
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage(1e9))  # type: ignore[attr-defined]
    assert "only 1.0 GB free in the current folder; free some space" in problems(machine.disk_and_folders)[0]
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage(100e9))  # type: ignore[attr-defined]
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("AIENE_MODELS", str(tmp_path / "file" / "models"))
    assert "nothing can be written in the models folder" in problems(machine.disk_and_folders)[0]
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    assert "TMPDIR names a folder that is not there" in problems(machine.disk_and_folders)[0]


def test_no_font_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = pytest.importorskip("matplotlib.font_manager")

    def none(*_: Any, **__: Any) -> str:
        raise ValueError

    monkeypatch.setattr(manager, "findfont", none)
    assert "charts find no font" in problems(machine.pictures)[0]


@pytest.mark.slow
def test_a_peer_that_is_not_there() -> None:
    done = CliRunner().invoke(app, ["doctor", "--quick", "--json", "--peer", "NOBODY@127.0.0.1:1"])
    told = json.loads(done.stdout)
    assert done.exit_code == told["exit_code"] == 1
    (peer,) = [f for f in told["findings"] if f["area"] == "peer NOBODY@127.0.0.1:1"]
    assert (peer["level"], "nothing listens there" in peer["text"]) == ("problem", True)
    assert CliRunner().invoke(app, ["doctor", "--peer", "nonsense"]).exit_code == 2


def test_the_report_holds_nothing_of_a_patient_or_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "MILLER" / "store")
    queue = Queue(store.queue_file)
    queue.add(Instance(store.study_name("1.2.840.99.7"), "i", "s", "0" * 64, True, None), "1.2.840.99.7")
    name = store.study_name("1.2.840.99.7")
    queue.move(
        name,
        "failed",
        expected=("received",),
        reason=f"MILLER.dcm: it is broken in {tmp_path}/MILLER; 1.2.840.99.7",
    )
    queue.close()
    settings = Settings.model_validate(
        {
            "store": tmp_path / "MILLER" / "store",
            "peers": {"MILLER": {"ae_title": "MILLER", "port": 1}},
            "send_to": ["MILLER"],
            "run": {"model": "/data/MILLER"},
        }
    )
    monkeypatch.setenv("AIENE_MODELS", "/home/MILLER/models")
    found = Diagnosis(
        (Finding("peer MILLER@pacs:1", "problem", "MILLER@pacs:1: nothing listens there", "start it"),)
    )
    write_report(tmp_path / "fault.zip", found, settings)
    with zipfile.ZipFile(tmp_path / "fault.zip") as archive:
        content = "".join(archive.read(n).decode() for n in archive.namelist())
        assert set(archive.namelist()) >= {"doctor.json", "machine.json", "packages.json", "listener.json"}
    for secret in ("MILLER", "1.2.840", str(tmp_path), name, f'"{os.uname().nodename}"'):
        assert secret not in content, secret
    assert (tmp_path / "fault.zip").stat().st_mode & 0o777 == 0o600
    with pytest.raises(OutputError, match="a file of this name exists"):
        write_report(tmp_path / "fault.zip", found)


def test_every_check_is_run_and_a_problem_sets_the_exit_code() -> None:
    ok, bad = Finding("a", "ok", "x"), Finding("b", "problem", "y", "z")
    told: list[Finding] = []
    assert examine([lambda: iter([ok]), lambda: iter([bad])], told.append).exit_code == 1
    assert told == [ok, bad]
    assert examine([lambda: iter([ok])]).exit_code == 0
