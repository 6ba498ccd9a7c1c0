"""Case ids: of an input's place alone, whatever else is there, and a safe file name on every system."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiene.errors import InputError
from aiene.ingest.case import Case
from aiene.ingest.case_id import MAX_BYTES, case_id, distinct, safe, stem
from aiene.ingest.find import find_cases
from aiene.ingest.masks import find_mask
from builders.archives import pack
from builders.dicom_files import ct, write_nifti, write_series

UID = "1.3.6.1.4.1.14519.5.2.1.99"


def by_source(root: Path) -> dict[str, str]:
    """Case id by path below the input."""
    return {case.source: case.case_id for case in find_cases(root)[0]}


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        ("HN.001.nii.gz", "HN.001"),
        ("HN.001_0000.nii.gz", "HN.001"),
        ("HN.001.NII.GZ", "HN.001"),
        ("HN.001.nrrd", "HN.001"),
        ("001.nii.gz", "001"),
        ("PT1/ct.nii.gz", "PT1"),
        ("PT1/CT.nii", "PT1"),
        ("PT1/image.nrrd", "PT1"),
        ("PT1/ct_2.nii.gz", "PT1_ct_2"),
        ("PT1/2.nii.gz", "PT1_2"),
        (f"PT1/{UID}/{UID}.1.nii.gz", "PT1"),
        ("PT1/PT1_ct.nii.gz", "PT1_ct"),
        ("PT1/PT1.nii.gz", "PT1"),
        ("PT1/PT10.nii.gz", "PT1_PT10"),
        ("A/A/A.nii", "A"),
        ("\U0001f600/ct.nii", "\U0001f600"),
        ("site/sub-01/ses-1/ct/sub-01_ses-1_ct.nii.gz", "site_sub-01_ses-1_ct"),
        ("PT1.zip/PT1/ct.nii.gz", "PT1"),
        ("siteA/pt01.nii.gz", "siteA_pt01"),
        ("siteA/pt01/ct.nii.gz", "siteA_pt01"),
        ("images/PT1.nii.gz", "PT1"),
        ("001/ct.nii.gz", "001"),
        ("ct.nii.gz", "cohort"),
        ("ct/ct.nii.gz", "cohort"),
        ("ct_2.nii.gz", "cohort_ct_2"),
        (f"{UID}.nii.gz", UID),
        (f"{UID}/{UID}.7/ct.nii.gz", UID),
        ("pat.zip/series/scan.nii.gz", "pat"),
    ],
)
def test_the_id_of_a_place(below: str, expected: str) -> None:
    source = Path("/study/cohort")
    assert case_id(source, source / below, is_file=True) == expected


def test_the_folder_above_says_who_it_is_where_the_input_is_a_ct(tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "PT7" / "ct.nii.gz", ct())
    for source in (file, file.parent):
        (case,) = find_cases(source)[0]
        assert case.case_id == "PT7"


PLACES = (
    *("HN.001.nii.gz", "HN.002.nii.gz", "siteA/pt01.nii.gz", "siteB/pt01.nii.gz", "siteB/pt02/ct.nii.gz"),
    *(
        "PT1/ct.nii.gz",
        "PT2/ct.nii.gz",
        "PT3/scan.nii.gz",
        "PT3/scan_2.nii.gz",
        "all/x.nii.gz",
        "all/y.nii.gz",
    ),
    *("p_0000.nii.gz", "p_2.nii.gz", "7/1.nii.gz", "7/2.nii.gz"),
)


@pytest.mark.slow
def test_taking_any_input_away_moves_no_other_id(tmp_path: Path) -> None:
    for place in PLACES:
        write_nifti(tmp_path / place, ct())
    whole = by_source(tmp_path)
    assert sorted(whole) == sorted(PLACES)
    assert len(set(whole.values())) == len(PLACES)
    for place in PLACES:
        (tmp_path / place).rename(tmp_path / ".away")
        assert by_source(tmp_path) == {k: v for k, v in whole.items() if k != place}
        (tmp_path / ".away").rename(tmp_path / place)


@pytest.mark.slow
def test_taking_any_series_away_moves_no_other_id(tmp_path: Path) -> None:
    places = (
        "siteA/pt01",
        "siteA/pt02/CT",
        f"siteB/pt01/{UID}/{UID}.1",
        "pt03/study one/SE000001",
        f"{UID}.5/x",
    )
    for number, place in enumerate(places):
        write_series(tmp_path / place, patient=f"p{number}")
    whole = by_source(tmp_path)
    assert [whole[place] for place in places] == [
        "siteA_pt01",
        "siteA_pt02",
        "siteB_pt01",
        "pt03_study one",
        "x",
    ]
    for place in places:
        shutil.move(tmp_path / place, tmp_path / ".away")
        assert by_source(tmp_path) == {k: v for k, v in whole.items() if k != place}
        shutil.move(tmp_path / ".away", tmp_path / place)


@pytest.mark.parametrize("leaf", ["SE000001", "series one", "7", "NECK 2.0 soft", "CT", UID])
def test_another_series_of_the_study_moves_no_id(tmp_path: Path, leaf: str) -> None:
    tags: dict[str, Any] = {"SeriesDescription": "Neck 2.0 soft", "SeriesNumber": 7}
    write_series(tmp_path / "root" / "pt" / "follow-up" / leaf, **tags)
    (before,) = find_cases(tmp_path / "root")[0]
    write_series(tmp_path / "root" / "pt" / "follow-up" / "another", series="b", ConvolutionKernel="B70s")
    (after,) = find_cases(tmp_path / "root")[0]
    assert before.case_id == after.case_id == "pt_follow-up"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.nii", "a.nii.gz"),
        ("Pt.nii", "pt.nii"),
        ("\u00e9.nii", "e\u0301.nii"),
        ("images/a.nii", "a.nrrd.nii"),
        ("PT1.nii", "PT1/ct.nii"),
    ],
)
def test_two_of_one_spelling_are_told_apart_whatever_the_order(
    tmp_path: Path, first: str, second: str
) -> None:
    write_nifti(tmp_path / first, ct())
    alone = by_source(tmp_path)[first]
    write_nifti(tmp_path / second, ct())
    both = by_source(tmp_path)
    if first == "images/a.nii":  # a.nrrd is another name
        assert both == {first: "a", second: "a.nrrd"}
        return
    assert alone not in both.values()  # an id that stood for one never comes to stand for the other
    assert len({unicodedata.normalize("NFC", name).casefold() for name in both.values()}) == 2
    (tmp_path / first).unlink()
    cases = find_cases(tmp_path)[0]
    assert cases[0].case_id not in both.values()


def test_ids_that_were_told_apart_say_so(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz"):
        write_nifti(tmp_path / name, ct())
    for case in find_cases(tmp_path)[0]:
        assert isinstance(case, Case)
        assert case.warnings == (
            f"another input would be called a too, so this one is called {case.case_id}",
        )


@pytest.mark.parametrize("name", ["CON", "aux", "NUL.txt", "com1", "LPT\u00b9", "prn "])
def test_names_that_a_system_keeps_are_changed(name: str) -> None:
    made = safe(name)
    assert made.split(".")[0].rstrip().casefold() not in {"con", "aux", "nul", "com1", "lpt\u00b9", "prn"}
    assert made != safe(f"_{name}")


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=300), st.text(max_size=300))
def test_an_id_is_a_file_name_and_a_cell_on_every_system(name: str, other: str) -> None:
    made = safe(name)
    assert 0 < len(made.encode()) <= MAX_BYTES
    assert not set(made) & set('<>:"/\\|?*\0\n\r\t\x1b\u202e')
    assert made == made.strip(" .")
    assert made[0] not in "=+-@~'."
    assert safe(made) == made or "~" in made
    same = unicodedata.normalize("NFC", name).lstrip(".") == unicodedata.normalize("NFC", other).lstrip(".")
    assert same or safe(other) != made


def test_names_of_the_longest_kind_keep_room_for_what_is_made_from_them() -> None:
    names = ["x" * 247, "x" * 246 + "y", "\u00e9" * 120 + "a", "\u00e9" * 120 + "b"]
    made = [safe(name) for name in names]
    assert len(set(made)) == 4
    assert all(len(f".{one}_0000.nii.gz.1234567.partial".encode()) < 255 for one in made)


def test_a_name_that_is_not_utf_8_is_a_case_like_any(tmp_path: Path) -> None:
    plain = write_nifti(tmp_path / "plain.nii", ct())
    odd = os.fsdecode(b"caf\xe9.nii")
    plain.rename(tmp_path / odd)
    (case,) = find_cases(tmp_path)[0]
    assert isinstance(case, Case)
    assert case.case_id.encode().startswith(b"caf_~")
    assert case.source == odd


def test_chance_does_not_make_one_id_of_two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("images", "scans", "volumes"):
        write_nifti(tmp_path / folder / "a.nii", ct())
    found = find_cases(tmp_path)[0]
    monkeypatch.setattr("aiene.ingest.case_id._hash", lambda basis: f"h{basis.count('+')}")
    plain = [type(c)(**{**c.__dict__, "case_id": "a"}) for c in found]
    assert [c.case_id for c in distinct(plain)] == ["a~h0", "a~h1", "a~h2"]


@pytest.mark.parametrize(
    ("name", "plain"), [("a.zip", "a"), ("a.nii.gz", "a"), ("a.b", "a.b"), (".nii", ".nii")]
)
def test_only_endings_that_are_known_go(name: str, plain: str) -> None:
    assert stem(name) == plain


def test_the_source_is_the_path_below_the_input(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_nifti(root / "a" / "x.nii.gz", ct())
    write_series(root / "b" / "deep")
    write_nifti(tmp_path / "plain" / "inner.nii", ct())
    pack(tmp_path / "plain", root / "c.zip")
    (root / "d.nii").write_text("words")
    assert sorted(by_source(root)) == ["a/x.nii.gz", "b/deep", "c.zip/inner.nii", "d.nii"]
    assert by_source(root / "c.zip") == {"c.zip/inner.nii": "c_inner"}
    assert by_source(root / "b" / "deep") == {"deep": "deep"}


def test_one_called_ct_is_taken_in_each_folder(tmp_path: Path) -> None:
    for patient in ("PT1", "PT2"):
        for name in ("ct.nii.gz", "mask.nii.gz"):
            write_nifti(tmp_path / "site" / patient / name, ct())
    assert sorted(by_source(tmp_path).values()) == ["site_PT1", "site_PT2"]


def test_a_mask_is_found_by_the_id_and_its_absence_says_the_name(tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    decomposed = write_nifti(masks / "Mu\u0308ller.nii.gz", ct())
    assert find_mask(masks, "M\u00fcller").samefile(decomposed)
    with pytest.raises(InputError, match=r"no mask for the case HN\.002; put HN\.002\.nii\.gz there"):
        find_mask(masks, "HN.002")
