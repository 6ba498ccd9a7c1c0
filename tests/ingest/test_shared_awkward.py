"""The shared awkward files as a user would give them: each a sentence or a case, alone and together."""

from __future__ import annotations

from pathlib import Path

from aiene.ingest.case import Refusal
from aiene.ingest.find import find_cases
from builders.dicom_stacks import refusal


def test_the_tilted_scan_of_varying_steps_is_refused_as_the_zip_that_it_is(shared: Path) -> None:
    path = shared / "data" / "awkward-dicom" / "ge_tilt_variable_spacing.zip"
    text = refusal(path)
    assert text.startswith("ge_tilt_variable_spacing.zip: ")
    assert "unevenly spaced (1.08 to 7.00 mm apart)" in text


def test_the_whole_folder_is_rows_of_one_sentence_each(shared: Path) -> None:
    folder = shared / "data" / "awkward-dicom"
    cases, _ = find_cases(folder)
    assert cases
    for case in cases:
        assert isinstance(case, Refusal)
        assert case.reason.endswith(".")
        assert "\n" not in case.reason
    assert "ge_tilt_variable_spacing" in {case.case_id for case in cases}
