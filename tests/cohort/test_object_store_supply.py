"""The input of a run in an object store, case by case: what a search finds, what lies on the disk, kills."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from aiene.cohort import Progress, run_cohort
from aiene.errors import InputError
from aiene.ingest.case import Case, Refusal
from aiene.ingest.find import find_cases
from aiene.ingest.fingerprint import glance
from aiene.object_store import ObjectGoneError, Place, Supply, at_home
from builders.dicom_files import enhanced, save, write_nifti, write_series

pytestmark = pytest.mark.usefixtures("work")
BLOCK = 512  # bytes of `st_blocks`


def noise(slices: int = 6) -> np.ndarray:
    """HU that cannot be compressed, 80 kB a slice."""
    values = np.random.default_rng(3).integers(-1000, 1000, (slices, 200, 200))
    return values.astype(np.int16)


def long_header(index: int, ds: Dataset) -> None:
    ds.add_new((0x0009, 0x0010), "LO", "maker")
    ds.add_new((0x0009, 0x1001), "OB", bytes(100_000))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of CTs in every format, and of what is none."""
    folder = tmp_path_factory.mktemp("mixed")
    write_series(folder / "A" / "series", hu=noise())
    write_series(folder / "B", hu=noise(), change=long_header, series="long", study="long")
    save(enhanced(noise(20)), folder / "C" / "frames.dcm")
    write_nifti(folder / "D" / "ct.nii", noise())
    write_nifti(folder / "E" / "ct.nii.gz", noise())
    image = sitk.GetImageFromArray(noise())
    for name in ("F/ct.nrrd", "G/ct.mha", "H/ct.mhd"):
        (folder / name).parent.mkdir()
        sitk.WriteImage(image, str(folder / name))
    write_series(folder / "zip" / "I", hu=noise(), series="zipped", study="zipped")
    shutil.make_archive(str(folder / "I"), "zip", folder / "zip" / "I")
    shutil.rmtree(folder / "zip")
    (folder / "damaged.nii.gz").write_bytes(os.urandom(200_000))
    (folder / "notes.txt").write_text("no image\n" * 20_000)
    return folder


def filled(store: fsspec.AbstractFileSystem, folder: Path, root: str) -> Place:
    for file in folder.rglob("*"):
        if file.is_file():
            store.pipe_file(f"/{root}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return Place(f"memory://{root}")


def placeless(found: tuple[Sequence[Case | Refusal], Sequence[str]], root: Path) -> list[Any]:
    def below(path: Path) -> Path:
        return path.relative_to(root)

    cases = [
        replace(c, files=tuple(map(below, c.files)), members=tuple(map(below, c.members)))
        if isinstance(c, Case)
        else c
        for c in found[0]
    ]
    return [*map(repr, cases), *found[1]]


def whole_files(folder: Path) -> set[str]:
    """Names of the files over 80 kB that are on the disk, not only said to be so large."""
    found = ((file, file.stat()) for file in folder.rglob("*") if file.is_file())
    return {
        file.relative_to(folder).as_posix()
        for file, status in found
        if status.st_size > 80_000 and status.st_blocks * BLOCK >= status.st_size
    }


@pytest.mark.slow
def test_a_search_finds_in_the_beginnings_of_objects_what_it_finds_in_the_whole(
    memory: fsspec.AbstractFileSystem, mixed: Path, tmp_path: Path
) -> None:
    place = filled(memory, mixed, "in")
    whole, brief = tmp_path / "whole", tmp_path / "brief"
    place.bring(whole)
    supply = Supply(place, brief)
    supply.survey()
    there, here = find_cases(brief), find_cases(whole)
    assert placeless(there, brief) == placeless(here, whole)
    assert {c.case_id for c in here[0] if isinstance(c, Case)} == set("ABCDEFGHI")
    for ours, theirs in zip(there[0], here[0], strict=True):
        if isinstance(ours, Case) and isinstance(theirs, Case):
            assert glance(ours.files) == glance(theirs.files)
    # Headers that are longer than a beginning, archives, and what is no image we know came as a whole.
    assert {Path(name).parts[0] for name in whole_files(brief)} == {
        "B",
        "I.zip",
        "damaged.nii.gz",
        "notes.txt",
    }
    cases = [case for case in there[0] if isinstance(case, Case)]
    for case, plain in zip(supply.each(cases), [c for c in here[0] if isinstance(c, Case)], strict=True):
        files = {file.relative_to(brief): file.read_bytes() for file in case.files}
        assert files == {file.relative_to(whole): file.read_bytes() for file in plain.files}
        supply.release(case)
    assert (mixed / "H" / "ct.raw").exists()
    assert not (brief / "H" / "ct.raw").exists()
    assert not list(brief.rglob("*.half"))


def test_the_disk_holds_the_cases_at_work_and_two_more(
    memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    for number in range(8):
        write_nifti(tmp_path / "in" / f"{number}.nii", noise())
    place, folder = filled(memory, tmp_path / "in", "in"), tmp_path / "here"
    supply = Supply(place, folder)
    supply.survey()
    cases = [case for case in find_cases(folder)[0] if isinstance(case, Case)]
    assert not whole_files(folder)
    for case in supply.each(cases):
        assert whole_files(folder) >= {f"{case.case_id}.nii"}
        assert len(whole_files(folder)) <= 4  # this one, two ahead, and one that is on its way
        supply.release(case)
    assert not list(folder.glob("*.nii"))
    # Where a run was killed, the next one takes what is there for a search and nothing for granted.
    supply.survey()
    kept = (folder / "1.nii").stat().st_ino
    again = Supply(place, folder)
    again.survey()
    assert (folder / "1.nii").stat().st_ino == kept
    for case in again.each(cases):
        assert case.files[0].read_bytes() == (tmp_path / "in" / case.files[0].name).read_bytes()


def test_two_cases_share_a_file_until_both_are_done(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: list[str] = []
    bring = Place.bring_one

    def noted(place: Place, name: str, *words: Any) -> None:
        brought.append(name)
        bring(place, name, *words)

    monkeypatch.setattr(Place, "bring_one", noted)
    for name in ("one", "two", "mask"):
        write_nifti(tmp_path / "in" / f"{name}.nii", noise())
    place, folder = filled(memory, tmp_path / "in", "in"), tmp_path / "here"
    supply = Supply(place, folder)
    supply.survey()
    mask = folder / "mask.nii"
    cases = [Case(name, "nifti", (folder / f"{name}.nii",), mask=mask) for name in ("one", "two")]
    for case in supply.each(cases):
        assert mask.read_bytes() == (tmp_path / "in" / "mask.nii").read_bytes()
        supply.release(case)
        assert mask.exists() is (case.case_id == "one")
    assert sorted(brought) == ["mask.nii", "one.nii", "two.nii"]


def size_of(case: Case) -> int:
    return len(case.files[0].read_bytes())


def test_an_object_that_goes_away_or_changes_costs_its_own_case_alone(
    memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        write_nifti(tmp_path / "in" / f"{name}.nii", noise())
    place, folder = filled(memory, tmp_path / "in", "in"), tmp_path / "here"
    supply = Supply(place, folder)
    supply.survey()
    cases = [case for case in find_cases(folder)[0] if isinstance(case, Case)]
    memory.rm_file("/in/a.nii")
    memory.pipe_file("/in/b.nii", b"other")
    told: list[object] = []
    for case in supply.each(cases):
        try:
            told.append(supply.checked(case, partial(size_of, case)))
        except ObjectGoneError as error:
            told.append(str(error))
    said = "the object was removed or changed during the run; run the same command again."
    assert told == [f"a.nii: {said}", f"b.nii: {said}", (tmp_path / "in" / "c.nii").stat().st_size]
    assert not list(folder.rglob("*.half"))


def test_a_store_that_ends_to_answer_ends_the_run_and_not_each_case(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nifti(tmp_path / "in" / "a.nii", noise())
    place, folder = filled(memory, tmp_path / "in", "in"), tmp_path / "here"
    supply = Supply(place, folder)
    supply.survey()
    cases = [case for case in find_cases(folder)[0] if isinstance(case, Case)]

    def silent(*_: object) -> None:
        raise OSError("error sending request for url")

    monkeypatch.setattr(place._fs, "get_file", silent, raising=False)
    with pytest.raises(InputError, match="no object store answers"):
        list(supply.each(cases))


def test_calls_side_by_side_have_working_folders_of_their_own(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, work: Path
) -> None:
    memory.pipe_file("/in/a.txt", b"x")
    with (
        at_home("memory://in", str(tmp_path / "out"), part="part-0-of-2") as first,
        at_home("memory://in", str(tmp_path / "out"), part="part-1-of-2") as second,
        at_home("memory://in", str(tmp_path / "other")) as third,
    ):
        assert len({first.source, second.source, third.source}) == 3
    assert not list(work.iterdir())


def test_what_needs_the_cts_after_the_run_has_them_whole_until_its_end(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, work: Path
) -> None:
    write_nifti(tmp_path / "in" / "ct.nii", noise())
    filled(memory, tmp_path / "in", "in")
    with at_home("memory://in/", str(tmp_path / "out"), whole=True) as home:
        assert home.supply.url == "memory://in"
        cases = [case for case in find_cases(home.source)[0] if isinstance(case, Case)]
        assert (
            [case.case_id for case in cases] == [c.case_id for c in find_cases(tmp_path / "in")[0]] == ["in"]
        )
        for case in home.supply.each(cases):
            home.supply.release(case)
        assert (home.source / "ct.nii").read_bytes() == (tmp_path / "in" / "ct.nii").read_bytes()
    assert not list(work.iterdir())


@pytest.mark.slow
def test_a_run_case_by_case_has_the_bytes_of_a_folder_and_is_taken_up_without_its_voxels(
    memory: fsspec.AbstractFileSystem, cts: Path, masks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    for name in ("one", "two"):
        image = sitk.ReadImage(str(cts / f"{name}.nii.gz"))
        (source / name).mkdir(parents=True)
        sitk.WriteImage(image, str(source / name / "ct.nrrd"))
    shutil.copy(cts / "one.nii.gz", source / "three.nii.gz")
    shutil.copytree(masks, tmp_path / "masks")
    shutil.copy(masks / "one.nii.gz", tmp_path / "masks" / "three.nii.gz")
    words: dict[str, Any] = {"device": "cpu", "jobs": 1, "masks": tmp_path / "masks"}
    run_cohort(source, tmp_path / "plain", **words)
    filled(memory, source, "in")
    with at_home("memory://in", str(tmp_path / "out")) as home:
        summary = run_cohort(home.source, tmp_path / "out", supply=home.supply, **words)
        assert not whole_files(home.source)
    assert summary.exit_code == 0
    for name in ("nodes.csv", "patients.csv", *(f"cases/{c}/labels.nii.gz" for c in ("one", "two", "three"))):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name
    brought: list[str] = []
    bring = Place.bring_one

    def noted(place: Place, name: str, *words: Any) -> None:
        brought.append(name)
        bring(place, name, *words)

    monkeypatch.setattr(Place, "bring_one", noted)
    for words["check_content"], names in (
        (False, []),
        (True, ["one/ct.nrrd", "three.nii.gz", "two/ct.nrrd"]),
    ):
        with at_home("memory://in", str(tmp_path / "out")) as home:
            reused: list[Progress] = []
            run_cohort(home.source, tmp_path / "out", supply=home.supply, on_case=reused.append, **words)
        assert [step.reused for step in reused] == [True] * 3
        assert sorted(brought) == names


@pytest.mark.slow
def test_a_run_by_url_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    cts: Path, masks: Path, contoured_run: Path, tmp_path: Path, work: Path
) -> None:
    out = tmp_path / "out"
    words = ["-o", str(out), "--masks", str(masks), "--device", "cpu", "--jobs", "1"]
    line = [sys.executable, "-m", "aiene", "run", f"file://{cts}", *words]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while not list(out.glob("cases/*/case.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    first = next(out.glob("cases/*/case.json"))
    before = first.stat().st_mtime_ns
    again = subprocess.run(line, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "already done" in again.stderr
    assert first.stat().st_mtime_ns == before
    for name in ("nodes.csv", "patients.csv", *(f"cases/{c}/labels.nii.gz" for c in ("one", "two"))):
        assert (out / name).read_bytes() == (contoured_run / name).read_bytes(), name
    assert not list(work.rglob("*.nii.gz"))
