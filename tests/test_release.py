"""What is handed on: a wheel and an sdist that need no repository, with types, model and licences."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from aiene import device
from aiene.hashing import disk_place
from aiene.ingest import fingerprint

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy of the source without its repository."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("release")
    copy = folder / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "licences", "src"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, copy)
    code = "from setuptools.build_meta import build_sdist, build_wheel; build_sdist('..'); build_wheel('..')"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_wheel_holds_types_model_templates_and_licences_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"aiene-{PROJECT['version']}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"aiene", f"aiene-{PROJECT['version']}.dist-info"}
    model = "aiene/models/default"
    card = json.loads((ROOT / "src" / model / "model.json").read_text(encoding="utf-8"))
    wanted = {
        "aiene/py.typed",
        "aiene/report/templates/report.html.j2",
        "aiene/phantom/anatomy.toml",
        "aiene/benchmark/leaderboard/page.html",
        "aiene/benchmark/report/conventions.txt",
        "aiene/models/importers/v2_plans.json",
        "aiene/models/monai_export/inference.json",
        "aiene/risk/schemes/data/count-0-1-2plus.toml",
        "aiene/ingest/dicom/identity.csv",
        "aiene/pacs/queue.sql",
        "aiene/report/aiene.mplstyle",
        "aiene/risk/analyse/checklists.csv",
        "aiene/risk/analyse/report_items.toml",
        "aiene/risk/example_files/README.txt",
        "aiene/risk/importers/mapping_template.toml",
        "aiene/risk/table/columns.csv",
        f"{model}/model.json",
        *(f"{model}/{name}" for name in card["files"]),
    }
    assert not wanted - names
    licences = {name.split("/licenses/")[1] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", "licences/OpenKBP-MIT.txt"}
    sources = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src" / "aiene").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources


@pytest.mark.slow
def test_the_sdist_is_enough_to_build_the_wheel(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "LICENSE", "NOTICE", "licences/OpenKBP-MIT.txt", "README.md"} <= names
    assert "src/aiene/models/default/template.nrrd" in names
    assert not any(".pth" in name and "checkpoint_final" not in name for name in names)


@pytest.mark.slow
def test_the_wheel_finds_its_model_where_nothing_else_is(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import aiene; from aiene.models.bundle import verify_bundle;"
        "bundle = aiene.find_bundle('default'); verify_bundle(bundle);"
        "print(aiene.__file__, bundle.path)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(Path(word).is_relative_to(tmp_path / "site") for word in done.stdout.split())


def test_the_citation_says_what_the_project_says() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert {"cff-version", "message", "title", "authors", "type"} <= citation.keys()


def test_every_dependency_and_extra_is_pinned() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    # timm brings torchvision, which does not go with the CPU build of torch that the tests run on
    tried = {key: names for key, names in PROJECT["optional-dependencies"].items() if key != "timm"}
    extras = [name for names in tried.values() for name in names]
    for requirement in (*PROJECT["dependencies"], *extras):
        name = requirement.split("[")[0].split(">")[0].split("=")[0].lower().replace("_", "-")
        assert name == "aiene" or name in pinned, requirement


def test_apple_s_gpu_is_taken_by_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device.resolve_device("auto").type == "cpu"
    assert device.resolve_device("mps").type == "mps"


def test_where_files_have_no_numbers_they_are_told_apart_by_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "link"
    for folder in (one, two):
        folder.mkdir()
    link.symlink_to(one)
    assert disk_place(one) == disk_place(link) != disk_place(two)
    status = os.stat_result((0o40755, 0, 7, 1, 0, 0, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda *_args, **_kw: status)
    assert disk_place(one) == disk_place(link) != disk_place(two)


def test_a_system_that_does_not_note_changes_seals_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ct.nii"
    file.write_bytes(b"ct")
    assert fingerprint.seal([file]) == fingerprint.seal([file])
    monkeypatch.setattr(fingerprint, "_KEEPS_CTIME", False)
    assert fingerprint.seal([file]) != fingerprint.seal([file])
