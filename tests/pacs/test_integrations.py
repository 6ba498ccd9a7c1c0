"""The folders under integrations/: as much of each as can run here."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from typer.main import get_command

from aiene.cli.app import app
from aiene.cohort import RunSummary
from aiene.ingest.find import read_input_list
from aiene.nodes.node import CountingRule
from aiene.results.records import CaseResult
from aiene.results.store import RunStore
from builders.export_runs import write_run
from builders.orthanc import Orthanc
from builders.pacs_site import Site, ThreadCrew, oblique_series, settings_for, uid_of_study
from builders.viewer_runs import write_patterned_run

ROOT = Path(__file__).resolve().parents[2] / "integrations"


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def knows(words: list[str]) -> bool:
    """Whether `aiene` has this command with these options."""
    command: Any = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words[0]]
        words = words[1:]
    options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    return all(w in options for w in words if w.startswith("-"))


def test_every_command_that_a_file_names_is_there() -> None:
    found = []
    for file in (f for f in ROOT.rglob("*") if f.is_file() and f.suffix != ".pyc"):
        for line in re.findall(
            r"(?:^|bin/|\")aiene ((?:dicom |models )?\w+ [^\n\"`]*)", file.read_text(), re.M
        ):
            words = [w for w in line.split() if not w.startswith("{")]
            found.append((file.name, words))
            assert knows(words), (file, line)
    assert {name for name, _ in found} >= {"aiene-listen.service", "Snakefile"}


def test_compose_and_mhub_files_are_sound() -> None:
    compose = yaml.safe_load((ROOT / "orthanc" / "compose.yaml").read_text())
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
    assert json.loads((ROOT / "orthanc" / "orthanc.json").read_text())["AuthenticationEnabled"] is True
    meta = json.loads((ROOT / "mhub" / "aiene" / "meta.json").read_text())
    assert {"id", "name", "title", "summary", "details", "info"} <= meta.keys()
    pipeline = yaml.safe_load((ROOT / "mhub" / "aiene" / "config" / "default.yml").read_text())
    assert "AieneRunner" in pipeline["execute"]
    dockerfile = (ROOT / "mhub" / "aiene" / "dockerfiles" / "Dockerfile").read_text()
    assert not re.search(r"^(COPY|ADD) ", dockerfile, re.M)  # by MHub's contract


@pytest.fixture
def run(tmp_path: Path) -> Any:
    oblique_series(tmp_path / "ct", "integrated")
    made = write_run(tmp_path / "out", tmp_path / "ct", axes=False)
    results = RunStore(tmp_path / "out").results([made.result.case_id])
    (tmp_path / "out" / "nodes.csv").write_text(
        "case_id,ene,name,side,native_volume_mm3,pos,ene_classification\n"
        f"{made.result.case_id},0.6,GTVn_01,left,1,0.9,1\n{made.result.case_id},,GTVn_02,right,2,,\n"
        f"{made.result.case_id},,,,,,\n"
    )
    return SimpleNamespace(
        made=made,
        summary=RunSummary(tuple(results), {}, "", (), CountingRule(0.3)),
        out=tmp_path / "out",
        folder=tmp_path,
    )


@pytest.mark.slow
def test_grand_challenge_finds_its_results(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GC_OUTPUT", str(run.folder / "output"))
    program = load(ROOT / "grand_challenge" / "process.py")
    monkeypatch.setattr(program, "OUTPUT", run.folder / "output")
    program.write(run.summary, run.out)
    (file,) = (run.folder / "output" / "images" / "lymph-node-segmentation").glob("*.mha")
    image = sitk.ReadImage(str(file))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), run.made.labels)
    np.testing.assert_allclose(image.GetSpacing()[::-1], run.made.native.spacing, atol=1e-5)
    (told,) = json.loads((run.folder / "output" / "results.json").read_text())
    assert told["status"] == "ok"
    assert (
        json.loads((run.folder / "output" / "extranodal-extension.json").read_text())[0]["name"] == "GTVn_01"
    )


def test_hecktor_gets_a_mask_a_patient_and_its_zip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = load(ROOT / "hecktor" / "predict.py")
    source = write_patterned_run(tmp_path / "made")
    images = tmp_path / "images" / "CHUP-001"
    images.mkdir(parents=True)
    shutil.copy(source.series / "case.nii.gz", images / "CHUP-001__CT.nii.gz")
    shutil.copy(source.series / "case.nii.gz", images / "CHUP-001__PT.nii.gz")
    made: list[Any] = []

    def planted(listed: Path, out: Path) -> RunSummary:
        (entry,) = read_input_list(listed)
        assert entry.image.name == "CHUP-001__CT.nii.gz"
        folder = tmp_path / "one"
        folder.mkdir()
        shutil.copy(entry.image, folder / f"{entry.case_id}.nii.gz")
        made.append(write_run(out, folder))
        failed = CaseResult("MDA-002", "failed", "no neck")
        return RunSummary((made[0].result, failed), {}, "", (), CountingRule(0.3))

    monkeypatch.setattr(program, "run_cohort", planted)
    out = tmp_path / "out"
    assert program.main([str(tmp_path / "images"), str(out)]) == 1
    mask = sitk.ReadImage(str(out / "masks" / "CHUP-001.nii.gz"))
    ct = sitk.ReadImage(str(images / "CHUP-001__CT.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), made[0].labels)
    assert set(np.unique(sitk.GetArrayFromImage(mask))) == {0, 1, 2}
    for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(mask, of)(), getattr(ct, of)(), atol=1e-4)
    with zipfile.ZipFile(out / "masks.zip") as archive:
        assert archive.namelist() == ["masks/CHUP-001.nii.gz"]
        assert archive.read("masks/CHUP-001.nii.gz") == (out / "masks" / "CHUP-001.nii.gz").read_bytes()
    assert (out / "cases.csv").read_text().splitlines()[1:] == ["CHUP-001,ok,", "MDA-002,failed,no neck"]
    with pytest.raises(SystemExit) as ended:
        program.main([str(tmp_path / "made"), str(out)])
    assert ended.value.code == 2
    assert "no file *__CT.nii.gz lies there" in capsys.readouterr().err


@pytest.mark.slow
def test_nextflows_commands_make_one_cohort_of_all_parts(tmp_path: Path) -> None:
    """Each process's script with its values filled in; Nextflow itself cannot be had here."""
    text = (ROOT / "nextflow" / "main.nf").read_text()
    scripts = [block.strip() for block in re.findall(r'script:\s+"""(.*?)"""', text, re.S)]
    parts = int(re.search(r"params.parts = (\d+)", text)[1])  # type: ignore[index]
    values = {"file(params.input)": "cts", "file(params.out)": "OUT", "params.parts": str(parts)}
    values["task.cpus"] = re.search(r"cpus (\d+)", text)[1]  # type: ignore[index]
    asked = []
    for script in scripts:
        for number in range(parts):
            told = values | {"number": str(number)}
            words = re.sub(r"\$\{(.*?)\}", lambda found, told=told: told[found[1]], script).split()  # type: ignore[misc]
            assert knows(words[1:]), words
            asked.append(words)
    ran = [words for words in asked if words[1] == "run"]
    assert [words[words.index("--part-id") + 1] for words in ran] == [str(n) for n in range(parts)]
    assert {words[words.index("--num-parts") + 1] for words in ran} == {str(parts)}


@pytest.mark.slow
def test_the_parts_of_the_slicer_module_that_need_no_slicer(run: Any) -> None:
    module = load(ROOT / "slicer" / "AIENE" / "AIENE.py")
    words = module.command("aiene", Path("ct.nrrd"), Path("out"))
    assert knows(words[1:])
    rows = module.node_rows(run.out / "nodes.csv")
    assert module.segment_names(rows) == {1: "GTVn_01 ENE 0.6", 2: "GTVn_02 ENE -"}
    assert set(module.COLUMNS) <= rows[0].keys()


def test_the_runner_of_mhub_gives_label_map_and_table(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def passing(*_: Any, **__: Any) -> Any:
        return lambda thing: thing

    io = SimpleNamespace(ConfigInput=passing, Instance=passing, Input=passing, Output=passing)
    core = ModuleType("mhubio.core")
    core.IO, core.Module, core.Instance, core.InstanceData = io, object, object, object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mhubio", ModuleType("mhubio"))
    monkeypatch.setitem(sys.modules, "mhubio.core", core)
    runner = load(ROOT / "mhub" / "aiene" / "utils" / "AieneRunner.py")

    def ran(words: list[str], check: bool) -> None:
        assert check
        assert knows(words[1:])
        shutil.copytree(run.out, words[words.index("-o") + 1])

    monkeypatch.setattr(runner.subprocess, "run", ran)
    labels, table = run.folder / "labels.nii.gz", run.folder / "nodes.json"
    runner.run_series(run.folder / "ct", run.folder / "made", labels, table)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(labels))), run.made.labels)
    assert json.loads(table.read_text())[0]["name"] == "GTVn_01"


@pytest.mark.slow
def test_orthancs_script_sends_each_ct_series_and_nothing_runs_in_circles(
    network: None, tmp_path: Path, store: Path
) -> None:
    """A CT that is stored in Orthanc comes back as objects of its study, by Orthanc's own script."""
    known = {"aiene": ["AIENE", "127.0.0.1", 11112]}
    script = str(ROOT / "orthanc" / "stable-study.lua")
    peers = {"orthanc": {"ae_title": "ORTHANC", "port": 4242}}
    files = oblique_series(tmp_path / "ct", "stable")
    uid = uid_of_study(files)
    with (
        Site(settings_for(store, send_to=["orthanc"], peers=peers), new_crew=ThreadCrew) as site,
        Orthanc(tmp_path / "orthanc", scripts=[script], **known) as archive,
    ):
        archive.store(files)
        assert site.wait_for(uid, "sent", "failed").state == "sent"
        assert {k: len(v) for k, v in archive.objects(uid).items()} == {
            "CT": len(files),
            "SEG": 1,
            "SR": 1,
            "RTSTRUCT": 1,
        }
        assert site.studies()[uid].images == len(files)
