"""An input list: every row a case, with its patient, date and mask; what is wrong with it is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiene.errors import InputError, TableError
from aiene.ingest.case import Case, Refusal
from aiene.ingest.find import find_cases, source_files
from aiene.ingest.masks import own_mask
from builders.dicom_files import ct, write_nifti, write_series


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "cts").mkdir()
    for name in ("one", "two"):
        write_nifti(tmp_path / "cts" / f"{name}.nii.gz", ct())
    write_series(tmp_path / "cts" / "pt7", patient="A", study="1", slices=4)
    return tmp_path


def listed(study: Path, text: str, name: str = "list.csv") -> list[Case | Refusal]:
    (study / name).write_text(text, encoding="utf-8")
    return find_cases(study / name)[0]


def test_every_row_is_a_case_as_the_list_says(study: Path) -> None:
    found = listed(
        study,
        "case,patient,date,treatment,image\n"
        "a,P1,2019-01-01,2020-06-01,cts/one.nii.gz\n"
        "b,P1,20200101,2020-06-01,cts/two.nii.gz\n"
        ",,,,cts/pt7\n",
    )
    assert [(c.case_id, c.patient, c.date, c.counts) for c in found] == [
        ("a", "P1", "2019-01-01", False),
        ("b", "P1", "2020-01-01", True),
        ("pt7", "pt7", "2026-01-01", True),
    ]
    assert [c.source for c in found] == ["cts/one.nii.gz", "cts/two.nii.gz", "cts/pt7"]
    assert all(isinstance(c, Case) and c.files for c in found)


def test_semicolons_a_byte_order_mark_and_absolute_paths(study: Path) -> None:
    text = f"\ufeffimage;case_id\n{study / 'cts' / 'one.nii.gz'};x\n"
    (case,) = listed(study, text)
    assert (case.case_id, case.files) == ("x", (study / "cts" / "one.nii.gz",))  # type: ignore[union-attr]


def test_a_row_that_is_no_ct_is_a_failed_row_and_stops_no_other(study: Path) -> None:
    (study / "words.txt").write_text("no image")
    found = listed(study, "image\ncts/one.nii.gz\ncts/gone.nii.gz\ncts\nwords.txt\nlist.csv\n")
    assert isinstance(found[0], Case)
    reasons = [c.reason for c in found[1:] if isinstance(c, Refusal)]
    assert reasons[0] == "gone.nii.gz: it does not exist; correct line 3 of the list."
    assert reasons[1].startswith("list.csv, line 4: cts holds 3 CTs (")
    assert "words.txt: it is not an image that can be read" in reasons[2]
    assert "it is a list again" in reasons[3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case\na\n", "the column image is missing"),
        ("image\n", "it has no rows"),
        ("case,case_id,image\na,b,cts/one.nii.gz\n", "two of its columns mean the same"),
        ("image,date\ncts/one.nii.gz,1/2/2020\n", "line 2: date is '1/2/2020'; write it as YYYY-MM-DD"),
        ("image,case\ncts/one.nii.gz,a\ncts/two.nii.gz,A\n", "line 3: the case_id A is already in line 2"),
        ("image\ncts/one.nii.gz\ncts/one.nii.gz\n", "line 3: the image cts/one.nii.gz is already in line 2"),
        ("image,mask\ncts/one.nii.gz,m.nii.gz\ncts/two.nii.gz,\n", "no mask in line 3"),
        ("image,case\ncts/one.nii.gz\n", "line 2: it has 1 cells, the header has 2"),
    ],
)
def test_a_list_that_cannot_be_used_is_told_before_anything_is_read(
    study: Path, text: str, said: str
) -> None:
    with pytest.raises((TableError, InputError), match=said.replace("(", r"\(")):
        listed(study, text)


def test_every_problem_of_a_list_is_told_at_one_time(study: Path) -> None:
    with pytest.raises(TableError) as caught:
        listed(study, "image,date\n,2020-01-01\ncts/one.nii.gz,soon\n")
    assert len(caught.value.problems) == 2


def test_masks_of_a_list_are_those_of_their_rows(study: Path) -> None:
    write_nifti(study / "m.nii.gz", ct())
    one, two = listed(study, "image,mask\ncts/one.nii.gz,m.nii.gz\ncts/two.nii.gz,gone.nii.gz\n")
    assert isinstance(one, Case)
    assert isinstance(two, Case)
    assert own_mask(one, None) == study / "m.nii.gz"
    with pytest.raises(InputError, match="correct the mask of this case in the input list"):
        own_mask(two, None)


def test_the_files_of_a_list_are_found_again_for_an_export(study: Path) -> None:
    listed(study, "image\ncts/pt7\ncts/one.nii.gz\n")
    with source_files(study / "list.csv") as files:
        assert len(files) == 5
