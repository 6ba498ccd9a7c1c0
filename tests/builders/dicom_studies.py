"""Inputs and readings that several tests share, first written for test_dicom_choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    RTDoseStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
)

from builders.dicom_files import slice_dataset, uid, write_series

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def small(slices: int = 50) -> np.ndarray:
    """A cheap stack of a given length."""
    hu = np.full((slices, 6, 8), -1000, np.int16)
    hu[:, 2:4, 2:6] = 40
    return hu


def study(folder: Path, **series: dict[str, Any]) -> dict[str, str]:
    """Some series of one study in one folder; gives their UIDs."""
    for number, (name, tags) in enumerate(series.items()):
        hu = small(tags.pop("slices", 50))
        write_series(folder, hu=hu, prefix=name, series=name, SeriesNumber=number, **tags)
    return {name: uid(name, "study", "one") for name in series}


def other(change: Callable[[Dataset], None]) -> Dataset:
    ds = slice_dataset(small(1)[0].astype(np.uint16), series="other", name="other")
    change(ds)
    return ds


def structure_set(ds: Dataset) -> None:
    ds.SOPClassUID, ds.Modality = RTStructureSetStorage, "RTSTRUCT"
    ds.SeriesInstanceUID = uid("series", "study", "one")  # shares the CT's series UID
    del ds.PixelData


def dose(ds: Dataset) -> None:
    ds.SOPClassUID, ds.Modality, ds.NumberOfFrames = RTDoseStorage, "RTDOSE", 2
    ds.PixelData = ds.PixelData * 2


def report(ds: Dataset) -> None:
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.88.33", "SR"
    del ds.PixelData


def screenshot(ds: Dataset) -> None:
    ds.SOPClassUID, ds.Modality, ds.SamplesPerPixel = SecondaryCaptureImageStorage, "CT", 3
