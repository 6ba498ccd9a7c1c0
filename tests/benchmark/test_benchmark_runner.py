"""A whole benchmark: rows, resuming, side by side, bad input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from aiene import parallel as crew
from aiene.benchmark import case_evaluation as case_work
from aiene.benchmark.case_evaluation import Stopwatch, count_flops
from aiene.benchmark.comparators.encoder import cross_validated
from aiene.benchmark.config import BenchmarkConfig, LabelChoice, ModelEntry
from aiene.benchmark.records import (
    WORK,
    CaseRecord,
    TruthRecord,
    from_json,
    image_of,
    key_of,
    model_files,
    newest_summary,
    to_json,
    truth_files,
)
from aiene.benchmark.run import BenchmarkRun, Step, run_benchmark
from aiene.errors import InputError, UsageError
from aiene.geometry.grid import Volume
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.results.atomic import read_json
from aiene.results.nifti import write_nifti
from builders import benchmarks as build

NAMES = ["a", "b", "c", "d"]
FAST = {"resamples": 100, "device": "cpu"}
SMALL = PhantomSettings(size=(70, 120, 120), spacing=(4.0, 2.2, 2.2), nodes=(2, 3), tilt_degrees=2.0)


def case_record(out: Path, key: str, case_id: str) -> dict[str, Any]:
    """What is stored of a model and a case."""
    record = read_json(out / WORK / "models" / key / f"{case_id}.json")
    assert record is not None
    return record


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Images and masks of four cases."""
    return build.write_cases(tmp_path, NAMES)


def _predictions(folder: Path, names: list[str], change: Any = lambda v: v) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_nifti(change(build.labels()), folder / f"{name}.nii.gz")
    return folder


def _shifted(volume: Volume) -> Volume:
    return volume.with_array(np.roll(volume.array, 1, axis=2))


def _config(folders: tuple[Path, Path], **changes: object) -> BenchmarkConfig:
    return BenchmarkConfig.model_validate({**FAST, "image_dir": folders[0], "seg_dir": folders[1], **changes})


def _run(config: BenchmarkConfig, out: Path, **words: object) -> BenchmarkRun:
    return run_benchmark(config, out, jobs=1, **words)  # type: ignore[arg-type]


def _rows(run: BenchmarkRun) -> list[dict[str, str]]:
    with run.results_file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if "seconds" not in k and "peak" not in k} for row in rows]


@pytest.mark.slow
def test_perfect_and_shifted_predictions_give_the_values_computed_by_hand(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    perfect = _predictions(tmp_path / "perfect", NAMES)
    moved = _predictions(tmp_path / "moved", NAMES, _shifted)
    empty = _predictions(tmp_path / "empty", NAMES, lambda v: v.with_array(v.array * 0))
    out = tmp_path / "out"
    folders_by_name = {"perfect": perfect, "moved": moved, "empty": empty}
    run = _run(_config(folders, predictions=folders_by_name, iou_threshold=0.5), out)
    rows = {(row["model"], row["case_id"]): row for row in _rows(run)}
    assert len(rows) == 12
    assert run.exit_code == 0
    assert float(rows["perfect", "a"]["dice_GTVn"]) == 1
    assert float(rows["perfect", "a"]["hd95_mm_GTVn"]) == 0
    # node 1 is 6 wide, node 2 is 5 wide: 5/6 of 144 and 4/5 of 100 voxels stay
    assert float(rows["moved", "a"]["dice_GTVn"]) == pytest.approx((120 + 80) / 244, abs=1e-6)
    assert rows["moved", "a"]["nodes_matched"] == "2"
    assert float(rows["empty", "a"]["dice_GTVn"]) == 0
    assert rows["empty", "a"]["hd95_mm_GTVn"] == ""
    assert rows["empty", "a"]["nodes_missed"] == "2"
    summary = newest_summary(out)
    by_name = {model["name"]: model for model in summary["models"]}
    assert by_name["perfect"]["detection"]["sensitivity"]["value"] == 1
    assert by_name["moved"]["aggregated_dice"]["GTVn"]["value"] == pytest.approx(200 / 244)
    assert by_name["empty"]["segmentation"]["GTVn"]["dice"]["mean"]["value"] == 0
    assert by_name["moved"]["detection"]["node_dice"]["value"] == pytest.approx((5 / 6 + 4 / 5) / 2)
    found = [120 / 168, 80 / 120]  # IoU of both nodes
    assert by_name["moved"]["detection"]["panoptic_quality"]["value"] == pytest.approx(sum(found) / 2)
    assert summary["primary"]["endpoint"] == "dice_GTVn"
    assert summary["reference"] == "perfect"
    assert {c["model"] for c in summary["comparisons"]} == {"moved", "empty"}
    assert image_of(out, "a") is not None
    files = (*truth_files(out, "a"), *model_files(out, key_of("moved"), "a")[:3])
    assert all(file.is_file() for file in files)


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_works(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    config = _config(folders, predictions={"m": _predictions(tmp_path / "m", NAMES)}, max_cases=2)
    refused = []

    def while_it_works(step: Step) -> None:
        with pytest.raises(UsageError, match="another benchmark runs in out"):
            _run(config, tmp_path / "out")
        refused.append(step)

    assert _run(config, tmp_path / "out", on_step=while_it_works).exit_code == 0
    assert refused
    assert _run(config, tmp_path / "out").exit_code == 0


@pytest.mark.slow
def test_the_same_model_twice_is_never_called_a_difference(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    moved = _predictions(tmp_path / "moved", NAMES, _shifted)
    config = _config(folders, predictions={"one": moved, "two": moved})
    summary = _run(config, tmp_path / "out").summary
    assert summary["comparisons"]
    assert {c["verdict"] for c in summary["comparisons"]} <= {"no difference shown", "not comparable"}


@pytest.mark.slow
def test_results_do_not_depend_on_jobs_and_an_ended_run_goes_on(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    ene = build.write_ene(tmp_path / "ene.csv", NAMES)
    models = [str(build.tiny(tmp_path / "m", "swinv2")), str(build.tiny(tmp_path / "m", "segformer"))]
    config = _config(folders, hf_models=models, ene_csv=ene)
    whole = _run(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def stop(step: Step) -> None:
        if step.model == "segformer" and step.number == 2:
            raise Killed

    with pytest.raises(Killed):
        _run(config, tmp_path / "other", on_step=stop)
    steps: list[Step] = []
    other = run_benchmark(config, tmp_path / "other", jobs=2, on_step=steps.append)
    assert [s.reused for s in steps if s.model == "swinv2"] == [True] * 4
    assert sum(s.reused for s in steps if s.model == "segformer") == 2
    assert _without_times(_rows(whole)) == _without_times(_rows(other))
    first, second = whole.summary, other.summary
    for name in ("comparisons", "ranking", "data", "ene_csv"):
        assert first[name] == second[name]
    for one, two in zip(first["models"], second["models"], strict=True):
        for name in ("segmentation", "detection", "classification", "aggregated_dice", "flops"):
            assert one[name] == two[name], name


@pytest.mark.slow
def test_an_encoder_is_judged_by_patient_wise_cross_validation(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    ene = build.write_ene(tmp_path / "ene.csv", NAMES)
    model = str(build.tiny(tmp_path / "m", "vit"))
    run = _run(_config(folders, hf_models=[model], ene_csv=ene), tmp_path / "out")
    (one,) = run.summary["models"]
    track = one["classification"]["on_truth"]
    assert one["segmentation"] is None
    assert track["n"] == 8
    assert all(0 <= score["score"] <= 1 for score in track["scores"])
    assert one["classification"]["end_to_end"] is None
    assert one["parameters"] > 0
    assert one["flops"] > 0


@pytest.mark.slow
def test_a_promptable_model_can_be_prompted_by_what_a_bundle_found_only_if_there_is_one(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    sam = str(build.tiny(tmp_path / "m", "sam"))
    entries = [ModelEntry(source=sam, name="truth"), ModelEntry(source=sam, name="road", prompts="road")]
    run = _run(_config(folders, models=entries, max_cases=1), tmp_path / "out")
    by_name = {model["name"]: model for model in run.summary["models"]}
    assert by_name["truth"]["status"] == "ok"
    assert "no" not in by_name["truth"]["reason"]
    assert "prompts: road" in by_name["road"]["reason"]
    assert run.exit_code == 1


def test_a_model_that_is_not_there_is_a_row_with_its_reason_and_not_an_end(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    perfect = _predictions(tmp_path / "perfect", NAMES)
    config = _config(
        folders,
        models=[{"source": "no-such-bundle"}],
        hf_models=[str(tmp_path / "gone")],
        predictions={"perfect": perfect, "nowhere": tmp_path / "nowhere"},
    )
    run = _run(config, tmp_path / "out")
    reasons = {row["model"]: row["reason"] for row in _rows(run) if row["status"] == "failed"}
    assert set(reasons) == {"no-such-bundle", "gone", "nowhere"}
    assert all(reason.endswith(".") and str(tmp_path) not in reason for reason in reasons.values())
    assert run.exit_code == 1
    assert sum(row["status"] == "ok" for row in _rows(run)) == 4


def test_each_bad_case_is_a_row_with_its_reason(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    (images / "a_0000.nii.gz").write_bytes((images / "a_0000.nii.gz").read_bytes()[:400])
    moved = build.labels(at=build.grid(origin=(-39.0, -31.0, 703.0)))
    write_nifti(moved, masks / "b.nii.gz")
    strange = build.labels()
    write_nifti(strange.with_array(strange.array * 4), masks / "c.nii.gz")
    own = _predictions(tmp_path / "own", ["b", "d"])
    out = tmp_path / "out"
    run = _run(_config(folders, predictions={"own": own}), out)
    reasons = {row["case_id"]: row["reason"] for row in _rows(run) if row["status"] == "failed"}
    assert set(reasons) == {"a", "b", "c"}
    assert "cut off" in reasons["a"]
    assert "--resample" in reasons["b"]
    assert "label values 4, 8 unknown" in reasons["c"]
    assert run.summary["data"]["cases"] == 1
    asked = _run(
        _config(folders, predictions={"own": own}, resample=True, labels=LabelChoice(ignore=(4, 8))), out
    )
    reasons = {row["case_id"]: row["reason"] for row in _rows(asked) if row["status"] == "failed"}
    assert set(reasons) == {"a", "c"}
    assert "no prediction for the case c" in reasons["c"]


def test_where_no_case_can_be_used_the_reasons_are_all_that_is_left(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for mask in folders[1].iterdir():
        mask.write_bytes(b"no image")
    own = _predictions(tmp_path / "own", NAMES)
    encoder = str(build.tiny(tmp_path / "m", "vit"))
    run = _run(_config(folders, predictions={"own": own}, hf_models=[encoder]), tmp_path / "out")
    assert run.exit_code == 1
    assert [row["case_id"] for row in _rows(run)] == NAMES
    assert run.summary["data"]["cases"] == 0
    json.dumps(run.summary, allow_nan=False)


def test_found_nodes_are_listed_also_where_a_model_gives_only_labels(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    own = _predictions(tmp_path / "own", NAMES)
    _run(_config(folders, predictions={"own": own}), tmp_path / "out")
    found = case_record(tmp_path / "out", "own", "a")["found_nodes"]
    assert [(node["value"], node["matched"]) for node in found] == [(1, 1), (2, 2)]
    assert found[0]["volume_ml"] == pytest.approx(144 * 20 / 1000)


@pytest.mark.slow
def test_a_prediction_elsewhere_fails_for_its_model_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere = build.grid(spacing=(5.0, 2.0, 1.0))
    own = _predictions(tmp_path / "own", NAMES)
    write_nifti(Volume(build.labels().array, elsewhere), own / "b.nii.gz")
    perfect = _predictions(tmp_path / "perfect", NAMES)
    run = _run(_config(folders, predictions={"own": own, "perfect": perfect}), tmp_path / "out")
    failed = [(row["model"], row["case_id"]) for row in _rows(run) if row["status"] == "failed"]
    assert failed == [("own", "b")]
    by_name = {model["name"]: model for model in run.summary["models"]}
    assert by_name["own"]["cases"] == {"ok": 3, "failed": 1}
    dice = next(c for c in run.summary["comparisons"] if c["metric"] == "dice" and c["label"] == "GTVn")
    assert dice["n"] == 4  # the failed case counts as the worst
    assert by_name["own"]["segmentation"]["GTVn"]["dice"]["mean"]["value"] == pytest.approx(3 / 4)
    assert by_name["own"]["detection"]["sensitivity"]["value"] == pytest.approx(3 / 4)
    assert "1 of 4 cases" in by_name["own"]["detection"]["precision"]["reason"]


@pytest.mark.slow
def test_a_failed_case_is_tried_again_and_a_changed_one_made_anew(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    own = _predictions(tmp_path / "own", ["a", "b", "c"])
    config, out = _config(folders, predictions={"own": own}), tmp_path / "out"
    assert _run(config, out).exit_code == 1
    _predictions(own, ["d"])
    steps: list[Step] = []
    assert _run(config, out, on_step=steps.append).exit_code == 0
    assert not any(step.reused for step in steps if step.model)  # the folder is another one now
    steps.clear()
    _run(config, out, on_step=steps.append)
    assert all(step.reused for step in steps)


@pytest.mark.slow
def test_one_case_one_class_and_no_labels_are_reasons_and_not_errors(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    ene = tmp_path / "ene.csv"
    ene.write_text("case_id,node,ene\na,1,1\na,2,1\nz,1,1\na,7,0\n", encoding="utf-8")
    models = [str(build.tiny(tmp_path / "m", "vit"))]
    own = _predictions(tmp_path / "own", NAMES)
    config = _config(folders, hf_models=models, predictions={"own": own}, ene_csv=ene, max_cases=1)
    run = _run(config, tmp_path / "out")
    assert "one class" in run.summary["models"][0]["classification"]["on_truth"]["reason"]
    assert [u["row"] for u in run.summary["ene_csv"]["unmatched"]] == [4, 5]
    assert run.summary["pairing"]["beyond_max_cases"] == 3
    json.dumps(run.summary, allow_nan=False)
    without = _run(_config(folders, hf_models=models, max_cases=1), tmp_path / "out2")
    assert "--ene-csv" in without.summary["models"][0]["classification"]["on_truth"]["reason"]


@pytest.mark.slow
def test_the_data_hash_is_of_content_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    own = _predictions(tmp_path / "own", NAMES)
    config = _config(folders, predictions={"own": own})
    run = _run(config, tmp_path / "out")
    first = run.summary["data"]["sha256"]
    for old in (*folders[0].iterdir(), *folders[1].iterdir()):
        old.rename(old.with_name("other-" + old.name))
    _predictions(own, [f"other-{name}" for name in NAMES])
    renamed = _run(config, tmp_path / "out2").summary["data"]["sha256"]
    assert renamed == first
    for old in (*folders[0].iterdir(), *folders[1].iterdir(), *own.iterdir()):
        plain = old.with_name(old.name.removesuffix(".gz"))  # not compressed, as float32
        volume = nib.load(old)
        nib.save(nib.Nifti1Image(np.asarray(volume.dataobj).astype(np.float32), volume.affine), plain)
        old.unlink()
    again = _run(config, tmp_path / "out3").summary
    assert again["data"]["sha256"] == first
    assert again["data"]["settings"] == run.summary["data"]["settings"]
    assert again["models"][0]["sha256"] == run.summary["models"][0]["sha256"]
    (folders[1] / "other-a.nii").unlink()
    write_nifti(build.labels(nodes=(1,)), folders[1] / "other-a.nii.gz")
    assert _run(config, tmp_path / "out4").summary["data"]["sha256"] != first


@pytest.mark.slow
def test_patients_are_found_by_pattern_or_table(folders: tuple[Path, Path], tmp_path: Path) -> None:
    own = _predictions(tmp_path / "own", NAMES)
    run = _run(_config(folders, predictions={"own": own}, patient_pattern="[a-c]"), tmp_path / "out")
    assert run.summary["data"]["patients"] == 4
    run = _run(_config(folders, predictions={"own": own}, patient_pattern="()."), tmp_path / "out")
    assert run.summary["data"]["patients"] == 1
    with pytest.raises(UsageError, match="not a regular expression"):
        _run(_config(folders, predictions={"own": own}, patient_pattern="("), tmp_path / "out")


def test_a_case_that_breaks_the_code_is_a_row_and_the_others_go_on(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = _predictions(tmp_path / "own", NAMES)
    real = case_work.case_metrics  # type: ignore[attr-defined]
    calls = []

    def broken(*words: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return real(*words, **named)

    monkeypatch.setattr(case_work, "case_metrics", broken)
    run = _run(_config(folders, predictions={"own": own}), tmp_path / "out")
    (row,) = [row for row in _rows(run) if row["status"] == "failed"]
    assert "internal error (ZeroDivisionError)" in row["reason"]
    assert "b" not in caplog.messages[0].split()


def _vanish(number: int) -> int:
    import os

    if number == 2:
        os._exit(9)
    return number * 10


@pytest.mark.slow
def test_a_process_that_the_system_ends_loses_no_case() -> None:
    done = crew.work_through(_vanish, [1, 2, 3], jobs=2, threads=1, lost=lambda number: -number)
    assert list(done) == [(1, 10), (2, -2), (3, 30)]


def test_nothing_to_compare_and_wrong_words_are_sentences(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--image-dir"):
        _run(BenchmarkConfig(seg_dir=folders[1]), tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="same case id"):
        _run(_config((folders[0], tmp_path / "none")), tmp_path / "out")
    own = _predictions(tmp_path / "own", NAMES)
    with pytest.raises(UsageError, match="no model of this name; there are own"):
        _run(_config(folders, predictions={"own": own}, reference="other"), tmp_path / "out")
    entries = [{"source": str(own), "name": "x", "kind": "predictions"}] * 2
    with pytest.raises(UsageError, match="two models are called x"):
        _run(_config(folders, models=entries), tmp_path / "out")


def test_values_of_a_mask_may_be_its_nodes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for name in NAMES:
        array = build.labels().array.copy()
        array[build.BLOCKS[1]], array[build.BLOCKS[2]] = 5, 4
        write_nifti(Volume(array, build.grid()), folders[1] / f"{name}.nii.gz")
    ene = tmp_path / "ene.csv"
    ene.write_text("case_id,label,ene\na,5,1\na,4,0\n", encoding="utf-8")
    own = _predictions(tmp_path / "own", NAMES)
    choice = LabelChoice(GTVn=(4, 5))
    config = _config(folders, predictions={"own": own}, labels=choice, nodes="values", ene_csv=ene)
    _run(config, tmp_path / "out")
    record = case_record(tmp_path / "out", "own", "a")
    assert [(n["name"], n["ene"]) for n in record["truth_nodes"]] == [("GTVn_01", 1), ("GTVn_02", 0)]


def test_records_survive_their_json(folders: tuple[Path, Path], tmp_path: Path) -> None:
    own = _predictions(tmp_path / "own", NAMES, _shifted)
    _run(_config(folders, predictions={"own": own}), tmp_path / "out", now=datetime(2026, 1, 2, 3, 4, 5))
    assert (tmp_path / "out" / "benchmark_results_20260102_030405.csv").is_file()
    content = case_record(tmp_path / "out", "own", "a")
    assert to_json(from_json(CaseRecord, content)) == to_json(
        from_json(CaseRecord, json.loads(json.dumps(content)))
    )
    truth = json.loads((tmp_path / "out" / "work" / "truth" / "a.json").read_text())
    assert from_json(TruthRecord, truth).nodes[0].name == "GTVn_01"
    with pytest.raises(ValueError, match="another version"):
        from_json(CaseRecord, {**content, "format": 99})


@pytest.mark.slow
def test_a_bundle_runs_and_its_nodes_can_prompt_another_model(tmp_path: Path) -> None:
    phantom = make_phantom(910_002, SMALL)
    for folder, volume in (("images", phantom.ct), ("masks", phantom.labels)):
        (tmp_path / folder).mkdir()
        write_nifti(volume, tmp_path / folder / "p.nii.gz")
    lines = ["case_id,x,y,z,ene"]
    for node in phantom.nodes:
        voxels = np.argwhere(phantom.node_map.array == node.label)
        point = phantom.ct.grid.points(voxels[len(voxels) // 2])
        lines.append("p," + ",".join(f"{v:.2f}" for v in point) + f",{int(node.ene)}")
    (tmp_path / "ene.csv").write_text("\n".join(lines), encoding="utf-8")
    sam = ModelEntry(source=str(build.tiny(tmp_path / "m", "sam")), name="sam", prompts="road")
    config = _config(
        (tmp_path / "images", tmp_path / "masks"),
        models=[sam, ModelEntry(source="default")],
        ene_csv=tmp_path / "ene.csv",
        flops=False,
    )
    run = _run(config, tmp_path / "out")
    assert run.exit_code == 0, _rows(run)
    assert [model["name"] for model in run.summary["models"]] == ["sam", "default"]
    assert "what a bundle found" in run.summary["models"][0]["said"][0]
    record = case_record(tmp_path / "out", "default", "p")
    assert record["segmentation"]["GTVn"]["dice"] > 0.4
    assert all(node["ene_on_truth"] is not None for node in record["truth_nodes"])
    found = [node for node in record["truth_nodes"] if node["found_as"] is not None]
    assert found
    assert all(node["ene_end_to_end"] is not None for node in found)
    _, *files, _ = model_files(tmp_path / "out", "default", "p")
    labels, nodes = (nib.load(file).get_fdata() for file in files)
    assert (labels[nodes > 0] == 2).all()
    prompted = case_record(tmp_path / "out", "sam", "p")
    confident = {node["value"] for node in prompted["found_nodes"]}
    assert confident <= {node["value"] for node in record["found_nodes"]}


# --- the probe ---


def test_the_probe_learns_what_can_be_learnt_and_never_from_the_same_patient() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    patients = [f"p{number // 2}" for number in range(60)]
    features = (rng.normal(0, 1, (60, 8)) + labels[:, None] * 3).astype(np.float32)
    for probe in ("linear", "knn"):
        odds = cross_validated(features, labels.tolist(), patients, probe=probe).probabilities
        assert np.corrcoef(odds, labels)[0, 1] > 0.8  # type: ignore[arg-type, type-var]


def test_a_probe_on_the_patients_own_mark_learns_nothing() -> None:
    """Features that name the patient and nothing else: seen patients would give the labels away."""
    patients = [f"p{number // 2}" for number in range(40)]
    labels = [(number // 2) % 2 for number in range(40)]
    features = np.repeat(np.eye(20, dtype=np.float32), 2, axis=0)
    odds = np.array(cross_validated(features, labels, patients).probabilities)
    pairs = odds[np.array(labels) == 1][:, None] - odds[np.array(labels) == 0][None]
    assert (pairs > 0).mean() + (pairs == 0).mean() / 2 < 0.7


@pytest.mark.parametrize(
    ("labels", "patients", "said"),
    [
        ([1, 1, 1], ["a", "b", "c"], "one class"),
        ([], [], "no node"),
        ([1, 1, 0], ["a", "a", "b"], "single patient"),
    ],
)
def test_a_probe_that_cannot_be_fitted_says_why(labels: Any, patients: Any, said: str) -> None:
    result = cross_validated(np.zeros((len(labels), 2), np.float32), labels, patients)
    assert result.probabilities is None
    assert said in result.reason


# --- resources ---


def test_the_stopwatch_takes_the_median_of_its_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, cpu = iter([0.0, 1.0, 1.0, 6.0, 6.0, 8.0]), iter([0.0, 3.0, 3.0, 4.0, 4.0, 6.0])
    clock = SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(cpu))
    monkeypatch.setattr("aiene.benchmark.case_evaluation.time", clock)
    watch = Stopwatch()
    assert watch.timed("inference", lambda: "done", repeats=3) == "done"
    assert (watch.wall["inference"], watch.cpu["inference"]) == (2.0, 2.0)


_PEAK = """
import numpy as np
from aiene.benchmark.case_evaluation import peak_memory

with peak_memory() as low:
    pass
with peak_memory() as high:
    big = np.ones(40_000_000)
    del big
with peak_memory() as after:
    pass
assert high.rss_mib - low.rss_mib > 250
assert after.rss_mib < high.rss_mib - 200
"""


@pytest.mark.slow
def test_the_peak_of_memory_is_seen_also_when_it_has_passed() -> None:
    # In a process of its own: this one may keep what other tests have freed.
    subprocess.run([sys.executable, "-c", _PEAK], check=True)


def test_flops_of_a_product_are_known() -> None:
    import torch

    a, b = torch.ones(8, 16), torch.ones(16, 4)
    assert count_flops(lambda: a @ b) == 2 * 8 * 16 * 4
