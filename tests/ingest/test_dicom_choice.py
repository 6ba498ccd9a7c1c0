"""Which series of a study is taken, why, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    MRImageStorage,
)

from aiene.errors import UsageError
from aiene.ingest.case import Case, Refusal
from aiene.ingest.dicom.header import Words
from aiene.ingest.dicom.study import Contrast, Kernel, Region, contrast, kernel, region
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from builders.dicom_files import enhanced, save, slice_dataset, uid, write_series
from builders.dicom_stacks import only
from builders.dicom_studies import CORONAL, dose, other, report, screenshot, small, structure_set, study


@pytest.fixture
def one_study(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Bug report 30: soft 3 mm, bone 1 mm, coronal MPR, scout, arterial and venous."""
    folder = tmp_path / "patient"
    uids = study(
        folder,
        art={
            "ConvolutionKernel": "B31f",
            "SeriesDescription": "Neck arterial 3.0 B31f",
            "ContrastBolusAgent": "X",
        },
        ven={
            "ConvolutionKernel": "B31f",
            "SeriesDescription": "Neck venous 3.0 B31f",
            "ContrastBolusAgent": "X",
        },
        bone={
            "ConvolutionKernel": "B70s",
            "SeriesDescription": "Neck venous 1.0 B70s",
            "ContrastBolusAgent": "X",
            "step": (0, 0, 1.0),
            "slices": 150,
        },
        native={"ConvolutionKernel": "B31f", "SeriesDescription": "Neck native"},
        mpr={"orientation": CORONAL, "step": (0, 3.0, 0), "ImageType": ["DERIVED", "SECONDARY", "MPR"]},
    )
    scout = slice_dataset(
        small(1)[0].astype(np.uint16),
        orientation=CORONAL,
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        series="scout",
    )
    save(scout, folder / "scout.dcm")
    return folder, uids


@pytest.mark.slow
def test_the_soft_venous_axial_series_is_taken_and_all_others_are_listed(
    one_study: tuple[Path, dict[str, str]],
) -> None:
    folder, uids = one_study
    case = only(folder)
    assert case.series_uid == uids["ven"]
    assert len(case.files) == 50
    text = "\n".join(case.notes)
    assert (
        f"series {uids['ven']} taken (by the rule, of 6): axial, 50 slices 3.00 mm apart over 150 mm" in text
    )
    for name, why in {
        "art": "arterial contrast",
        "bone": "bone or lung kernel",
        "native": "no contrast",
        "mpr": "not axial",
    }.items():
        assert f"series {uids[name]} left out: {why}" in text
    assert f"series {uid('scout', 'study', 'one')} left out: a localizer (1 slice)" in text


@pytest.mark.slow
def test_the_choice_is_told_among_the_notes_of_the_search(one_study: tuple[Path, dict[str, str]]) -> None:
    folder, uids = one_study
    _, notes = find_cases(folder)
    assert any(note.startswith(f"patient: series {uids['ven']} taken") for note in notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bone", "mpr", "native"])
def test_series_overrides_the_rule(one_study: tuple[Path, dict[str, str]], name: str) -> None:
    folder, uids = one_study
    (case,) = find_cases(folder, series=uids[name])[0]
    assert isinstance(case, Case)
    assert case.series_uid == uids[name]
    assert all(file.name.startswith(name) for file in case.files)
    assert "as --series asks" in case.notes[0]
    assert read_case(case).source["series_uid"] == uids[name]


@pytest.mark.slow
def test_a_series_that_is_not_there_is_wrong_use(one_study: tuple[Path, dict[str, str]]) -> None:
    with pytest.raises(UsageError, match=r"1\.2\.3"):
        find_cases(one_study[0], series="1.2.3")


BASE = {"ConvolutionKernel": "STANDARD", "SeriesDescription": "neck contrast"}
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "axial": ({}, {"orientation": CORONAL, "step": (0, 3.0, 0)}, "not axial"),
    "a sound stack": ({}, {"leave_out": [7]}, "1 slice is missing"),
    "no map": ({}, {"ImageType": ["DERIVED", "PRIMARY", "PERFUSION"]}, "a map, not HU"),
    "not reformatted": ({}, {"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, "reformatted"),
    "the neck": ({}, {"SeriesDescription": "chest contrast"}, "another part of the body"),
    "long enough": ({}, {"slices": 30}, "covers only 90 mm"),
    "said to be of the neck": ({}, {"SeriesDescription": "axial contrast"}, "not labelled as neck"),
    "soft kernel": ({}, {"ConvolutionKernel": "LUNG"}, "bone or lung kernel"),
    "venous": (
        {"SeriesDescription": "neck venous"},
        {"SeriesDescription": "neck arterial"},
        "arterial contrast",
    ),
    "primary": ({}, {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, "secondary images"),
    "original": ({}, {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "derived images"),
    "thin": ({"step": (0, 0, 2.0), "slices": 80}, {}, "thicker slices (3.0 mm)"),
    "one millimetre is thin enough": (
        {"step": (0, 0, 1.0), "slices": 80},
        {"step": (0, 0, 0.5), "slices": 150},
        "covers less (75 mm)",
    ),
    "coverage": ({"slices": 60}, {}, "covers less (150 mm)"),
    "series number": ({}, {}, "a later series number"),
}


@pytest.mark.slow
@pytest.mark.parametrize("point", PAIRS)
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_each_point_of_the_rule_decides_where_it_is_the_only_difference(
    tmp_path: Path, point: str, names: tuple[str, str]
) -> None:
    better, worse, why = PAIRS[point]
    uids = study(tmp_path / "one", **{names[0]: {**BASE, **better}, names[1]: {**BASE, **worse}})
    case = only(tmp_path / "one")
    assert case.series_uid == uids[names[0]]
    assert any(f"series {uids[names[1]]} left out: {why}" in note for note in case.notes)


@pytest.mark.slow
def test_the_smaller_series_uid_breaks_the_last_tie(tmp_path: Path) -> None:
    for name in ("p", "q"):
        write_series(tmp_path / "one", hu=small(), prefix=name, series=name, **BASE)  # type: ignore[arg-type]
    assert only(tmp_path / "one").series_uid == min(uid(n, "study", "one") for n in ("p", "q"))


def test_objects_that_are_no_ct_are_left_aside_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "plan"
    write_series(folder)
    for change in (structure_set, dose, report, screenshot):
        save(other(change), folder / f"A{change.__name__}")  # a name that sorts first and says nothing
    case = only(folder)
    assert len(case.files) == 8
    for kind in ("RTSTRUCT", "RTDOSE", "SR", "secondary capture"):
        assert f"left out: 1 x {kind}" in case.notes


def magnetic(index: int, ds: Dataset) -> None:
    ds.SOPClassUID, ds.Modality = MRImageStorage, "MR"


def test_an_mr_is_refused_by_its_name(tmp_path: Path) -> None:
    write_series(tmp_path / "root" / "mr", change=magnetic)
    write_series(tmp_path / "root" / "ok", patient="two")
    mr, ok = find_cases(tmp_path / "root")[0]
    assert isinstance(mr, Refusal)
    assert mr.reason == "mr: it holds MR instead of a CT; give the CT series."
    assert isinstance(ok, Case)


def test_the_shared_mr_and_nuclear_medicine_files_are_refused(shared: Path) -> None:
    folder = shared / "data" / "awkward-dicom"
    for name, what in {"emri_small": "MR", "JPEG-LL": "secondary capture"}.items():
        (case,) = find_cases(folder / f"{name}.dcm")[0]
        assert isinstance(case, Refusal)
        assert f"it holds {what} instead of a CT" in case.reason


def test_a_folder_of_a_localizer_alone_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (case,) = find_cases(tmp_path / "scout")[0]
    assert isinstance(case, Refusal)
    assert "no usable CT series (a localizer)" in case.reason


def test_two_studies_of_one_folder_are_two_cases(tmp_path: Path) -> None:
    write_series(tmp_path / "p" / "pat", study="first", prefix="a", StudyDate="20250101")
    write_series(tmp_path / "p" / "pat", study="second", prefix="b", StudyDate="20260101")
    first, second = find_cases(tmp_path / "p")[0]
    assert isinstance(first, Case)
    assert isinstance(second, Case)
    assert first.case_id != second.case_id
    assert all(case.case_id.startswith("pat~") for case in (first, second))
    assert first.files[0].name.startswith("a")
    assert all("the folder holds 2 studies" in " ".join(case.warnings) for case in (first, second))


def test_two_patients_of_one_folder_are_two_cases(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_series(tmp_path / "p" / "mixed", patient=name, prefix=name)
    first, second = (case.case_id for case in find_cases(tmp_path / "p")[0])
    assert first != second
    assert first.startswith("mixed~")


def test_a_damaged_file_beside_a_series_is_told(tmp_path: Path) -> None:
    write_series(tmp_path / "one")
    (tmp_path / "one" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x08\0\x05")
    assert any("broken.dcm cannot be read" in warning for warning in only(tmp_path / "one").warnings)


def test_damaged_files_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x08\0\x05")
    (case,) = find_cases(tmp_path / "one")[0]
    assert isinstance(case, Refusal)
    assert "broken.dcm cannot be read" in case.reason


def test_an_enhanced_ct_beside_plain_slices_competes_like_any_series(tmp_path: Path) -> None:
    save(enhanced(small(60)), tmp_path / "one" / "many.dcm")
    write_series(tmp_path / "one", hu=small(10), SOPClassUID=CTImageStorage)
    case = only(tmp_path / "one")
    assert [file.name for file in case.files] == ["many.dcm"]
    assert read_case(case).volume.grid.size == (60, 6, 8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("STANDARD", Kernel.SOFT), ("SOFT", Kernel.SOFT), ("BONE", Kernel.SHARP), ("BONEPLUS", Kernel.SHARP),
        ("LUNG", Kernel.SHARP), ("B31f", Kernel.SOFT), ("B70s", Kernel.SHARP), ("H60s", Kernel.SHARP),
        ("['Br40f', '3']", Kernel.SOFT), ("Hr59", Kernel.SOFT), ("Br64", Kernel.SHARP), ("I30f", Kernel.SOFT),
        ("FC08", Kernel.SOFT), ("FC30", Kernel.SHARP), ("FC52", Kernel.SHARP), ("B", Kernel.SOFT),
        ("YC", Kernel.SHARP), ("", Kernel.UNKNOWN), ("XYZ", Kernel.UNKNOWN),
    ],
)  # fmt: skip
def test_kernels_of_the_makers_are_known(name: str, expected: Kernel) -> None:
    assert kernel(Words(kernel=name)) == expected


@pytest.mark.parametrize(
    ("description", "agent", "expected"),
    [
        ("Hals venös 3.0", "", Contrast.VENOUS), ("Neck portal", "X", Contrast.VENOUS),
        ("CTA carotis", "X", Contrast.ARTERIAL), ("Neck C+", "", Contrast.PRESENT),
        ("Neck", "Iohexol", Contrast.PRESENT), ("Neck", "", Contrast.UNKNOWN),
        ("C-Spine", "", Contrast.UNKNOWN), ("Neck C-", "", Contrast.NONE), ("template", "", Contrast.UNKNOWN),
        ("Hals nativ", "", Contrast.NONE), ("NON CONTRAST", "", Contrast.NONE),
        ("Neck", "NONE", Contrast.NONE),
        ("w/o contrast", "", Contrast.NONE), ("pre contrast", "", Contrast.NONE),
    ],
)  # fmt: skip
def test_phases_of_contrast_are_known(description: str, agent: str, expected: Contrast) -> None:
    assert contrast(Words(description=description, contrast_agent=agent)) == expected


@pytest.mark.parametrize(
    ("description", "body", "expected"),
    [
        ("Head and Neck", "", Region.NECK), ("H&N", "", Region.NECK), ("Hals 3.0", "CHEST", Region.NECK),
        ("", "HEADNECK", Region.NECK), ("Thorax", "NECK", Region.ELSEWHERE),
        ("Axial", "ABDOMEN", Region.ELSEWHERE),
        ("Axial", "", Region.UNKNOWN), ("Head native", "", Region.UNKNOWN), ("C-Spine", "", Region.ELSEWHERE),
    ],
)  # fmt: skip
def test_parts_of_the_body_are_known(description: str, body: str, expected: Region) -> None:
    assert region(Words(description=description, body_part=body)) == expected
