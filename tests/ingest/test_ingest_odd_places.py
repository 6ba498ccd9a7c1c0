"""Folders and archives of odd make: nobody's CT goes unmentioned, and nothing is said twice."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from aiene.errors import InputError
from aiene.ingest.case import Case, Refusal
from aiene.ingest.find import find_cases
from builders.archives import pack
from builders.dicom_files import write_series


def nest(folder: Path, target: Path) -> Path:
    """An archive that holds an archive of a CT."""
    write_series(folder)
    inner = pack(folder, folder.with_name("inner.zip"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as outer:
        outer.write(inner, "inner.zip")
    return target


def test_an_archive_of_archives_is_a_row(tmp_path: Path) -> None:
    outer = nest(tmp_path / "plain", tmp_path / "root" / "a" / "outer.zip")
    write_series(tmp_path / "root" / "b")
    sources = {outer: "outer", outer.parent: "outer", tmp_path / "root": "a_outer"}
    for source, name in sources.items():
        found, _ = find_cases(source)
        refused = next(case for case in found if isinstance(case, Refusal))
        assert refused.case_id == name
        assert "another archive (inner.zip), which is not opened; unpack it" in refused.reason
    assert len(found) == 2


def test_a_ct_beside_an_inner_archive_is_taken(tmp_path: Path) -> None:
    outer = nest(tmp_path / "plain", tmp_path / "outer.zip")
    with zipfile.ZipFile(outer, "a") as archive:
        for file in sorted((tmp_path / "plain").iterdir()):
            archive.write(file, file.name)
    (case,), notes = find_cases(outer)
    assert isinstance(case, Case)
    assert "inner.zip: a zip archive within outer.zip was not opened" in notes


def test_a_folder_whose_archive_is_taken_is_not_called_empty(tmp_path: Path) -> None:
    write_series(tmp_path / "plain")
    pack(tmp_path / "plain", tmp_path / "root" / "sub" / "one.zip")
    (case,), notes = find_cases(tmp_path / "root")
    assert isinstance(case, Case)
    assert not [note for note in notes if "no image found" in note]


@pytest.mark.parametrize(
    ("files", "said"), [(1, "its only file is not an image"), (2, "none of its 2 files")]
)
def test_a_folder_without_an_image_is_told_with_its_number_of_files(
    tmp_path: Path, files: int, said: str
) -> None:
    for number in range(files):
        (tmp_path / f"{number}.txt").write_text("no image")
    with pytest.raises(InputError, match=said):
        find_cases(tmp_path)
