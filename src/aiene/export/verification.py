"""Every object is read back from its bytes and compared before it counts as done.

The readers here use pydicom and share no code with the writers: frames are placed by the position that each
of them states, bits are unpacked by hand, a report's numbers are found by walking its tree. Of an RTSTRUCT,
each contour is taken to the plane of the image that it names; pixel centres that lie in an odd number of
contours are inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from aiene.errors import CaseError, joined, ours, said
from aiene.export import codes
from aiene.export.case import ExportCase, Findings, Plane, SourceSeries, planes
from aiene.export.identity import tracking_uid
from aiene.export.sr import lengths
from aiene.ingest.dicom.header import ODD_VALUE, quiet
from aiene.ingest.dicom.header_values import TYPE_2, identity_of
from aiene.results.records import NodeResult

_SAME_PLACE_MM: Final = 1e-2
_SAME_COSINE: Final = 1e-3
_SHARE_OF_A_SIZE: Final = 1e-3  # source and run may round spacings otherwise

_ON_PLANE_MM: Final = 1e-2
Points = npt.NDArray[np.float64]


def _unlike(problem: str) -> CaseError:
    return CaseError(problem, "it was not kept; please report this")


@dataclass(frozen=True, eq=False)
class Segment:
    """A segment as a reader finds it.

    Parameters
    ----------
    label, tracking_uid : its words.
    voxels : (slice, row, column) on the source slices; bool, or 0 to 255 of a fractional segmentation.
    """

    label: str
    tracking_uid: str
    voxels: npt.NDArray[Any]


def parsed(content: bytes) -> Dataset:
    """An object from the bytes of its file."""
    with quiet():
        return pydicom.dcmread(BytesIO(content))


def read_segments(dataset: Dataset, source: SourceSeries) -> dict[str, Segment]:
    """The segments of a segmentation on the source slices, each frame put where it says that it lies.

    Raises
    ------
    CaseError : a frame matches no source slice, on another lattice than it, or names another image.
    """
    shape = source.size
    fractional = dataset.SegmentationType == "FRACTIONAL"
    made = {
        int(item.SegmentNumber): Segment(
            str(item.SegmentLabel),
            str(item.TrackingUID),
            np.zeros(shape, dtype=np.uint8 if fractional else bool),
        )
        for item in dataset.SegmentSequence
    }
    where = planes(source)
    _check_lattice(dataset, where[0], shape)
    up = np.cross(where[0].along_row, where[0].along_column)
    heights = np.array([plane.origin @ up for plane in where])
    frames = _frames(dataset, fractional)
    for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        identified = group.get("SegmentIdentificationSequence") or dataset.SharedFunctionalGroupsSequence[
            0
        ].get("SegmentIdentificationSequence")
        place = np.array([float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient])
        index = int(np.abs(heights - place @ up).argmin())
        if np.linalg.norm(place - where[index].origin) > _SAME_PLACE_MM:
            raise _unlike(said("frame {} of the segmentation matches no source slice", k + 1))
        _check_image(group, source, index)
        made[int(identified[0].ReferencedSegmentNumber)].voxels[index] |= frames[k]
    return {segment.label: segment for segment in made.values()}


def check_segmentation(content: bytes, case: ExportCase, found: Findings) -> None:
    """Compare a segmentation's file with the findings, voxel by voxel.

    Raises
    ------
    CaseError : anything differs.
    """
    dataset = parsed(content)
    check_identity(dataset, case)
    segments = read_segments(dataset, case.source)
    if tuple(segments) != found.names:
        raise _unlike(said("the segmentation holds {} when read back", joined(", ", map(ours, segments))))
    for name, segment in segments.items():
        wanted, there = found.mask_in_block(name), segment.voxels[found.block]
        beside = np.count_nonzero(segment.voxels) - np.count_nonzero(there)
        differ = int(np.count_nonzero(there != wanted) + beside)
        if differ:
            raise _unlike(
                said("{} voxels of {} differ when the segmentation is read back", differ, ours(name))
            )
        if segment.tracking_uid != tracking_uid(case, name):
            raise _unlike(said("{} has another tracking UID when the segmentation is read back", ours(name)))


def check_fractional(content: bytes, case: ExportCase, stored: dict[str, npt.NDArray[np.uint8]]) -> None:
    """Compare a fractional segmentation's file with what should be stored, voxel by voxel.

    Raises
    ------
    CaseError : anything differs.
    """
    dataset = parsed(content)
    check_identity(dataset, case)
    segments = read_segments(dataset, case.source)
    wanted = {name: values for name, values in stored.items() if values.any()}
    if segments.keys() != wanted.keys() or any(
        not np.array_equal(segments[name].voxels, values) for name, values in wanted.items()
    ):
        raise _unlike("the probabilities differ when the segmentation is read back")


def check_report(content: bytes, case: ExportCase, found: Findings, segmentation: Dataset | None) -> None:
    """Compare a report's file with the record: every node, number and reference.

    Parameters
    ----------
    found, segmentation : what the report was made of.

    Raises
    ------
    CaseError : anything differs.
    """
    dataset = parsed(content)
    check_identity(dataset, case)
    groups = {_text(group, "112039"): group for group in _walk(dataset) if _concept(group) == "125007"}
    number = _number(groups.get("Patient"), codes.ENE_NODE_NUMBER.value)
    if number != case.result.n_ai_ene:
        raise _unlike(said("the report states {} nodes with ENE when read back", number))
    for node in case.result.nodes:
        group = groups.get(node.name)
        told = {_modifier(item): _value(item) for item in _items(group, codes.PROBABILITY.value)}
        wanted = {
            code.value: value
            for code, value in ((codes.ENE, node.ene), (codes.POSITIVITY, node.pos))
            if value is not None
        }
        if told.keys() != wanted.keys() or any(abs(told[k] - v) > 1e-9 for k, v in wanted.items()):
            raise _unlike(
                said("the probabilities of {} differ when the report is read back", ours(node.name))
            )
        _check_sizes(group, node, case, found)
        _check_reference(group, node.name, case, segmentation)


def check_identity(dataset: Dataset, case: ExportCase) -> None:
    """Whether an object speaks of the same patient, study and space as its source.

    What the source says against the standard must be empty.

    Raises
    ------
    CaseError : it does not.
    """
    first = case.source.datasets[0]
    odd = identity_of(first).refused
    for keyword in (*TYPE_2, "StudyInstanceUID", "FrameOfReferenceUID"):
        if keyword == "FrameOfReferenceUID" and keyword not in dataset:
            continue
        wanted = "" if keyword in odd else _plain(first, keyword)
        if _plain(dataset, keyword) != wanted:
            raise _unlike(said("{} differs from the source images' when read back", ours(keyword)))


def _plain(dataset: Dataset, keyword: str) -> str:
    try:
        with quiet():
            return str(dataset.get(keyword) or "")
    except ODD_VALUE:
        return ""


def _check_lattice(dataset: Dataset, plane: Plane, shape: tuple[int, int, int]) -> None:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array([float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient])
    spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
    alike = (
        (int(dataset.Rows), int(dataset.Columns)) == shape[1:]
        and np.abs(cosines - np.concatenate([plane.along_row, plane.along_column])).max() <= _SAME_COSINE
        and np.allclose(spacing, (plane.row_spacing, plane.column_spacing), rtol=1e-5)
    )
    if not alike:
        raise _unlike("the segmentation has another lattice than the source slices")


def _check_image(group: Dataset, source: SourceSeries, index: int) -> None:
    image = group.DerivationImageSequence[0].SourceImageSequence[0]
    named = str(image.ReferencedSOPInstanceUID), image.get("ReferencedFrameNumber")
    if named != (str(source.datasets[index].SOPInstanceUID), source.frames[index]):
        raise _unlike("a frame of the segmentation refers to the wrong source image")


def _frames(dataset: Dataset, fractional: bool) -> npt.NDArray[Any]:
    """The frames (frame, row, column) out of the raw bytes: bits, lowest first (PS3.5 D), or bytes."""
    shape = int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns)
    raw = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    count = int(np.prod(shape))
    if fractional:
        return raw[:count].reshape(shape)
    return np.unpackbits(raw, bitorder="little", count=count).reshape(shape).astype(bool)


def _check_sizes(group: Dataset | None, node: NodeResult, case: ExportCase, found: Findings) -> None:
    mask = found.mask_in_block(node.name)
    axes = lengths(case, mask)
    count = int(np.count_nonzero(mask))
    verdict = _items(group, codes.ENE_VERDICT.value)
    wanted = {
        codes.VOLUME.value: count * case.nodes.grid.voxel_volume_mm3 if count else node.contour_mm3,
        codes.LONG_AXIS.value: None if axes is None else axes[0],
        codes.SHORT_AXIS.value: None if axes is None else axes[1],
    }
    told = {concept: _number(group, concept) for concept in wanted}
    if any(not _alike(told[concept], wanted[concept]) for concept in wanted):
        raise _unlike(said("the sizes of {} differ when the report is read back", ours(node.name)))
    answer = {1: codes.YES, 0: codes.NO, None: codes.NOT_JUDGED}[node.ene_classification]
    if [str(item.ConceptCodeSequence[0].CodeValue) for item in verdict] != [answer.value]:
        raise _unlike(said("the verdict on {} differs when the report is read back", ours(node.name)))


def _alike(told: float | None, wanted: float | None) -> bool:
    if told is None or wanted is None:
        return told is wanted
    return abs(told - wanted) <= _SHARE_OF_A_SIZE * abs(wanted) + 1e-9


def _check_reference(
    group: Dataset | None, name: str, case: ExportCase, segmentation: Dataset | None
) -> None:
    if group is None or _text(group, "112040") != tracking_uid(case, name):
        raise _unlike(said("{} has another tracking UID when the report is read back", ours(name)))
    for item in _items(group, "121191"):
        image = item.ReferencedSOPSequence[0]
        number = int(image.ReferencedSegmentNumber)
        labels = {
            int(s.SegmentNumber): str(s.SegmentLabel)
            for s in (segmentation.SegmentSequence if segmentation is not None else ())
        }
        if labels.get(number) != name or image.ReferencedSOPInstanceUID != segmentation.SOPInstanceUID:  # type: ignore[union-attr]
            raise _unlike(said("{} refers to another segment when the report is read back", ours(name)))


def _walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _walk(child)


def _concept(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _items(group: Dataset | None, concept: str) -> list[Dataset]:
    children = group.get("ContentSequence", ()) if group is not None else ()
    return [child for child in children if _concept(child) == concept]


def _text(group: Dataset, concept: str) -> str:
    item = next(iter(_items(group, concept)), None)
    return "" if item is None else str(item.get("TextValue") or item.get("UID") or "")


def _value(item: Dataset) -> float:
    return float(item.MeasuredValueSequence[0].NumericValue)


def _number(group: Dataset | None, concept: str) -> float | None:
    found = _items(group, concept)
    return _value(found[0]) if found else None


def _modifier(item: Dataset) -> str:
    found = _items(item, "121071")
    return str(found[0].ConceptCodeSequence[0].CodeValue) if found else ""


# RTSTRUCT


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
        raise _unlike(said("the RTSTRUCT holds {} when read back", joined(", ", names)))
    for name, mask in read_rois(dataset, case.source):
        differ = int(np.count_nonzero(mask != found.mask(name)))
        if differ:
            raise _unlike(said("{} voxels of {} differ when the RTSTRUCT is read back", differ, ours(name)))


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
                raise _unlike("a contour names no image of the source series")
            k = slices[key]
            points = np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
            mask[k] ^= _inside(_pixels(points, where[k]), mask[k].shape)
        yield names[int(roi.ReferencedROINumber)], mask


def _pixels(points: Points, plane: Plane) -> Points:
    """(n, 2) row and column of LPS points on a slice."""
    offset = points - plane.origin
    if np.abs(offset @ np.cross(plane.along_row, plane.along_column)).max() > _ON_PLANE_MM:
        raise _unlike("a contour is not in the plane of its image")
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
