"""Small CTs made from nothing: not square, with a mark in one corner and slices told apart by their grey."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

ROWS, COLUMNS = 32, 40
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
AIR, MARK = -1000, 900

Array = npt.NDArray[Any]


def uid(*words: str) -> str:
    """A UID that is the same on each run."""
    return str(generate_uid(entropy_srcs=["aiene tests", *words]))


def ct(slices: int = 8, rows: int = ROWS, columns: int = COLUMNS) -> Array:
    """HU (slice, row, column): air, a body of grey -24 + slice, and a bright L near one corner."""
    hu = np.full((slices, rows, columns), AIR, dtype=np.int16)
    hu[:, 4:-4, 4:-4] = (np.arange(slices) - 24)[:, None, None]
    hu[:, 6:12, 6] = MARK
    hu[:, 6, 6:9] = MARK
    return hu


def slice_dataset(
    stored: Array,
    *,
    position: Sequence[float] = (0.0, 0.0, 0.0),
    orientation: Sequence[float] = AXIAL,
    pixel_spacing: Sequence[float] = (0.9, 0.8),
    series: str = "series",
    study: str = "study",
    patient: str = "one",
    slope: float = 1,
    intercept: float = -1024,
    name: str = "",
    **tags: Any,
) -> Dataset:
    """One CT slice; further DICOM attributes by keyword, None to leave one out."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = uid(series, study, patient, name or str(tuple(position)))
    ds.PatientName, ds.PatientID = "TEST^ONE", f"TEST-{patient}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(study, patient), uid(series, study, patient)
    ds.FrameOfReferenceUID = uid("frame", study, patient)
    ds.StudyDate, ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "20260101", "CT", 1, 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient = [f"{v:.7g}" for v in position]
    ds.ImageOrientationPatient = [f"{v:.9g}" for v in orientation]
    ds.PixelSpacing = [f"{v:.7g}" for v in pixel_spacing]
    ds.SliceThickness = "3"
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    ds.RescaleSlope, ds.RescaleIntercept = f"{slope:g}", f"{intercept:g}"
    ds.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    for keyword, value in tags.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    *,
    hu: Array | None = None,
    slices: int = 8,
    step: Sequence[float] = (0.0, 0.0, 3.0),
    start: Sequence[float] = (-20.0, -15.0, 100.0),
    leave_out: Sequence[int] = (),
    prefix: str = "CT",
    change: Callable[[int, Dataset], None] = lambda index, ds: None,
    **tags: Any,
) -> list[Path]:
    """A series of single-slice files, unsigned with intercept -1024; `change` may alter each slice."""
    hu = ct(slices) if hu is None else hu
    files = []
    for index, plane in enumerate(hu):
        if index in leave_out:
            continue
        position = np.array(start) + index * np.array(step)
        ds = slice_dataset((plane.astype(np.int32) + 1024).astype(np.uint16), position=position, **tags)
        ds.InstanceNumber = index + 1
        change(index, ds)
        files.append(save(ds, folder / f"{prefix}{index:03d}.dcm"))
    return files


def enhanced(
    hu: Array,
    *,
    spacing: float = 2.5,
    orientation: Sequence[float] = AXIAL,
    positions: bool = True,
    order: Sequence[int] | None = None,
) -> Dataset:
    """An enhanced multi-frame CT, frames in `order` of rising z; or a plain CT class with several frames."""
    order = list(order if order is not None else range(len(hu)))
    stored = (hu[order].astype(np.int32) + 1024).astype(np.uint16)
    ds = slice_dataset(stored, series="enhanced")
    ds.NumberOfFrames = len(order)
    if not positions:
        del ds.ImagePositionPatient
        return ds
    ds.SOPClassUID = EnhancedCTImageStorage
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        del ds[keyword]
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(orientation))]
    shared.PixelMeasuresSequence = [_item(PixelSpacing=["0.9", "0.8"], SliceThickness="2.5")]
    shared.PixelValueTransformationSequence = [_item(RescaleSlope="1", RescaleIntercept="-1024")]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index in order:
        frame = Dataset()
        frame.PlanePositionSequence = [_item(ImagePositionPatient=[-20, -15, 100 + spacing * index])]
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    return ds


def _item(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def write_nifti(
    path: Path,
    array_kji: Array,
    *,
    sform: Array | None = None,
    qform: Array | None = None,
    codes: tuple[int, int] = (1, 1),
    slope: tuple[float, float] | None = None,
    pixdim: Sequence[float] | None = None,
) -> Path:
    """A NIfTI file with the raw header that is asked for; affines take (i, j, k) to RAS mm."""
    array = np.ascontiguousarray(array_kji).T
    header = nib.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    affine = sform if sform is not None else qform if qform is not None else np.diag([1.0, 1.0, 3.0, 1.0])
    header.set_qform(affine if qform is None else qform, code=codes[1], strip_shears=True)
    header.set_sform(affine if sform is None else sform, code=codes[0])
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    header["vox_offset"], header["magic"] = 352, b"n+1"
    if slope is not None:
        header["scl_slope"], header["scl_inter"] = slope
    content = header.binaryblock + b"\0\0\0\0" + array.astype(array.dtype.newbyteorder("<")).tobytes("F")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".gz"):
        import gzip

        content = gzip.compress(content, 1)
    path.write_bytes(content)
    return path
