"""A folder of DICOM segmentations takes part by its files alone, and lies where its headers say."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from aiene.benchmark.comparators.protocol import CaseInput, Request, adapters, kind_of_folder, open_comparator
from aiene.benchmark.config import BenchmarkConfig, LabelChoice, ModelEntry
from aiene.benchmark.run import run_benchmark
from aiene.errors import InputError
from aiene.export.run import export_run
from aiene.geometry.grid import Grid, Volume
from aiene.ingest.case import Case
from aiene.results.nifti import write_nifti
from builders.export_runs import AXIAL, OBLIQUE_DOWN, Run, small_grid, write_run, write_series

pytest.importorskip("highdicom", reason="the dicom extra is not installed")


@dataclass(frozen=True)
class Exported:
    """A run, its exported segmentation in a folder by case id, and the folders of a benchmark."""

    run: Run
    images: Path
    masks: Path
    segs: Path
    case_id: str

    @property
    def seg(self) -> Path:
        return self.segs / self.case_id / "seg.dcm"

    def answer(self, like: Grid | None = None, **entry: object) -> Any:
        grid = like or self.run.native
        blank = Volume(np.zeros(grid.size, np.uint8), grid)
        given = CaseInput(Case(self.case_id, "nifti", ()), blank, Volume(blank.array.astype(np.uint16), grid))
        said = ModelEntry(source=str(self.segs), kind="dicom-seg", **entry)  # type: ignore[arg-type]
        model = open_comparator(Request("seg", "dicom-seg", said, "cpu"))
        return model.answer(model.infer(model.preprocess(model.load(given))))


@pytest.fixture(params=[AXIAL, OBLIQUE_DOWN], ids=["axial", "oblique and downwards"])
def exported(tmp_path: Path, request: pytest.FixtureRequest) -> Exported:
    write_series(tmp_path / "images" / "p1", small_grid(request.param))
    run = write_run(tmp_path / "out", tmp_path / "images")
    export_run(run.out, ("dicom-seg", "dicom-sr"))
    case_id = run.result.case_id
    (tmp_path / "masks").mkdir()
    write_nifti(Volume(run.labels, run.native), tmp_path / "masks" / f"{case_id}.nii.gz")
    shutil.copytree(run.out / "cases" / case_id / "dicom", tmp_path / "segs" / case_id)
    return Exported(run, tmp_path / "images", tmp_path / "masks", tmp_path / "segs", case_id)


@pytest.mark.slow
def test_our_own_export_comes_back_voxel_for_voxel(exported: Exported) -> None:
    answer = exported.answer()
    np.testing.assert_array_equal(answer.labels.array, exported.run.labels)
    for value in (1, 2):
        (only,) = np.unique(answer.nodes.array[exported.run.nodes == value])
        assert only > 0
    assert (len(np.unique(answer.nodes.array)), answer.warnings) == (3, ())


@pytest.mark.slow
def test_a_benchmark_of_our_own_export_has_a_dice_of_1(exported: Exported, tmp_path: Path) -> None:
    assert kind_of_folder(exported.segs) == "dicom-seg"
    config = BenchmarkConfig.model_validate(
        {
            "image_dir": exported.images,
            "seg_dir": exported.masks,
            "predictions": {"seg": exported.segs},
            "resamples": 100,
        }
    )
    run = run_benchmark(config, tmp_path / "benchmark", jobs=1)
    with run.results_file.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["status"], float(row["dice_GTVn"]), float(row["dice_GTVp"])) == ("ok", 1, 1)
    (model,) = json.loads(run.summary_file.read_text())["models"]
    assert (model["name"], model["kind"]) == ("seg", "dicom-seg")


@pytest.mark.slow
def test_a_segment_of_a_foreign_tool_is_known_by_its_label_or_by_the_configuration(
    exported: Exported,
) -> None:
    dataset = pydicom.dcmread(exported.seg)
    for segment in dataset.SegmentSequence:
        primary = segment.SegmentLabel == "GTVp"
        segment.SegmentLabel = "Primary tumour" if primary else "left LN 2"
        segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = "1"
    dataset.save_as(exported.seg)
    np.testing.assert_array_equal(exported.answer().labels.array, exported.run.labels)
    for segment in dataset.SegmentSequence:
        segment.SegmentLabel = "thing"
    dataset.save_as(exported.seg)
    with pytest.raises(InputError, match="it is not stated whether its segment 1 is GTVp or GTVn"):
        exported.answer()
    choice = LabelChoice(GTVp=(3,), GTVn=(1, 2))
    np.testing.assert_array_equal(exported.answer(labels=choice).labels.array, exported.run.labels)
    left_out = exported.answer(labels=LabelChoice(GTVp=(), GTVn=(1, 2), ignore=(3,)))
    np.testing.assert_array_equal(left_out.labels.array == 2, exported.run.nodes > 0)
    assert not (left_out.labels.array == 1).any()


@pytest.mark.slow
def test_what_lies_on_other_voxels_is_refused(exported: Exported) -> None:
    away = replace(exported.run.native, origin=tuple(v + 0.7 for v in exported.run.native.origin))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="does not match the CT's voxels"):
        exported.answer(like=away)
    small = exported.run.native.crop((0, 0, 0), (12, 30, 20))
    with pytest.raises(InputError, match="lie outside the CT"):
        exported.answer(like=small)


@pytest.mark.slow
def test_a_case_without_segmentation_and_a_damaged_one_are_told(exported: Exported) -> None:
    content = exported.seg.read_bytes()
    exported.seg.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read as"):
        exported.answer()
    exported.seg.unlink()  # the report (SR) beside it is none
    with pytest.raises(InputError, match=f"no segmentation for the case {exported.case_id}"):
        exported.answer()


@pytest.mark.slow
def test_a_folder_with_label_maps_stays_one_of_label_maps(exported: Exported) -> None:
    assert kind_of_folder(exported.masks) == kind_of_folder(exported.run.out) == "predictions"
    assert kind_of_folder(exported.masks / "nowhere") == "predictions"


def test_the_table_holds_every_kind() -> None:
    assert set(adapters()) == {
        "bundle", "predictions", "promptable", "semantic", "encoder", "timm", "monai", "dicom-seg",
    }  # fmt: skip
