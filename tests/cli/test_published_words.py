"""The published flags, their legacy twins and the configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiene.cli import container
from aiene.errors import InputError, UsageError

CONFIG = {"path": {"input_data_dir": "from_config"}, "data": {"input_data_format": "nrrd"}}


@pytest.mark.parametrize(
    ("line", "config", "expected"),
    [
        ("--input-dir a", {}, ("a", "auto")),
        ("--input-dir a --input-format nii", {}, ("a", "nii")),
        ("--input-dir a --input-data-dir b --dicom-dir c", {}, ("a", "auto")),
        ("--input-data-dir b --dicom-dir c", {}, ("b", "auto")),
        ("--dicom-dir c", {}, ("c", "dicom")),
        ("--dicom-dir c --input-format auto", {}, ("c", "auto")),
        ("--dicom-dir c", CONFIG, ("c", "dicom")),
        ("", CONFIG, ("from_config", "nrrd")),
        ("--input-dir a", CONFIG, ("a", "nrrd")),
        ("--input-dir a --input-format nii.gz", CONFIG, ("a", "nii.gz")),
    ],
)
def test_each_word_has_its_rank(line: str, config: dict[str, Any], expected: tuple[str, str]) -> None:
    source = container.choose_source(container._parser().parse_args(line.split()), config)
    assert (str(source.folder), source.format) == expected


def test_no_folder_and_a_strange_format_are_said() -> None:
    words = container._parser().parse_args([])
    with pytest.raises(UsageError, match="name their folder with --input-dir"):
        container.choose_source(words, {})
    with pytest.raises(UsageError, match="tiff: no such input format"):
        container.choose_source(
            words, {"path": {"input_data_dir": "x"}, "data": {"input_data_format": "tiff"}}
        )


@pytest.mark.parametrize(
    ("gpu", "device"), [("cpu", "cpu"), ("auto", "auto"), ("0", "cuda:0"), ("3", "cuda:3")]
)
def test_gpu_words_become_devices(gpu: str, device: str) -> None:
    assert container.device_of(gpu) == device  # type: ignore[attr-defined]


def test_a_strange_gpu_word_is_refused() -> None:
    with pytest.raises(UsageError, match="--gpu fast: use cpu, auto"):
        container.device_of("fast")  # type: ignore[attr-defined]


def test_the_configuration_is_read_where_it_exists(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    assert container.read_config(file) == {}
    file.write_text("path:\n  input_data_dir: /cts\ndata:\n  input_data_format: dicom\n")
    assert container.read_config(file)["path"]["input_data_dir"] == "/cts"
    file.write_text("")
    assert container.read_config(file) == {}
    for content in ("- a list", "a: [", "!!python/object/apply:os.system ['true']"):
        file.write_text(content)
        with pytest.raises(InputError, match=r"config\.yaml: not a"):
            container.read_config(file)
