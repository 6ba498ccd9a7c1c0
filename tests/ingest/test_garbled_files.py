"""Bytes of any kind end in a case, a refusal or an `InputError`, and no message names the patient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from aiene.errors import InputError
from aiene.ingest.case import Refusal
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from builders.dicom_files import ct, enhanced, save, write_nifti, write_series


def nrrd_file(folder: Path) -> list[Path]:
    sitk.WriteImage(sitk.GetImageFromArray(ct()), str(folder / "one.nrrd"))
    return [folder / "one.nrrd"]


def packed(syntax: str) -> Callable[[Path], list[Path]]:
    return lambda folder: write_series(
        folder, change=lambda _, ds: ds.compress(syntax, generate_instance_uid=False)
    )


KINDS: dict[str, Callable[[Path], list[Path]]] = {
    "dicom": write_series,
    "jpeg 2000": packed(JPEG2000Lossless),
    "jpeg-ls": packed(JPEGLSLossless),
    "rle": packed(RLELossless),
    "enhanced": lambda folder: [save(enhanced(ct(6)), folder / "many.dcm")],
    "nifti": lambda folder: [write_nifti(folder / "one.nii", ct())],
    "gzip": lambda folder: [write_nifti(folder / "one.nii.gz", ct())],
    "nrrd": nrrd_file,
}


def garbled(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, most of them in the header; sometimes the end cut off."""
    result = bytearray(content)
    reach = min(len(result), 1400 if rng.random() < 0.8 else len(result))
    for _ in range(int(rng.integers(1, 6))):
        result[int(rng.integers(reach))] = int(rng.integers(256))
    return bytes(result[: int(rng.integers(len(result)))] if rng.random() < 0.2 else result)


COMPRESSED = ("jpeg 2000", "jpeg-ls", "rle")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in COMPRESSED else ()) for kind in KINDS]
)
def test_garbled_files_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(list(kind.encode()))
    files = KINDS[kind](tmp_path)
    said: list[str] = []
    for _ in range(40):
        file = files[int(rng.integers(len(files)))]
        content = file.read_bytes()
        file.write_bytes(garbled(content, rng))
        try:
            for case in find_cases(tmp_path)[0]:
                said.append(
                    case.reason if isinstance(case, Refusal) else " ".join(case.notes + case.warnings)
                )
                if not isinstance(case, Refusal):
                    read_case(case)
        except InputError as error:
            said.append(str(error))
        file.write_bytes(content)
    assert len(said) > 30
    assert not [text for text in said if "TEST" in text]
