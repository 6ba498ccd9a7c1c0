"""Which templates are taken, and which are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from aiene.errors import ModelError
from aiene.preprocess.preprocess import read_template
from aiene.preprocess.profile import OPEN, PUBLISHED


def write(path: Path, size_zyx: tuple[int, int, int], centre: str | None = None) -> Path:
    array = np.full(size_zyx, -1000, np.int16)
    array[:, 1:, :] = 40
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 3.0))
    if centre is not None:
        image.SetMetaData("neck_centre_lps_mm", centre)
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize(
    ("rows", "columns", "taken"),
    [
        (241, 241, True),
        (236, 250, True),
        (161, 241, True),
        (161, 240, False),  # y start is negative: an empty crop
        (160, 300, False),  # x start is negative
        (300, 241, True),
        (161, 260, False),  # y window over the far edge: 9 + 160 > 161
        (420, 241, False),  # x window over the far edge: 129 + 160 > 241
    ],
)
def test_the_published_crop_must_be_whole(tmp_path: Path, rows: int, columns: int, taken: bool) -> None:
    file = write(tmp_path / "template.nrrd", (40, rows, columns))
    if taken:
        assert read_template(file, PUBLISHED).volume.grid.size == (40, rows, columns)
    else:
        with pytest.raises(ModelError, match=r"template\.nrrd: .*rows and .*columns"):
            read_template(file, PUBLISHED)
    assert read_template(file, OPEN).volume.array.dtype == np.float32


def test_a_published_template_without_slices_above_the_thirtieth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="slices"):
        read_template(write(tmp_path / "template.nrrd", (30, 241, 241)), PUBLISHED)


def test_the_necks_centre_is_that_of_the_caller_the_header_or_the_middle(tmp_path: Path) -> None:
    named = write(tmp_path / "named.nrrd", (5, 6, 7), "1.5 -2 30")
    bare = write(tmp_path / "bare.nrrd", (5, 6, 7))
    assert read_template(named, OPEN, (9.0, 8.0, 7.0)).neck_centre == (9.0, 8.0, 7.0)
    assert read_template(named, OPEN).neck_centre == (1.5, -2.0, 30.0)
    assert read_template(bare, OPEN).neck_centre == (3.0, 2.5, 6.0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"not a volume", "no readable template"), (b"", "no readable template")],
)
def test_a_file_that_is_no_volume_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "template.nrrd"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=problem):
        read_template(file, OPEN)


def test_a_template_without_contrast_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "template.nrrd"
    sitk.WriteImage(sitk.Image([5, 5, 5], sitk.sitkInt16), str(file))
    with pytest.raises(ModelError, match="holds no image"):
        read_template(file, OPEN)


def test_a_header_with_another_centre_than_three_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="three numbers"):
        read_template(write(tmp_path / "template.nrrd", (5, 6, 7), "high up"), OPEN)
