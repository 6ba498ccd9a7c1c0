"""Readers of RTSTRUCT that share nothing with the writer: they know the file and the source images alone."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Polygon

Array = npt.NDArray[Any]


def by_point_in_polygon(file: Path, source: Path) -> dict[str, dict[str, Array]]:
    """Mask of each ROI by name, then by SOPInstanceUID: the pixel centres that lie in an odd number of its
    contours (matplotlib), in the plane of the image that the contour names."""
    images = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, source.glob("*.dcm"))}
    rtstruct = pydicom.dcmread(file)
    names = {item.ROINumber: item.ROIName for item in rtstruct.StructureSetROISequence}
    masks: dict[str, dict[str, Array]] = {name: {} for name in names.values()}
    for roi in rtstruct.ROIContourSequence:
        found = masks[names[roi.ReferencedROINumber]]
        for contour in roi.ContourSequence:
            image = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            drawn = _in_plane(points, image)
            key = str(image.SOPInstanceUID)
            found[key] = found.get(key, np.zeros_like(drawn)) ^ drawn
    return masks


def _in_plane(points: Array, image: pydicom.Dataset) -> Array:
    cosines = np.array(image.ImageOrientationPatient, dtype=float)
    from_corner = points - np.array(image.ImagePositionPatient, dtype=float)
    off_plane = from_corner @ np.cross(cosines[:3], cosines[3:])
    assert np.abs(off_plane).max() < 1e-3
    rows_mm, columns_mm = (float(v) for v in image.PixelSpacing)
    flat = np.column_stack([from_corner @ cosines[:3], from_corner @ cosines[3:]])  # mm along a row, a column
    x, y = np.meshgrid(np.arange(image.Columns) * columns_mm, np.arange(image.Rows) * rows_mm)
    inside = Polygon(flat, closed=False).contains_points(np.column_stack([x.ravel(), y.ravel()]))
    return inside.reshape(image.Rows, image.Columns)


def by_dcmrtstruct2nii(file: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, sitk.Image]:
    """Each ROI as a mask on the image that SimpleITK makes of the series; skips where it is not installed."""
    pytest.importorskip("dcmrtstruct2nii", reason="dcmrtstruct2nii is not installed")
    monkeypatch.setattr(pydicom, "read_file", pydicom.dcmread, raising=False)  # it wants pydicom 2
    parts = "dcmrtstruct2nii.adapters"
    contours, image, convert = (
        importlib.import_module(f"{parts}.{name}")
        for name in ("input.contours.rtstructinputadapter", "input.image.dcminputadapter",
                     "convert.rtstructcontour2mask")
    )  # fmt: skip
    ct = image.DcmInputAdapter().ingest(source)
    masks = {}
    for roi in contours.RtStructInputAdapter().ingest(file):
        mask = convert.DcmPatientCoords2Mask().convert(roi["sequence"], ct, 0, 1)
        mask.CopyInformation(ct)
        masks[roi["name"]] = mask
    return masks


def by_plastimatch(file: Path, source: Path, out: Path) -> dict[str, sitk.Image]:
    """Each ROI as plastimatch (C++) draws it on the series; skips where it is not installed."""
    program = Path(sys.executable).parent / "plastimatch"
    if not program.exists():
        pytest.skip("plastimatch is not installed")
    words = ["convert", "--input", file, "--referenced-ct", source, "--output-prefix", out]
    subprocess.run(
        [str(word) for word in (program, *words, "--prefix-format", "nii.gz")],
        check=True,
        capture_output=True,
    )
    return {f.name.split(".")[0]: sitk.ReadImage(str(f)) for f in out.glob("*.nii.gz")}
