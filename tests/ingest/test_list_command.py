"""`aiene run --list`: what would be run and what is left out, without a pixel or a name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.ingest.dicom import pixels
from builders.dicom_files import ct, save, slice_dataset, write_nifti, write_series
from builders.dicom_studies import CORONAL, small, study

RUNNER = CliRunner()


def listed(source: Path, *words: str, code: int = 0) -> Any:
    result = RUNNER.invoke(app, ["run", str(source), "--list", *words])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in words else result.stdout + result.stderr


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A patient with three series, one with a gap, a NIfTI, and something else; no pixel may be read."""
    study(
        tmp_path / "in" / "good",
        soft={"ConvolutionKernel": "B31f", "SeriesDescription": "TEST^ONE neck"},
        bone={"ConvolutionKernel": "B70s", "SeriesDescription": "TEST^ONE neck"},
    )
    scout = slice_dataset(
        small(1)[0].astype("u2"),
        orientation=CORONAL,
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        series="z",
    )
    save(scout, tmp_path / "in" / "good" / "scout")
    write_series(tmp_path / "in" / "gap", patient="two", leave_out=[4])
    write_nifti(tmp_path / "in" / "plain.nii.gz", ct())
    (tmp_path / "in" / "readme.txt").write_text("words")

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a pixel was loaded")

    monkeypatch.setattr(pixels, "pixel_array", forbidden)
    return tmp_path / "in"


def test_every_case_has_a_row_with_its_reason(root: Path) -> None:
    content = listed(root, "--json")
    rows = {row["case_id"]: row for row in content["cases"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "plain": "run",
        "gap": "failed",
        "good": "run",
    }
    assert "1 slice is missing within z = 109.0 to 115.0 mm" in rows["gap"]["reason"]
    assert (rows["good"]["kind"], rows["good"]["files"]) == ("dicom", 50)
    assert {aside["reason"]: aside["slices"] for aside in rows["good"]["series_left_aside"]} == {
        "bone or lung kernel": 50,
        "a localizer": 1,
    }
    assert "1 file left out: not an image" in content["left_aside"]


def test_the_words_say_what_the_table_says(root: Path) -> None:
    text = listed(root)
    assert "good: dicom, 50 files\n" in text
    assert "plain: nifti, 1 file\n" in text
    assert "gap: cannot be run: gap: 1 slice is missing" in text
    assert text.count("left out: bone or lung kernel (50 slices)") == 1
    assert text.count("left out: a localizer (1 slice)") == 1


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_no_name_of_a_patient_is_shown(root: Path, words: tuple[str, ...]) -> None:
    assert "TEST" not in str(listed(root, *words))


@pytest.mark.slow
def test_parts_and_limits_are_those_of_a_run(root: Path) -> None:
    whole = [row["case_id"] for row in listed(root, "--json")["cases"]]
    parts = [
        [row["case_id"] for row in listed(root, "--json", "--num-parts", "2", "--part-id", str(k))["cases"]]
        for k in (0, 1)
    ]
    assert parts == [whole[::2], whole[1::2]]
    rows = listed(root, "--json", "--limit", "1")["cases"]
    assert [row["status"] for row in rows[1:]] == ["skipped", "skipped"]
    assert rows[2]["reason"] == "beyond --limit 1"
    assert "skipped: beyond --limit 1" in listed(root, "--limit", "1")


@pytest.mark.parametrize(
    "words",
    [("--limit", "0"), ("--num-parts", "0"), ("--num-parts", "2", "--part-id", "2"), ("--series", "1.2")],
)
def test_words_that_do_not_fit_are_wrong_use(root: Path, words: tuple[str, ...]) -> None:
    assert "aiene: " in listed(root, *words, code=2)
