"""An export of a whole run: what lies there afterwards, and what became of every case."""

from __future__ import annotations

import csv
import json
import shutil
import stat
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import typer
from pydicom.uid import RLELossless
from typer.testing import CliRunner

from aiene.cli.folders import export as export_command
from aiene.errors import OutputError, UsageError
from aiene.export.run import export_run, parse_kinds
from aiene.geometry.grid import Grid, Volume
from aiene.ingest.dicom.header import quiet
from aiene.ingest.dicom.header_values import TYPE_2
from aiene.results.nifti import write_nifti
from builders.export_runs import (
    AXIAL,
    OBLIQUE,
    OBLIQUE_DOWN,
    says,
    small_grid,
    write_run,
    write_series,
)

pytest.importorskip("highdicom", reason="the dicom extra is not installed")

BOTH = ["dicom-seg", "dicom-sr"]


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    with (out / "export.csv").open(newline="", encoding="utf-8") as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def files_of(out: Path, case: str = "in") -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted((out / "cases" / case / "dicom").glob("*"))}


def reason(out: Path, **words: Any) -> str:
    """Why the one case of a run is not exported."""
    (row,) = export_run(out, BOTH, **words).rows
    assert row.status == "failed"
    assert row.files == ()
    assert not list((out / "cases").rglob("*.dcm"))
    return row.reason


def one_case(tmp_path: Path, direction: Any = OBLIQUE, **words: Any) -> Any:
    write_series(tmp_path / "in", small_grid(direction))
    return write_run(tmp_path / "out", tmp_path / "in", **words)


# ---- what an export leaves


@pytest.mark.slow
def test_every_case_has_its_objects_its_row_and_nobodys_name(tmp_path: Path) -> None:
    for number, direction in enumerate((AXIAL, OBLIQUE_DOWN)):
        write_series(
            tmp_path / f"in/p{number}",
            small_grid(direction),
            name=f"p{number}",
            header={"PatientID": f"ID{number}"},
        )
    run = write_run(tmp_path / "out", tmp_path / "in")
    told: list[Any] = []
    summary = export_run(run.out, BOTH, on_case=told.append)
    assert summary.exit_code == 0
    assert summary.counts == {"ok": 2}
    assert [(t.number, t.total, t.row.case_id) for t in told] == [(1, 2, "p0"), (2, 2, "p1")]
    for number in range(2):
        row = rows_of(run.out)[f"p{number}"]
        assert row["status"] == "ok"
        files = row["files"].split(" | ")
        assert files == [f"cases/p{number}/dicom/seg.dcm", f"cases/p{number}/dicom/sr.dcm"]
        for file in files:
            assert pydicom.dcmread(run.out / file).PatientID == f"ID{number}"
    for table in ("export.csv", "export.json"):
        text = (run.out / table).read_text(encoding="utf-8")
        assert "Zo" not in text
        assert "ID0" not in text
    assert json.loads((run.out / "export.json").read_text())["kinds"] == BOTH


@pytest.mark.slow
def test_a_report_brings_the_segmentation_that_it_refers_to(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    export_run(run.out, ["dicom-sr"])
    assert list(files_of(run.out)) == ["seg.dcm", "sr.dcm"]


@pytest.mark.slow
def test_an_export_that_is_repeated_leaves_every_byte_and_writes_nothing(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    export_run(run.out, BOTH)
    assert len(files_of(run.out)) == 2
    before, times = files_of(run.out), {f: f.stat().st_mtime_ns for f in run.out.rglob("*.dcm")}
    export_run(run.out, BOTH)
    assert files_of(run.out) == before
    assert {f: f.stat().st_mtime_ns for f in run.out.rglob("*.dcm")} == times
    shutil.rmtree(run.out / "cases/in/dicom")
    export_run(run.out, BOTH)
    assert files_of(run.out) == before


@pytest.mark.slow
def test_a_run_that_was_taken_up_again_later_exports_the_same_bytes(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    set_identity(run.out, "x1")
    export_run(run.out, BOTH)
    before = files_of(run.out)
    assert before
    record = json.loads((run.out / "run.json").read_text())
    (run.out / "run.json").write_text(json.dumps({**record, "started": "2027-01-01T00:00:00+00:00"}))
    assert export_run(run.out, BOTH).exit_code == 0
    assert files_of(run.out) == before


@pytest.mark.slow
def test_objects_of_another_result_are_replaced_only_when_asked(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    export_run(run.out, BOTH)
    file = run.out / "cases/in/dicom/seg.dcm"
    file.write_bytes(b"edited by hand")
    (row,) = export_run(run.out, BOTH).rows
    assert row.status == "failed"
    assert "seg.dcm exists" in row.reason
    assert "--overwrite" in row.reason
    assert file.read_bytes() == b"edited by hand"
    assert export_run(run.out, BOTH, overwrite=True).exit_code == 0
    assert file.read_bytes() != b"edited by hand"


@pytest.mark.slow
def test_an_object_that_the_export_did_not_write_is_never_replaced(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    file = run.out / "cases/in/dicom/seg.dcm"
    file.parent.mkdir()
    file.write_bytes(b"from another program")
    (row,) = export_run(run.out, BOTH, overwrite=True).rows
    assert row.status == "failed"
    assert "not written by aiene" in row.reason
    assert [p.name for p in file.parent.iterdir()] == ["seg.dcm"]
    assert file.read_bytes() == b"from another program"


def test_a_table_of_the_users_is_not_replaced_by_that_of_the_export(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    (run.out / "export.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"export\.csv in out: the file there was not written by aiene"):
        export_run(run.out, BOTH)
    assert (run.out / "export.csv").read_text() == "mine"


@pytest.mark.slow
def test_objects_with_names_are_for_their_owners_eyes_alone(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    export_run(run.out, BOTH)
    folder = run.out / "cases/in/dicom"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


@pytest.mark.slow
def test_no_node_leaves_a_report_and_no_segmentation(tmp_path: Path) -> None:
    run = one_case(tmp_path, planted=(), primary=None)
    summary = export_run(run.out, [*BOTH, "rtstruct"])
    assert summary.exit_code == 0
    assert list(files_of(run.out)) == ["sr.dcm"]


@pytest.mark.slow
def test_a_primary_tumour_without_nodes_is_still_segmented(tmp_path: Path) -> None:
    run = one_case(tmp_path, planted=())
    export_run(run.out, BOTH)
    segments = pydicom.dcmread(run.out / "cases/in/dicom/seg.dcm").SegmentSequence
    assert [s.SegmentLabel for s in segments] == ["GTVp"]


@pytest.mark.slow
def test_a_case_that_the_run_could_not_do_is_skipped_and_said(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    failed = replace(
        run.result, case_id="other", status="failed", reason="ct.nii: it is cut off; copy it again."
    )
    folder = run.out / "cases/other"
    folder.mkdir()
    (folder / "case.json").write_text(json.dumps(failed.to_json()))
    summary = export_run(run.out, BOTH)
    assert [(r.case_id, r.status) for r in summary.rows] == [("in", "ok"), ("other", "skipped")]
    assert "cut off" in summary.rows[1].reason
    assert summary.exit_code == 0


@pytest.mark.slow
def test_validators_find_no_error_and_no_contradiction_to_the_source(tmp_path: Path) -> None:
    run = one_case(tmp_path, OBLIQUE_DOWN)
    export_run(run.out, [*BOTH, "rtstruct"])
    objects = sorted(run.out.rglob("*.dcm"))
    assert len(objects) == 3
    for file in objects:
        said = says("dciodvfy", file)[1]
        assert "Error" not in said, said
        assert says("dcmdump", file)[0] == 0
    said = says("dcentvfy", *objects, *sorted(run.series.glob("*")))[1]
    assert "Error" not in said, said


# ---- the source series


@pytest.mark.slow
def test_a_source_that_changed_or_is_gone_fails_its_case_and_no_other(tmp_path: Path) -> None:
    for name in "abc":
        write_series(tmp_path / "in" / name, small_grid(), name=name)
    run = write_run(tmp_path / "out", tmp_path / "in")
    first = min((tmp_path / "in/a").iterdir())
    changed = pydicom.dcmread(first)
    changed.PixelData = bytes([changed.PixelData[0] ^ 1]) + changed.PixelData[1:]
    changed.save_as(first)
    shutil.rmtree(tmp_path / "in/b")
    summary = export_run(run.out, BOTH)
    assert summary.exit_code == 1
    assert [r.status for r in summary.rows] == ["failed", "failed", "ok"]
    assert "has changed since the run" in summary.rows[0].reason
    assert "no longer exists" in summary.rows[1].reason
    assert rows_of(run.out)["a"]["reason"] == summary.rows[0].reason


@pytest.mark.slow
def test_a_copy_of_the_series_in_the_input_is_no_change(tmp_path: Path) -> None:
    """A compressed copy holds the same images in other bytes; both cases find their own files."""
    write_series(tmp_path / "in/plain", small_grid())
    shutil.copytree(tmp_path / "in/plain", tmp_path / "in/site/packed")
    for file in (tmp_path / "in/site/packed").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless)
        dataset.save_as(file, enforce_file_format=True)
    run = write_run(tmp_path / "out", tmp_path / "in")
    rows = export_run(run.out, ["rtstruct"]).rows
    assert [(row.case_id, row.status) for row in rows] == [("plain", "ok"), ("site_packed", "ok")], rows
    file = min((tmp_path / "in/plain").iterdir())
    dataset = pydicom.dcmread(file)
    dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
    dataset.save_as(file)
    rows = export_run(run.out, ["rtstruct"], overwrite=True).rows
    assert [row.status for row in rows] == ["ok", "ok"]  # the copy still holds what the run saw
    assert any("not those of the run byte by byte" in warning for warning in rows[0].warnings)
    shutil.rmtree(tmp_path / "in/site")
    rows = export_run(run.out, ["rtstruct"], overwrite=True).rows
    assert [row.status for row in rows] == ["failed", "failed"]
    assert "has changed since the run" in rows[0].reason


def test_a_slice_that_is_missing_now_counts_as_changed(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    min(run.series.iterdir()).unlink()
    assert "has changed since the run" in reason(run.out)


@pytest.mark.slow
def test_a_source_that_was_moved_is_found_where_the_user_says(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    shutil.move(tmp_path / "in", tmp_path / "archive/deep/in")
    assert "removed since the run" in reason(run.out)
    assert export_run(run.out, BOTH, source_dicom=tmp_path / "archive").exit_code == 0


@pytest.mark.slow
def test_a_source_among_other_series_and_files_is_found(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    write_series(tmp_path / "all/other", small_grid(), name="other")
    shutil.copytree(tmp_path / "in", tmp_path / "all/mine")
    shutil.copytree(tmp_path / "in", tmp_path / "all/copy")
    (tmp_path / "all/readme.txt").write_text("no image")
    (tmp_path / "all/broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"nonsense")
    assert export_run(run.out, BOTH, source_dicom=tmp_path / "all").exit_code == 0


@pytest.mark.slow
def test_a_source_in_a_zip_archive_is_read_there(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", small_grid(OBLIQUE))
    run = write_run(tmp_path / "out", tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in files:
            archive.write(file, f"study/{file.name}")
    export_run(run.out, BOTH)
    plain = files_of(run.out)
    assert export_run(run.out, BOTH, source_dicom=tmp_path / "study.zip").exit_code == 0
    assert files_of(run.out) == plain


@pytest.mark.slow
def test_a_slice_that_was_there_twice_does_no_harm(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", small_grid())
    shutil.copy(files[4], tmp_path / "in/again.dcm")
    run = write_run(tmp_path / "out", tmp_path / "in")
    assert export_run(run.out, BOTH).exit_code == 0


def compressed(folder: Path, target: Path) -> None:
    """A copy of a series, compressed without loss."""
    shutil.copytree(folder, target)
    for file in target.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(file)


@pytest.mark.slow
def test_a_series_that_lies_in_the_input_twice_is_found_by_its_own_files(tmp_path: Path) -> None:
    write_series(tmp_path / "in", small_grid())
    run = write_run(tmp_path / "out", tmp_path / "in")
    compressed(tmp_path / "in", tmp_path / "all/a")  # comes first by name, and is not what was run
    shutil.copytree(tmp_path / "in", tmp_path / "all/b")
    summary = export_run(run.out, BOTH, source_dicom=tmp_path / "all")
    assert [(row.status, row.warnings) for row in summary.rows] == [("ok", ())]


@pytest.mark.slow
def test_two_cases_of_one_series_plain_and_compressed_are_both_exported(tmp_path: Path) -> None:
    write_series(tmp_path / "in/plain", small_grid())
    compressed(tmp_path / "in/plain", tmp_path / "in/small")
    run = write_run(tmp_path / "out", tmp_path / "in")
    summary = export_run(run.out, BOTH)
    assert [row.status for row in summary.rows] == ["ok"] * len(summary.rows), summary.rows


@pytest.mark.slow
def test_another_copy_serves_where_its_images_are_the_same(tmp_path: Path) -> None:
    write_series(tmp_path / "in", small_grid(OBLIQUE))
    run = write_run(tmp_path / "out", tmp_path / "in")
    compressed(tmp_path / "in", tmp_path / "copy")
    shutil.rmtree(tmp_path / "in")
    (row,) = export_run(run.out, BOTH, source_dicom=tmp_path / "copy").rows
    assert row.status == "ok", row.reason
    assert "not those of the run byte by byte" in row.warnings[0]
    changed = min((tmp_path / "copy").iterdir())
    dataset = pydicom.dcmread(changed)
    dataset.decompress()
    pixels = dataset.pixel_array.copy()
    pixels[7, 8] += 1  # one voxel by one HU
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(changed)
    (row,) = export_run(run.out, BOTH, source_dicom=tmp_path / "copy").rows
    assert "has changed since the run" in row.reason


@pytest.mark.slow
def test_a_place_that_cannot_be_written_to_is_told_with_advice_that_export_knows(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    (run.out / "cases/in/dicom").write_text("in the way")
    with pytest.raises(OutputError) as raised:
        export_run(run.out, BOTH)
    assert " -o" not in str(raised.value)
    assert "copy the whole folder of the run" in str(raised.value)


@pytest.mark.slow
def test_compressed_slices_serve_as_well(tmp_path: Path) -> None:
    for file in write_series(tmp_path / "in", small_grid(OBLIQUE)):
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(file)
    run = write_run(tmp_path / "out", tmp_path / "in")
    assert export_run(run.out, BOTH).exit_code == 0


@pytest.mark.slow
def test_lossy_compression_of_the_source_is_stated(tmp_path: Path) -> None:
    keywords = ("", "Ratio", "Method")
    lossy = {
        f"LossyImageCompression{k}": v for k, v in zip(keywords, ("01", "10", "ISO_10918_1"), strict=True)
    }
    write_series(tmp_path / "in", small_grid(), header=lossy)
    run = write_run(tmp_path / "out", tmp_path / "in")
    export_run(run.out, ["dicom-seg"])
    dataset = pydicom.dcmread(run.out / "cases/in/dicom/seg.dcm")
    assert (dataset.LossyImageCompression, dataset.LossyImageCompressionRatio) == ("01", 10)


@pytest.mark.slow
def test_a_tilted_gantry_brings_the_masks_home_onto_the_sources_own_slices(tmp_path: Path) -> None:
    grid = small_grid(size=(24, 40, 41))
    files = write_series(tmp_path / "in", grid, shuffle=False)
    shift = np.tan(np.radians(15)) * grid.spacing[0]
    for k, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        x, y, z = (float(v) for v in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, round(y + k * shift, 6), z]
        dataset.save_as(file)
    run = write_run(tmp_path / "out", tmp_path / "in")
    summary = export_run(run.out, BOTH)
    assert summary.exit_code == 0, summary.rows
    assert any("tilted" in w for w in summary.rows[0].warnings)
    dataset = pydicom.dcmread(run.out / "cases/in/dicom/seg.dcm")
    positions = {tuple(map(float, pydicom.dcmread(f).ImagePositionPatient)) for f in files}
    clouds = clouds_of(dataset)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        assert tuple(map(float, group.PlanePositionSequence[0].ImagePositionPatient)) in positions
    for number, node in enumerate(run.result.nodes, start=1):
        np.testing.assert_allclose(clouds[number].mean(axis=0), node.centroid_lps_mm, atol=0.5)
        volume = len(clouds[number]) * grid.voxel_volume_mm3
        assert volume == pytest.approx(node.native_volume_mm3, rel=0.1)


@pytest.mark.slow
def test_an_enhanced_multi_frame_source_is_referred_to_frame_by_frame(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "in/ct.dcm", small_grid(OBLIQUE_DOWN))
    run = write_run(tmp_path / "out", tmp_path / "in")
    summary = export_run(run.out, [*BOTH, "rtstruct"])
    assert summary.exit_code == 0, summary.rows
    folder = next((run.out / "cases").iterdir()) / "dicom"
    dataset, source = pydicom.dcmread(folder / "seg.dcm"), pydicom.dcmread(tmp_path / "in/ct.dcm")
    places = [
        f.PlanePositionSequence[0].ImagePositionPatient for f in source.PerFrameFunctionalGroupsSequence
    ]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        there = places[image.ReferencedFrameNumber - 1]
        assert group.PlanePositionSequence[0].ImagePositionPatient == there
    for number, node in enumerate(run.result.nodes, start=1):
        np.testing.assert_allclose(clouds_of(dataset)[number].mean(axis=0), node.centroid_lps_mm, atol=1e-3)
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1
    for file in folder.glob("*.dcm"):
        said = says("dciodvfy", file)[1]
        assert "Error" not in said, said


# ---- patients and their words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 144", "Люкceмбypг"),
        (None, "Plain^Ascii"),
    ],
)
def test_names_keep_their_character_set(tmp_path: Path, charset: Any, name: str) -> None:
    header = {"SpecificCharacterSet": charset, "PatientName": name}
    write_series(tmp_path / "in", small_grid(), header=header)
    run = write_run(tmp_path / "out", tmp_path / "in")
    assert export_run(run.out, [*BOTH, "rtstruct"]).exit_code == 0
    objects = sorted((run.out / "cases/in/dicom").glob("*.dcm"))
    assert len(objects) == 3
    for file in objects:
        dataset = pydicom.dcmread(file)
        assert str(dataset.PatientName) == name
        assert dataset.get("SpecificCharacterSet") == charset


@pytest.mark.slow
def test_a_name_without_a_character_set_keeps_its_bytes_and_gets_one_that_explains_them(
    tmp_path: Path,
) -> None:
    files = write_series(
        tmp_path / "in", small_grid(), header={"PatientName": "MXller^A", "SpecificCharacterSet": None}
    )
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"MXller", b"M\xfcller"))
    run = write_run(tmp_path / "out", tmp_path / "in")
    summary = export_run(run.out, BOTH)
    assert summary.exit_code == 0, summary.rows
    assert b"M\xfcller^A" in files_of(run.out)["seg.dcm"]
    made = pydicom.dcmread(run.out / "cases/in/dicom/seg.dcm")
    assert (made.SpecificCharacterSet, str(made.PatientName)) == ("ISO_IR 100", "Müller^A")
    assert "declare ISO_IR 100" in summary.rows[0].warnings[-1]


@pytest.mark.slow
def test_what_the_source_lacks_stays_empty(tmp_path: Path) -> None:
    lacking = dict.fromkeys(TYPE_2)
    write_series(tmp_path / "in", small_grid(), header=lacking)
    run = write_run(tmp_path / "out", tmp_path / "in")
    summary = export_run(run.out, [*BOTH, "rtstruct"])
    assert summary.exit_code == 0, summary.rows
    for file in (run.out / "cases/in/dicom").glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        for keyword in lacking:
            assert keyword in dataset
            assert not dataset[keyword].value


@pytest.mark.slow
def test_values_that_break_the_standard_are_kept_out_and_stop_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {
        "PatientSex": "W",
        "PatientBirthDate": "",
        "StudyID": "a very long study id of many words",
        "PatientAge": "65",
    }
    with quiet():
        write_series(tmp_path / "in", small_grid(), header=odd)
    run = write_run(tmp_path / "out", tmp_path / "in")
    caplog.clear()
    summary = export_run(run.out, BOTH)
    assert summary.exit_code == 0, summary.rows
    assert not caplog.records  # they would show the value
    assert b"a very long study id" not in files_of(run.out)["sr.dcm"]
    assert summary.rows[0].warnings == (
        "source header: PatientSex, StudyID: not allowed by the standard: DICOM objects leave it empty",
        "source header: PatientAge: not allowed by the standard, alone or without what it needs: "
        "DICOM objects leave it out",
    )


@pytest.mark.slow
def test_dates_are_told_in_the_sources_time_zone(tmp_path: Path) -> None:
    for name, header in (
        ("utc", {}),
        ("east", {"TimezoneOffsetFromUTC": "+0930"}),
        ("odd", {"TimezoneOffsetFromUTC": "x"}),
    ):
        with quiet():
            write_series(tmp_path / name, small_grid(), header=header)
        run = write_run(tmp_path / f"out-{name}", tmp_path / name)
        assert export_run(run.out, ["dicom-seg"]).exit_code == 0
        dataset = pydicom.dcmread(run.out / f"cases/{name}/dicom/seg.dcm")
        expected = "143607" if name == "east" else "050607"
        assert (dataset.ContentDate, dataset.ContentTime) == ("20260304", expected)


@pytest.mark.slow
def test_a_source_without_a_frame_of_reference_is_refused_in_one_sentence(tmp_path: Path) -> None:
    write_series(tmp_path / "in", small_grid(), header={"FrameOfReferenceUID": None})
    run = write_run(tmp_path / "out", tmp_path / "in")
    assert "no frame of reference UID" in reason(run.out)


# ---- the run's folder


@pytest.mark.slow
def test_label_maps_that_are_gone_cut_off_or_elsewhere_are_told(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    nodes = run.out / "cases/in/nodes.nii.gz"
    whole = nodes.read_bytes()
    nodes.unlink()
    assert "nodes.nii.gz: it has been removed since the run" in reason(run.out)
    nodes.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in reason(run.out)
    write_nifti(Volume(run.nodes, replace(run.native, origin=(0.0, 0.0, 0.0))), nodes)
    assert "a different grid" in reason(run.out)
    write_nifti(Volume(np.zeros_like(run.nodes), run.native), nodes)
    assert "no longer belong together" in reason(run.out)


def test_a_record_that_cannot_be_read_is_a_failed_row(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    (run.out / "cases/in/case.json").write_text("{}")
    (row,) = export_run(run.out, BOTH).rows
    assert (row.case_id, row.status) == ("in", "failed")
    assert "case.json cannot be read" in row.reason


@pytest.mark.slow
def test_a_bug_in_one_case_is_a_row_and_the_next_case_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        write_series(tmp_path / "in" / name, small_grid(), name=name)
    run = write_run(tmp_path / "out", tmp_path / "in")
    from aiene.export import seg

    whole = seg.build

    def fails_once(case: Any, found: Any) -> Any:
        if case.result.case_id == "a":
            raise RuntimeError("a bug")
        return whole(case, found)

    monkeypatch.setattr(seg, "build", fails_once)
    summary = export_run(run.out, BOTH)
    assert [r.status for r in summary.rows] == ["failed", "ok"]
    assert "internal error (RuntimeError)" in summary.rows[0].reason
    assert caplog.records


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_ends_the_export_with_a_sentence(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    (run.out / "cases/in/dicom").write_text("a file in the way")
    with pytest.raises(OutputError, match="dicom: a"):
        export_run(run.out, BOTH)


@pytest.mark.slow
def test_a_write_that_breaks_off_leaves_no_half_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = one_case(tmp_path)
    whole = Path.replace

    def full_disk(self: Path, target: Path) -> Path:
        if target.name == "sr.dcm":
            raise OSError(28, "No space left on device")
        return whole(self, target)

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OutputError, match="disk is full"):
        export_run(run.out, BOTH)
    monkeypatch.undo()
    assert list(files_of(run.out)) == ["seg.dcm"]
    assert export_run(run.out, BOTH).exit_code == 0
    assert list(files_of(run.out)) == ["seg.dcm", "sr.dcm"]


@pytest.mark.parametrize("words", [[], [""], ["dicom"], ["dicom-seg,pdf"]])
def test_kinds_that_there_are_not_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match="give some of dicom-seg"):
        parse_kinds(words)


def test_kinds_may_stand_with_commas_blanks_and_capitals_in_any_order() -> None:
    assert parse_kinds(["RTSTRUCT , dicom-seg", "dicom-sr"]) == ("dicom-seg", "dicom-sr", "rtstruct")


def test_a_folder_without_a_run_and_a_source_that_is_not_there_are_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results of a run"):
        export_run(tmp_path, BOTH)
    with pytest.raises(UsageError, match="no results of a run"):
        export_run(tmp_path / "nowhere", BOTH)
    run = one_case(tmp_path)
    with pytest.raises(UsageError, match="--source-dicom gone"):
        export_run(run.out, BOTH, source_dicom=tmp_path / "gone")
    (run.out / "run.json").write_text("{}")
    with pytest.raises(UsageError, match=r"run.json"):
        export_run(run.out, BOTH)


# ---- the command


def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(export_command)
    return app


@pytest.mark.slow
def test_the_command_tells_each_case_on_stderr_and_json_on_stdout(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    done = CliRunner().invoke(command(), [str(run.out), "--to", "dicom-seg,dicom-sr", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["counts"] == {"ok": 1}
    assert told["cases"][0]["files"] == ["cases/in/dicom/seg.dcm", "cases/in/dicom/sr.dcm"]
    assert "not a medical device" in done.stderr
    assert "Trained on phantoms." in done.stderr
    assert "[1/1] in: ok" in done.stderr


def test_the_commands_exit_codes(tmp_path: Path) -> None:
    run = one_case(tmp_path)
    assert CliRunner().invoke(command(), [str(run.out), "--to", "pdf"]).exit_code == 2
    assert CliRunner().invoke(command(), [str(tmp_path / "no"), "--to", "dicom-seg"]).exit_code == 2
    shutil.rmtree(tmp_path / "in")
    failed = CliRunner().invoke(command(), [str(run.out), "--to", "dicom-seg"])
    assert failed.exit_code == 1
    assert "removed since the run" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_without_highdicom_the_extra_is_named_and_a_structure_set_can_still_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = one_case(tmp_path)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    done = CliRunner().invoke(command(), [str(run.out), "--to", "dicom-seg"])
    assert done.exit_code == 2
    assert "needs highdicom; install aiene[dicom]" in done.stderr
    assert export_run(run.out, ["rtstruct"]).exit_code == 0


# ---- helpers


def set_identity(out: Path, identity: str) -> None:
    for file in (out / "cases").glob("*/case.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "identity": identity}))


def clouds_of(dataset: pydicom.Dataset) -> dict[int, np.ndarray]:
    """LPS points of each segment's pixels, by the file's own words."""
    shape = int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns)
    bits = np.unpackbits(
        np.frombuffer(dataset.PixelData, np.uint8), bitorder="little", count=int(np.prod(shape))
    )
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    found: dict[int, list[np.ndarray]] = {}
    for frame, group in zip(bits.reshape(shape), dataset.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        r, c = np.nonzero(frame)
        points = origin + np.outer(c * spacing[1], cosines[:3]) + np.outer(r * spacing[0], cosines[3:])
        found.setdefault(number, []).append(points)
    return {number: np.concatenate(parts) for number, parts in found.items()}


def write_enhanced(file: Path, grid: Grid) -> None:
    """The series as one enhanced CT, its frames in no order."""
    slices = [pydicom.dcmread(f) for f in write_series(file.parent / "single", grid)]
    shutil.rmtree(file.parent / "single")
    first = slices[0]
    whole = pydicom.Dataset()
    whole.file_meta = first.file_meta
    dropped = {
        *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
        *("RescaleSlope", "RescaleIntercept", "RescaleType", "PixelData"),
    }
    for element in first:
        if element.keyword not in dropped:
            whole.add(element)
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    whole.NumberOfFrames = len(slices)
    shared = pydicom.Dataset()
    shared.PlaneOrientationSequence = [item(first, "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [item(first, "PixelSpacing", "SliceThickness")]
    shared.PixelValueTransformationSequence = [item(first, "RescaleSlope", "RescaleIntercept", "RescaleType")]
    whole.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for one in slices:
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = [item(one, "ImagePositionPatient")]
        frames.append(frame)
    whole.PerFrameFunctionalGroupsSequence = frames
    whole.PixelData = b"".join(s.PixelData for s in slices)
    whole.save_as(file, enforce_file_format=True)


def item(source: pydicom.Dataset, *keywords: str) -> pydicom.Dataset:
    made = pydicom.Dataset()
    for keyword in keywords:
        made.add(source[keyword])
    return made
