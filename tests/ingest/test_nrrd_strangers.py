"""NRRD headers from strangers: nothing outside their folder is opened, nothing runs on; units count."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from builders.dicom_files import ct
from builders.dicom_stacks import read, refusal
from builders.nrrd_reading_inputs import write


def naming(folder: Path, named: str, *, listed: str = "") -> Path:
    """A detached header that names some file, sound otherwise; sound voxels lie beside the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    header = write(folder / "one.nhdr", data="voxels.raw").read_text()
    (folder.parent / "outside.raw").write_bytes(ct().tobytes())
    (folder / "one.nhdr").write_text(header.replace("voxels.raw\n\n", f"{named}\n{listed}\n"))
    return folder / "one.nhdr"


@pytest.mark.parametrize(
    "named",
    [
        "../outside.raw",
        "./../outside.raw",
        "sub/../../outside.raw",
        "/etc/passwd",
        "/dev/zero",
        "\\\\host\\x",
    ],
)
def test_a_data_file_outside_the_headers_folder_is_not_read(tmp_path: Path, named: str) -> None:
    text = refusal(naming(tmp_path / "in", named))
    assert "its data file is outside its own folder, which is not read" in text
    assert "passwd" not in text


def test_an_absolute_path_to_the_file_outside_and_a_list_of_such_are_not_read(tmp_path: Path) -> None:
    assert "outside its own folder" in refusal(naming(tmp_path / "a", str(tmp_path / "outside.raw")))
    names = "".join("../outside.raw\n" for _ in range(8))
    assert "outside its own folder" in refusal(naming(tmp_path / "b", "LIST", listed=names))
    assert "outside its own folder" in refusal(naming(tmp_path / "c", "../p%d.raw 0 7 1"))


def test_links_are_resolved(tmp_path: Path) -> None:
    header = naming(tmp_path / "in", "link.raw")
    (tmp_path / "in" / "link.raw").symlink_to(tmp_path / "outside.raw")
    assert "outside its own folder" in refusal(header)
    (tmp_path / "in" / "link.raw").unlink()
    (tmp_path / "in" / "link.raw").symlink_to(tmp_path / "in" / "voxels.raw")
    np.testing.assert_array_equal(read(header).volume.array, ct())


def test_a_folder_below_the_header_is_its_own(tmp_path: Path) -> None:
    header = naming(tmp_path / "in", "sub/voxels.raw")
    (tmp_path / "in" / "sub").mkdir()
    (tmp_path / "in" / "voxels.raw").rename(tmp_path / "in" / "sub" / "voxels.raw")
    np.testing.assert_array_equal(read(header).volume.array, ct())


def test_home_and_standard_input_are_names_like_others(tmp_path: Path) -> None:
    assert "data file passwd is missing" in refusal(naming(tmp_path / "a", "~/passwd"))
    assert "data file - is missing" in refusal(naming(tmp_path / "b", "-"))


def test_a_pipe_is_no_data_file_and_does_not_hang(tmp_path: Path) -> None:
    header = naming(tmp_path / "in", "pipe")
    os.mkfifo(tmp_path / "in" / "pipe")
    assert "its data file pipe is not a plain file" in refusal(header)


@pytest.mark.parametrize(
    "named",
    [
        "s%d.raw 1 100000000000 1 2",
        "s%d.raw 1 999999999 1 2",
        "s%d.raw 0 7 0",
        "s%d.raw 7 0 1",
        "s%d.raw 0 6 1",
        "s%999999999d.raw 0 7 1",
        "s%d%d.raw 0 7 1",
        "LIST 9",
        "LIST",
        "x" * 100_000 + "%d 1 2 3",
        "%d" * 2000 + " 1 2",
    ],
)
def test_counted_names_are_bounded_by_the_volume(tmp_path: Path, named: str) -> None:
    """Where they are not, this does not end within the time limit of the whole suite."""
    assert refusal(naming(tmp_path / "in", named)).startswith("one.nhdr: ")


def test_a_second_data_file_and_an_endless_header_are_refused(tmp_path: Path) -> None:
    path = naming(tmp_path / "in", "voxels.raw\nDataFile: ../outside.raw")
    assert "a field appears twice" in refusal(path)
    whole = write(tmp_path / "long.nrrd").read_bytes()
    (tmp_path / "long.nrrd").write_bytes(whole.replace(b"# made", b"# " + b"x" * (1 << 20) + b"\n# made"))
    assert "header is longer than 1 MiB" in refusal(tmp_path / "long.nrrd")


def test_skips_are_followed_or_refused(tmp_path: Path) -> None:
    for lines, junk in (
        ("byte skip: 7\n", b"1234567"),
        ("line skip: 2\n", b"a\nbc\n"),
        ("byte skip: -1\n", b"?"),
    ):
        path = write(tmp_path / "one.nrrd", lines=lines)
        head, voxels = path.read_bytes().split(b"\n\n", 1)
        path.write_bytes(head + b"\n\n" + junk + voxels)
        np.testing.assert_array_equal(read(path).volume.array, ct())
    assert "is not supported" in refusal(write(tmp_path / "one.nrrd", lines="byte skip: -5\n"))


def test_the_record_counts_the_voxels_file(tmp_path: Path) -> None:
    header = naming(tmp_path / "in", "voxels.raw")
    before = read(header).source["sha256"]
    other = ct() + np.int16(1)
    (tmp_path / "in" / "voxels.raw").write_bytes(other.tobytes())
    assert read(header).source["sha256"] != before
    assert read(header).source["files"] == 2


def scaled(path: Path, factors: tuple[float, float, float], units: str) -> Path:
    """The CT of `write` with its lengths in other units."""
    whole = write(path).read_bytes()
    a, b, c = factors
    for old, new in (
        (b"(0.8,0,0) (0,0.9,0) (0,0,3)", f"({0.8 / a:.9g},0,0) (0,{0.9 / b:.9g},0) (0,0,{3 / c:.9g})"),
        (b"(-20,-15,100)", f"({-20 / a:.9g},{-15 / b:.9g},{100 / c:.9g})\nspace units: {units}"),
    ):
        assert old in whole
        whole = whole.replace(old, new.encode())
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize(
    ("factors", "units"),
    [
        ((10, 10, 10), '"cm" "cm" "cm"'),
        ((0.001, 0.001, 0.001), '"um" "micron" "\u00b5m"'),
        ((1000, 1000, 1000), '"m" "meters" "metre"'),
        ((1, 1, 10), '"mm" "mm" "cm"'),
        ((1, 1, 1), '"" "???" "Millimeter"'),
    ],
)
def test_space_units_are_honoured_for_each_axis(
    tmp_path: Path, factors: tuple[float, float, float], units: str
) -> None:
    found, plain = read(scaled(tmp_path / "a.nrrd", factors, units)), read(write(tmp_path / "b.nrrd"))
    np.testing.assert_allclose(found.volume.grid.affine, plain.volume.grid.affine, rtol=1e-6)


def test_units_that_are_unknown_or_cannot_be_are_named(tmp_path: Path) -> None:
    assert "its units of length are unknown" in refusal(
        scaled(tmp_path / "a.nrrd", (1, 1, 1), '"furlong" "mm" "mm"')
    )
    text = refusal(scaled(tmp_path / "b.nrrd", (1, 1, 1), '"um" "um" "um"'))
    assert "is not that of a CT" in text
    assert "its units are um, um, um" in text


def test_without_a_space_the_axes_units_count_and_spacings_are_needed(tmp_path: Path) -> None:
    lines = 'spacings: 0.08 0.09 3\nunits: "cm" "cm" "mm"\n'
    found = read(write(tmp_path / "a.nrrd", space=None, lines=lines))
    np.testing.assert_allclose(found.volume.grid.spacing, (3, 0.9, 0.8))
    assert "it does not say how large its voxels are" in refusal(write(tmp_path / "b.nrrd", space=None))
