"""A cohort through the whole road: what a run leaves, and what becomes of every case."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch

from aiene.case_worker import CaseWorkers, Order, Preparers
from aiene.cohort import RunSummary, Selection, run_cohort
from aiene.errors import CaseError, UsageError
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.models.bundle import find_bundle
from aiene.phantom.phantom import Phantom
from aiene.pipeline import Settings, infer_case, load_networks, preprocess_case
from aiene.preprocess.preprocess import load_preparation

pytestmark = pytest.mark.slow

SAME_ON_EACH_RUN = ("nodes.csv", "patients.csv")


@dataclass(frozen=True)
class Done:
    """A run that came to its end."""

    out: Path
    summary: RunSummary


def content(out: Path) -> dict[str, bytes]:
    """What must be the same bytes, however often and by how many processes a run was made."""
    images = sorted((out / "cases").rglob("*.nii.gz"))
    tables = [out / name for name in SAME_ON_EACH_RUN]
    (published,) = sorted(out.glob("prediction_list/*/*.csv"))[-1:]
    named = {file.relative_to(out).as_posix(): file.read_bytes() for file in [*images, *tables]}
    return {**named, "published": published.read_bytes()}


@pytest.fixture(scope="module")
def done(cts: Path, masks: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Both phantoms with their true masks, one process."""
    out = tmp_path_factory.mktemp("run") / "out"
    summary = run_cohort(
        cts, out, device="cpu", masks=masks, jobs=1, include_short_axes=True, keep_prepared=True
    )
    return Done(out, summary)


def test_planted_nodes_come_home_to_their_place_side_and_size(
    done: Done, phantoms: dict[str, Phantom]
) -> None:
    nodes = pd.read_csv(done.out / "nodes.csv")
    matched = 0
    for case_id, phantom in phantoms.items():
        mine = nodes[nodes.case_id == case_id]
        found = mine[["centroid_x_mm", "centroid_y_mm", "centroid_z_mm"]].to_numpy()
        for planted in phantom.nodes:
            away = np.linalg.norm(found - planted.centre_lps_mm, axis=1)
            if away.min() < phantom.ct.grid.voxel_diagonal_mm:
                matched += 1
                assert mine.iloc[int(away.argmin())].side in (planted.side, "midline")
    every = sum(len(phantom.nodes) for phantom in phantoms.values())
    assert matched >= every - 1  # two that touch become one node


def test_masks_lie_on_the_native_grid_for_another_reader(done: Done, cts: Path, masks: Path) -> None:
    for case_id in ("one", "two"):
        ct = sitk.ReadImage(str(cts / f"{case_id}.nii.gz"))
        for name in ("labels", "nodes"):
            image = sitk.ReadImage(str(done.out / "cases" / case_id / f"{name}.nii.gz"))
            assert image.GetSize() == ct.GetSize()
            np.testing.assert_allclose(image.GetOrigin(), ct.GetOrigin(), atol=1e-4)
            np.testing.assert_allclose(image.GetDirection(), ct.GetDirection(), atol=1e-6)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(done.out / "cases" / case_id / "labels.nii.gz")))
        given = sitk.GetArrayFromImage(sitk.ReadImage(str(masks / f"{case_id}.nii.gz")))
        np.testing.assert_array_equal(labels, given)


def test_the_node_map_holds_the_volumes_of_the_table(done: Done) -> None:
    nodes = pd.read_csv(done.out / "nodes.csv")
    for case_id, rows in nodes.groupby("case_id"):
        image = sitk.ReadImage(str(done.out / "cases" / str(case_id) / "nodes.nii.gz"))
        array, voxel = sitk.GetArrayFromImage(image), np.prod(image.GetSpacing())
        for row in rows.itertuples():
            value = int(str(row.name).rsplit("_", 1)[1])
            assert (array == value).sum() * voxel == pytest.approx(
                row.native_volume_mm3, abs=0.51
            )  # whole mm3


def test_the_prepared_image_and_the_transform_lie_on_the_patient(done: Done, cts: Path) -> None:
    for case_id in ("one", "two"):
        folder = done.out / "cases" / case_id
        crop, native = (
            sitk.ReadImage(str(f), sitk.sitkFloat32)
            for f in (folder / "prepared.nii.gz", cts / f"{case_id}.nii.gz")
        )
        ct = sitk.Resample(native, crop, sitk.Transform(), sitk.sitkLinear, -1024.0)
        hu = sitk.GetArrayFromImage(crop) * 450 - 175
        away = np.abs(np.clip(sitk.GetArrayFromImage(ct), -175, 275) - hu)
        assert np.median(away) < 5
        assert np.mean(away) < 25  # the crop went through a 1 mm grid first
        transform = sitk.ReadTransform(str(folder / "transform.tfm"))
        record = json.loads((folder / "case.json").read_text())["facts"]
        point = record["crop"]["origin_lps_mm"]
        np.testing.assert_allclose(transform.TransformPoint(point), crop.GetOrigin(), atol=1e-3)


def test_run_json_says_what_the_run_was_made_with(done: Done) -> None:
    record = json.loads((done.out / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["bundle"]["sha256"] == find_bundle("default").sha256
    assert {"torch", "SimpleITK", "numpy"} <= record["environment"]["packages"].keys()
    assert [len(case["input_sha256"]) for case in record["cases"]] == [64, 64]
    assert {"read", "prepare", "nodes", "classify", "native"} <= record["seconds"].keys()


def test_two_processes_give_the_bytes_of_one(done: Done, cts: Path, masks: Path, tmp_path: Path) -> None:
    run_cohort(
        cts,
        tmp_path / "out",
        device="cpu",
        masks=masks,
        jobs=2,
        include_short_axes=True,
        keep_prepared=True,
    )
    assert content(tmp_path / "out") == content(done.out)


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    done: Done, cts: Path, masks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [
        "--masks",
        str(masks),
        "--device",
        "cpu",
        "--include-short-axes",
        "--keep-prepared",
        "--jobs",
        "1",
    ]
    line = [sys.executable, "-m", "aiene", "run", str(cts), "-o", str(out), *words]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while not list(out.glob("cases/*/case.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    # Not that nodes.csv is absent: tables are written as cases end, a moment after the first case.json.
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["status"] == "running"
    first = next(out.glob("cases/*/case.json"))
    before = first.stat().st_mtime_ns
    again = subprocess.run(line, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "already done" in again.stderr
    assert first.stat().st_mtime_ns == before
    assert content(out) == content(done.out)
    assert not list(out.rglob("*.partial"))


def test_other_settings_do_not_mix_with_what_lies_there(
    done: Done, cts: Path, masks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done.out, out)
    with pytest.raises(UsageError, match=r"other settings \(different: ene_threshold\)"):
        run_cohort(
            cts,
            out,
            device="cpu",
            masks=masks,
            ene_threshold=0.99,
            include_short_axes=True,
            keep_prepared=True,
        )


def test_no_case_is_lost_and_none_stops_another(cts: Path, masks: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(cts / "one.nii.gz", source / "good.nii.gz")
    shutil.copy(cts / "one.nii.gz", source / "unmasked.nii.gz")
    (source / "text.nii.gz").write_text("this is no image")
    shutil.copy(masks / "one.nii.gz", source / "mask.nii.gz")
    own = tmp_path / "masks"
    own.mkdir()
    for name in ("good", "text", "mask"):
        shutil.copy(masks / "one.nii.gz", own / f"{name}.nii.gz")
    summary = run_cohort(source, tmp_path / "out", device="cpu", masks=own, jobs=2)
    assert summary.exit_code == 1
    cases = pd.read_csv(tmp_path / "out" / "cases.csv", keep_default_na=False).set_index("case_id")
    assert cases.status.to_dict() == {
        "good": "ok",
        "mask": "failed",
        "text": "failed",
        "unmasked": "failed",
    }
    assert "no mask for the case unmasked" in cases.reason["unmasked"]
    for case_id in ("mask", "text"):
        assert cases.reason[case_id].startswith(f"{case_id}.nii.gz: ")
    patients = pd.read_csv(tmp_path / "out" / "patients.csv").set_index("case_id")
    assert patients.n_ai_nodes["good"] >= 1
    assert patients.n_ai_nodes[["mask", "text", "unmasked"]].isna().all()


def test_cases_beyond_the_limit_are_rows_too_and_a_later_call_does_them(
    done: Done, cts: Path, masks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    limited = run_cohort(cts, out, device="cpu", masks=masks, jobs=1, selection=Selection(limit=1))
    assert [result.status for result in limited.results] == ["ok", "skipped"]
    assert limited.exit_code == 0
    assert limited.results[1].reason == "beyond --limit 1"
    whole = run_cohort(cts, out, device="cpu", masks=masks, jobs=1)
    assert [result.status for result in whole.results] == ["ok", "ok"]


def test_parts_of_a_run_make_one_table(done: Done, cts: Path, masks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for part in (0, 1):
        run_cohort(
            cts,
            out,
            device="cpu",
            masks=masks,
            jobs=1,
            include_short_axes=True,
            keep_prepared=True,
            selection=Selection(num_parts=2, part_id=part),
        )
    assert content(out) == content(done.out)
    assert {f.name for f in out.glob("run*.json")} == {"run_part-0-of-2.json", "run_part-1-of-2.json"}


class Bomb(type(Path())):  # type: ignore[misc]
    """A path that ends the process into which it is sent."""

    def __reduce__(self) -> Any:
        return os._exit, (9,)


def test_a_worker_that_dies_is_a_reason_and_the_next_case_is_done(cts: Path) -> None:
    bundle = find_bundle("default")
    good = [case for case in find_cases(cts)[0] if isinstance(case, Case)]
    bomb = Case("bomb", "nifti", (Bomb(cts / "one.nii.gz"),))
    preparation = load_preparation(bundle)
    outcomes = {}
    with Preparers(bundle, None, 2) as crew:
        for case, get_ready in crew.prepared([bomb, *good], preparation):
            try:
                outcomes[case.case_id] = get_ready().case.case_id
            except CaseError as error:
                outcomes[case.case_id] = str(error)
    assert "ended by the system" in outcomes.pop("bomb")
    assert outcomes == {"one": "one", "two": "two"}


def test_a_worker_of_whole_cases_that_dies_is_a_reason_too(cts: Path, masks: Path) -> None:
    bundle = find_bundle("default")
    bomb = Case("bomb", "nifti", (Bomb(cts / "one.nii.gz"),))
    good = [case for case in find_cases(cts)[0] if isinstance(case, Case)]
    order = Order(str(bundle.path), bundle.sha256, Settings(0.5, masks=masks), "cpu", True)
    outcomes: dict[str, list[str] | str] = {}
    with CaseWorkers(bundle, order, 2) as crew:
        for case, get_made in crew.each([bomb, *good]):
            try:
                outcomes[case.case_id] = sorted(get_made().files)
            except CaseError as error:
                outcomes[case.case_id] = str(error)
    assert "ended by the system" in outcomes.pop("bomb")
    assert set(outcomes) == {"one", "two"}
    assert all(names == ["labels.nii.gz", "nodes.nii.gz"] for names in outcomes.values())


def test_one_case_by_hand_gives_what_the_cohort_gave(done: Done, cts: Path, masks: Path) -> None:
    bundle = find_bundle("default")
    networks = load_networks(bundle, torch.device("cpu"), own_masks=True)
    rule = bundle.card.rule
    settings = Settings(rule.ene_threshold, include_short_axes=True, masks=masks, pos_from=rule.pos_from)
    case = next(c for c in find_cases(cts)[0] if isinstance(c, Case))
    preparation = load_preparation(bundle)
    at = preprocess_case(case, preparation, masks)
    result, arrays = infer_case(
        at, networks, settings, labels=bundle.card.labels, midline_x=preparation.midline_x
    )
    expected = next(r for r in done.summary.results if r.case_id == case.case_id)
    assert result.nodes == expected.nodes
    assert arrays.nodes.array.max() == len(expected.nodes)
    assert arrays.prepared is None
