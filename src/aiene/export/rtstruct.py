"""The findings of a case as an RT Structure Set: one ROI per node, outlined on the source slices.

How an outline is made, and how it leaves out a hole, says `geometry.outlines`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from aiene.csv_tables import probability_text
from aiene.errors import CaseError
from aiene.export import identity
from aiene.export.case import (
    PRIMARY,
    ExportCase,
    Findings,
    Plane,
    SourceSeries,
    block_of,
    findings_of,
    planes,
)
from aiene.export.codes import GTV_NODAL, GTV_PRIMARY
from aiene.finished_runs import Maker
from aiene.geometry.outlines import Outline, outlines
from aiene.report.document import RESEARCH_ONLY
from aiene.results.records import NodeResult

NAME_LENGTH: Final = 16
"""Planning systems cut ROI names there."""

_STUDY_CLASS: Final = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management: retired, and what PS3.3 C.8.8.5 still wants as the class of a study."""

_SERIES_NUMBER: Final = 9103
_COLOURS: Final = (
    (255, 80, 80), (255, 200, 60), (90, 220, 120), (80, 190, 255), (200, 130, 255), (255, 140, 40)
)  # fmt: skip
_PRIMARY_COLOUR: Final = (255, 60, 200)


@dataclass(frozen=True)
class _Roi:
    """One finding on its way to the three sequences that speak of it.

    Parameters
    ----------
    label : at most 16 characters, for the observation.
    """

    number: int
    name: str
    volume_mm3: float
    colour: tuple[int, int, int]
    label: str
    description: str
    code: Code


def build(case: ExportCase) -> Dataset:
    """The RTSTRUCT of a case, ready to be written; `verification` compares its file with the case.

    The outlines lie on the planes of the source slices (`geometry.outlines`), so that a reader that asks
    which pixel centres lie inside gets the mask back. Implicit VR: a long outline does not fit the 64 KiB
    that explicit VR leaves its coordinates.

    Parameters
    ----------
    case : with at least one node or a primary tumour.

    Raises
    ------
    CaseError : nothing was found, so there is nothing to outline; a node lies outside the source images;
        the source images cannot be referred to.
    """
    identity.check_source(case.source)
    found = findings_of(case)
    rois = _rois(case, found)
    if not rois:
        problem = "no node and no primary tumour was found, so there is nothing to outline"
        raise CaseError(problem, "use the SR, which reports that there is none")
    made = _empty(case)
    made.ReferencedFrameOfReferenceSequence = [_frame_of_reference(case.source)]
    where = planes(case.source)
    made.StructureSetROISequence = [_structure(roi, case) for roi in rois]
    made.ROIContourSequence = [_contours(roi, found.mask(roi.name), case.source, where) for roi in rois]
    made.RTROIObservationsSequence = [_observation(roi) for roi in rois]
    made.ApprovalStatus = "UNAPPROVED"
    identity.name_by_content("rtstruct", made)
    return made


def _rois(case: ExportCase, found: Findings) -> list[_Roi]:
    rois = [
        _Roi(
            number=node.value,
            name=node.name[:NAME_LENGTH],
            volume_mm3=node.native_volume_mm3,
            colour=_COLOURS[(node.value - 1) % len(_COLOURS)],
            label="not judged" if node.ene is None else f"ENE {_ene(node, case.maker)}"[:NAME_LENGTH],
            description=_node_description(node, case.maker),
            code=GTV_NODAL,
        )
        for node in found.present
    ]
    if found.primary.any():
        primary = _Roi(
            number=max((roi.number for roi in rois), default=0) + 1,
            name=PRIMARY,
            volume_mm3=float(np.count_nonzero(found.primary)) * case.source.grid.voxel_volume_mm3,
            colour=_PRIMARY_COLOUR,
            label="primary tumor",
            description=f"Primary tumor found by {_author(case.maker)}. {RESEARCH_ONLY}",
            code=GTV_PRIMARY,
        )
        rois.append(primary)
    return rois


def _empty(case: ExportCase) -> Dataset:
    """Everything that does not depend on the findings."""
    maker = case.maker
    made = identity.new_object(case, RTStructureSetStorage, ImplicitVRLittleEndian)
    identity.copy_frame_of_reference(case.source.datasets[0], made)
    made.Modality, made.SeriesNumber, made.InstanceNumber = "RTSTRUCT", _SERIES_NUMBER, 1
    made.SeriesDescription = f"AI-ENE RTSTRUCT. {identity.RESEARCH}"
    made.OperatorsName = ""
    made.StructureSetLabel, made.StructureSetName = "AIENE", "AI-ENE lymph nodes"
    made.StructureSetDescription = f"Found by {_author(maker)}. {identity.RESEARCH}. {RESEARCH_ONLY}"
    made.StructureSetDate = maker.started.strftime("%Y%m%d")
    made.StructureSetTime = maker.started.strftime("%H%M%S")
    identity.stamp(made, maker.started)
    return made


def _frame_of_reference(source: SourceSeries) -> Dataset:
    first = source.datasets[0]
    series = Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    series.ContourImageSequence = identity.referenced_series(source)[0].ReferencedInstanceSequence
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY_CLASS, first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    item = Dataset()
    item.FrameOfReferenceUID = first.FrameOfReferenceUID
    item.RTReferencedStudySequence = [study]
    return item


def _structure(roi: _Roi, case: ExportCase) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName = roi.number, roi.name
    item.ReferencedFrameOfReferenceUID = case.source.datasets[0].FrameOfReferenceUID
    item.ROIDescription = roi.description
    item.ROIVolume = f"{roi.volume_mm3 / 1000:.4f}"
    item.ROIGenerationAlgorithm = "SEMIAUTOMATIC" if case.maker.own_masks else "AUTOMATIC"
    item.ROIGenerationDescription = _author(case.maker)[:64]
    return item


def _contours(
    roi: _Roi, mask: npt.NDArray[np.bool_], source: SourceSeries, where: Sequence[Plane]
) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber, item.ROIDisplayColor = roi.number, list(roi.colour)
    found = [_contour(outline, k, source, where[k]) for k, outline in _outlines(mask)]
    for number, contour in enumerate(found, start=1):
        contour.ContourNumber = number
    item.ContourSequence = found
    return item


def _outlines(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, Outline]]:
    """Slice and outline of every island; only the box around the finding is looked at."""
    z, y, x = block_of(mask)
    for k in range(z.start or 0, z.stop):
        for outline in outlines(mask[k, y, x]):
            yield k, outline + np.array([y.start, x.start])


def _contour(outline: Outline, k: int, source: SourceSeries, plane: Plane) -> Dataset:
    points = plane.points(outline[:, 0], outline[:, 1])
    item = Dataset()
    item.ContourImageSequence = [identity.reference(source.datasets[k], source.frames[k])]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    item.ContourData = [f"{v:.4f}" for v in points.ravel().tolist()]
    return item


def _observation(roi: _Roi) -> Dataset:
    item = Dataset()
    item.ObservationNumber, item.ReferencedROINumber = roi.number, roi.number
    item.ROIObservationLabel, item.ROIObservationDescription = roi.label, roi.description
    item.RTROIIdentificationCodeSequence = [_code(roi.code)]
    item.RTROIInterpretedType, item.ROIInterpreter = "GTV", ""
    return item


def _code(code: Any) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    return item


def _node_description(node: NodeResult, maker: Maker) -> str:
    """What planning systems show of a ROI: its ENE value first."""
    if node.ene is None:
        verdict = "ENE not judged by the classifier"
    else:
        verdict = f"ENE probability {_ene(node, maker)} (threshold {maker.ene_threshold:g}: {node.verdict})"
    positive = "" if node.pos is None else f", pos {probability_text(node.pos, missing='')}"
    return f"{verdict}{positive}, side {node.side or 'not known'}. Found by {_author(maker)}. {RESEARCH_ONLY}"


def _ene(node: NodeResult, maker: Maker) -> str:
    return probability_text(node.ene, (maker.ene_threshold,), missing="not judged")


def _author(maker: Maker) -> str:
    """Software and bundle, in 64 characters as a rule."""
    return (
        f"aiene {maker.software_version}, {maker.bundle_name} {maker.bundle_version} "
        f"sha256 {maker.bundle_sha256[:12]}"
    )
