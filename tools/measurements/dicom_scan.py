"""How long a search through DICOM headers takes: many files of many patients, each of a usual size.

    python -m tools.measurements.dicom_scan [--files 2000] [--patients 20] [--work FOLDER] [--out RESULT.json]

Writes the files with noise for pixels (512 x 512, 16 bit: 525 kB each), asks the system to drop them from its
cache where it may, and times `find_cases` from cold and from warm, and once more as if each file took 5 ms to
open, as on a network drive. The result is printed as JSON and, with --out, kept.
"""

from __future__ import annotations

import argparse
import builtins
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from aiene.device import available_cores
from aiene.ingest.find import find_cases

_NETWORK_SECONDS: Final = 0.005


def main() -> None:
    """Write, search, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--work", type=Path, default=None, help="folder for the files (default: temporary)")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        root = Path(folder) / "root"
        write(root, options.files, options.patients)
        dropped = forget(root)
        cold = timed(root)
        warm = [timed(root) for _ in range(3)]
        with slow_to_open(_NETWORK_SECONDS):
            network = timed(root)
    result = {
        "files": options.files,
        "patients": options.patients,
        "cores": available_cores(),
        "dropped_from_cache": dropped,
        "cold_seconds": round(cold, 2),
        "warm_seconds": round(min(warm), 2),
        "seconds_at_5_ms_a_file": round(network, 2),
    }
    text = json.dumps(result, indent=2) + "\n"
    sys.stdout.write(text)
    if options.out is not None:
        options.out.write_text(text)


def write(root: Path, files: int, patients: int) -> None:
    """A folder a patient, a series each, with as many header elements as a scanner writes."""
    noise = np.random.default_rng(1).integers(0, 2000, (512, 512)).astype("<u2").tobytes()
    per_patient = files // patients
    for patient in range(patients):
        for number in range(per_patient):
            dataset = slice_of(patient, number)
            dataset.PixelData = noise
            path = root / f"patient_{patient:03d}" / "study" / f"IM{number:04d}"
            path.parent.mkdir(parents=True, exist_ok=True)
            dataset.save_as(path, enforce_file_format=True)


def slice_of(patient: int, number: int) -> Dataset:
    """One slice's header, of about 130 elements."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    instance = generate_uid(entropy_srcs=[f"{patient}.{number}"])
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = instance
    ds.PatientName, ds.PatientID = "TEST^ONE", f"TEST-{patient}"
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[f"study {patient}"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[f"series {patient}"])
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[f"frame {patient}"])
    ds.StudyDate, ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "20260101", "CT", 2, number + 1
    ds.ImageType, ds.ConvolutionKernel = ["ORIGINAL", "PRIMARY", "AXIAL"], "STANDARD"
    ds.SeriesDescription, ds.BodyPartExamined = "neck", "NECK"
    ds.ImagePositionPatient = [-250, -250, 1.5 * number]
    ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.977, 0.977]
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 512, 512, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    block = ds.private_block(0x0019, "AIENE BENCHMARK", create=True)
    for offset in range(100):
        block.add_new(offset, "LO", f"a value of some length {offset}")
    return ds


def forget(root: Path) -> bool:
    """Ask the system to drop the files from its cache; False where it has no such call."""
    if not hasattr(os, "posix_fadvise"):
        return False
    os.sync()
    for path in root.rglob("IM*"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


@contextmanager
def slow_to_open(seconds: float) -> Iterator[None]:
    """Every file takes so long to open, whoever opens it."""
    really, built_in = Path.open, builtins.open

    def path_open(self: Path, *args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return really(self, *args, **kwargs)

    def plain_open(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return built_in(*args, **kwargs)

    Path.open, builtins.open = path_open, plain_open  # type: ignore[method-assign]
    try:
        yield
    finally:
        Path.open, builtins.open = really, built_in  # type: ignore[method-assign]


def timed(root: Path) -> float:
    """Seconds of one search."""
    start = time.perf_counter()
    find_cases(root)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
