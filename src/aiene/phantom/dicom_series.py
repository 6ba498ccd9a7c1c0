"""A CT volume as a DICOM series of single-slice files, as a scanner writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from aiene.geometry import Volume

_INTERCEPT = -1024


def write_dicom_series(ct: Volume, folder: Path, *, name: str) -> list[Path]:
    """Write one file per slice.

    Parameters
    ----------
    ct : HU, whole numbers from -1024 to 31743, array (z, y, x).
    folder : where the files go; made if need be.
    name : patient name and id, and the seed of every UID, so that the files are the same on each run.

    Returns
    -------
    The files, lowest slice index first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(ct.grid.size[0]):
        file = folder / f"CT{index + 1:04d}.dcm"
        _slice(ct, index, name).save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def _slice(ct: Volume, index: int, name: str) -> Dataset:
    grid = ct.grid
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = _uid(name, f"slice {index}")
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, _uid(name, f"slice {index}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(name, "study"), _uid(name, "series")
    ds.FrameOfReferenceUID = _uid(name, "frame of reference")
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = name, name, "", "O"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20260101", "120000", "", "1"
    ds.ReferringPhysicianName, ds.PositionReferenceIndicator = "", ""
    ds.Modality, ds.Manufacturer = "CT", "AI-ENE phantom"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.BodyPartExamined, ds.SeriesDescription = "NECK", "phantom, soft tissue"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 1, 1, index + 1
    ds.KVP, ds.SliceThickness, ds.ConvolutionKernel = "120", f"{grid.spacing[0]:.4f}", "B31f"
    ds.PatientPosition = "HFS"
    ds.ImagePositionPatient = [f"{v:.6f}" for v in grid.points(np.array([index, 0, 0]))]
    ds.ImageOrientationPatient = [f"{v:.8f}" for v in (*grid.direction[2], *grid.direction[1])]
    ds.PixelSpacing = [f"{grid.spacing[1]:.6f}", f"{grid.spacing[2]:.6f}"]
    ds.Rows, ds.Columns = grid.size[1], grid.size[2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(_INTERCEPT), "1", "HU"
    ds.PixelData = (ct.array[index].astype(np.int32) - _INTERCEPT).astype("<u2").tobytes()
    return ds


def _uid(name: str, what: str) -> str:
    return str(generate_uid(entropy_srcs=["AI-ENE phantom", name, what]))
