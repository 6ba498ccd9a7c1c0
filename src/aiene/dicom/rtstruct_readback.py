"""An RTSTRUCT read back from its bytes, its outlines drawn on the source slices, and compared.

The reader knows nothing of how outlines are made: it takes each contour to the plane of the image that it
names, and asks which pixel centres lie in an odd number of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from aiene.dicom.findings import Findings
from aiene.dicom.readback import check_identity, parsed
from aiene.dicom.record import ExportCase
from aiene.dicom.source import Plane, SourceSeries, planes
from aiene.errors import CaseError

_ON_PLANE_MM: Final = 1e-2
_REMEDY: Final = "nothing was kept of it; please report this"

Points = npt.NDArray[np.float64]


def check_rtstruct(content: bytes, case: ExportCase, found: Findings) -> None:
    """Compare an RTSTRUCT's file with the findings, voxel by voxel.

    Raises
    ------
    CaseError : anything differs.
    """
    dataset = parsed(content)
    check_identity(dataset, case)
    names = tuple(str(item.ROIName) for item in dataset.StructureSetROISequence)
    if names != found.names:
        raise CaseError(f"the RTSTRUCT holds {', '.join(names)} when read back", _REMEDY)
    for name, mask in read_rois(dataset, case.source):
        differ = int(np.count_nonzero(mask != found.mask(name)))
        if differ:
            raise CaseError(f"{differ} voxels of {name} differ when the RTSTRUCT is read back", _REMEDY)


def read_rois(dataset: Dataset, source: SourceSeries) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """The ROIs of an RTSTRUCT, one after the other, drawn on the source slices.

    Yields
    ------
    Name, and bool (slice, row, column): the pixel centres that lie in an odd number of the ROI's contours.

    Raises
    ------
    CaseError : a contour names no slice of the source, or lies off its plane.
    """
    where = planes(source)
    slices = {
        (str(d.SOPInstanceUID), frame): k
        for k, (d, frame) in enumerate(zip(source.datasets, source.frames, strict=True))
    }
    names = {int(item.ROINumber): str(item.ROIName) for item in dataset.StructureSetROISequence}
    for roi in dataset.ROIContourSequence:
        mask = np.zeros(source.size, bool)
        for contour in roi.ContourSequence:
            image = contour.ContourImageSequence[0]
            frame = image.get("ReferencedFrameNumber")
            key = str(image.ReferencedSOPInstanceUID), None if frame is None else int(frame)
            if key not in slices:
                raise CaseError("a contour names no image of the source series", _REMEDY)
            k = slices[key]
            points = np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
            mask[k] ^= _inside(_pixels(points, where[k]), mask[k].shape)
        yield names[int(roi.ReferencedROINumber)], mask


def _pixels(points: Points, plane: Plane) -> Points:
    """(n, 2) row and column of LPS points on a slice."""
    offset = points - plane.origin
    if np.abs(offset @ np.cross(plane.along_row, plane.along_column)).max() > _ON_PLANE_MM:
        raise CaseError("a contour lies off the plane of its image", _REMEDY)
    return np.column_stack(
        [offset @ plane.along_column / plane.row_spacing, offset @ plane.along_row / plane.column_spacing]
    )


def _inside(corners: Points, shape: tuple[Any, ...]) -> npt.NDArray[np.bool_]:
    """The pixel centres from which a ray along the row crosses a polygon an odd number of times."""
    inside = np.zeros(shape, bool)
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, shape)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, shape)
    box = inside[low[0] : high[0], low[1] : high[1]]
    row = np.arange(low[0], high[0], dtype=np.float64)[:, None]
    column = np.arange(low[1], high[1], dtype=np.float64)[None]
    for (r0, c0), (r1, c1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if r0 != r1:
            box ^= ((r0 > row) != (r1 > row)) & (column < c0 + (row - r0) * (c1 - c0) / (r1 - r0))
    return inside
