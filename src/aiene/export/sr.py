"""Measurement report (TID 1500, Comprehensive 3D SR): the patient's result, then a group for each node."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.sr.coding import Code
from pydicom.uid import SegmentationStorage

from aiene.errors import need
from aiene.export import codes
from aiene.export.case import PRIMARY, ExportCase, Findings
from aiene.export.identity import (
    MANUFACTURER,
    MODEL_NAME,
    RESEARCH,
    ascii_of,
    check_source,
    copy_identity,
    for_highdicom,
    name_by_content,
    parameters,
    referenced_series,
    stamp,
    tracking_uid,
    uid_of,
)
from aiene.ingest.dicom.header import quiet
from aiene.nodes.split import axial_axes
from aiene.results.records import NodeResult

SERIES_NUMBER: Final = 9002
PATIENT: Final = "Patient"
"""Tracking identifier of the group that speaks of the whole patient."""


def build(case: ExportCase, found: Findings, segmentation: Dataset | None) -> Dataset:
    """The report of a case; where no node was found it says so.

    Parameters
    ----------
    found : of this case.
    segmentation : as `seg.build` makes it of the same findings; None where nothing was found.

    Raises
    ------
    CaseError : the source images lack what a report must refer to.
    MissingExtraError : highdicom is not installed.
    """
    hd: Any = need("highdicom", extra="dicom", purpose="DICOM export")
    check_source(case.source)
    with quiet():
        groups = [_patient(hd, case)]
        for node in case.result.nodes:
            groups.append(_node(hd, case, found, node, segmentation))
        if PRIMARY in found.names:
            groups.append(_primary(hd, case, found, segmentation))
        content = hd.sr.MeasurementReport(
            observation_context=_observer(hd, case),
            procedure_reported=standard.LN.CTUnspecifiedBodyRegion,
            imaging_measurements=groups,
            title=standard.DCM.ImagingMeasurementReport,
        )
        made: Dataset = hd.sr.Comprehensive3DSR(
            evidence=_evidence(case, segmentation),
            content=content,
            series_number=SERIES_NUMBER,
            is_complete=True,
            series_description=f"AI-ENE report. {RESEARCH}",
            **for_highdicom(case),
        )
        _finish(case, made)
    name_by_content("sr", made)
    return made


def lengths(case: ExportCase, mask: npt.NDArray[np.bool_]) -> tuple[float, float] | None:
    """Long and short axis of a node's contour on the source slices, in mm (`codes.AXES_OF_MASK`).

    Parameters
    ----------
    mask : the node on the source slices, or on a block of them that holds all of it.

    Returns
    -------
    None where the node holds no voxel of the CT.
    """
    return axial_axes(mask, case.source.grid.spacing) if mask.any() else None


def volume_mm3(mask: npt.NDArray[np.bool_], case: ExportCase) -> float:
    """Voxels on the source slices times their volume."""
    return float(np.count_nonzero(mask) * case.source.grid.voxel_volume_mm3)


def _finish(case: ExportCase, made: Dataset) -> None:
    """What highdicom cannot know, or draws from the clock."""
    copy_identity(case.source.datasets[0], made)
    stamp(made, case.maker.started)
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = codes.SCHEME, codes.SCHEME_NAME
    scheme.CodingSchemeVersion = codes.SCHEME_VERSION
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    made.CodingSchemeIdentificationSequence = [scheme]


def _evidence(case: ExportCase, segmentation: Dataset | None) -> list[Dataset]:
    """Headers of every image that the report rests on, with no more than highdicom asks for."""
    first = case.source.datasets[0]
    series = referenced_series(case.source)[0]
    refs = [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, first.SeriesInstanceUID)
        for item in series.ReferencedInstanceSequence
    ]
    if segmentation is not None:
        refs.append((segmentation.SOPClassUID, segmentation.SOPInstanceUID, segmentation.SeriesInstanceUID))
    evidence = []
    for sop_class, sop_uid, series_uid in refs:
        item = Dataset()
        item.SOPClassUID, item.SOPInstanceUID = sop_class, sop_uid
        item.StudyInstanceUID, item.SeriesInstanceUID = first.StudyInstanceUID, series_uid
        item.PatientName = item.PatientID = item.PatientBirthDate = item.PatientSex = ""
        item.AccessionNumber = item.StudyID = item.StudyDate = item.StudyTime = ""
        evidence.append(item)
    return evidence


def _observer(hd: Any, case: ExportCase) -> Any:
    maker = case.maker
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=standard.DCM.Device,
            observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                uid=uid_of("device", maker.software_version, maker.bundle_sha256),
                name=f"{MODEL_NAME} {maker.software_version}",
                manufacturer_name=MANUFACTURER,
                model_name=ascii_of(f"bundle {maker.bundle_name} {maker.bundle_version}"),
                serial_number=maker.bundle_sha256,
            ),
        )
    )


def _algorithm(hd: Any, case: ExportCase) -> Any:
    maker = case.maker
    return hd.sr.AlgorithmIdentification(
        name=f"{MODEL_NAME}, bundle {maker.bundle_name}",
        version=ascii_of(f"{maker.software_version}, bundle {maker.bundle_version}"),
        parameters=[f"{name}={value}" for name, value in parameters(case).items()],
        family=codes.ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


def _patient(hd: Any, case: ExportCase) -> Any:
    """The patient's AI-ENE node number, and what the report is not meant for."""
    result = case.result
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(hd, case, PATIENT),
        finding_type=codes.PATIENT_RESULT,
        algorithm_id=_algorithm(hd, case),
        measurements=[
            _count(hd, codes.ENE_NODE_NUMBER, result.n_ai_ene),
            _count(hd, codes.NODE_NUMBER, len(result.nodes)),
            hd.sr.Measurement(name=codes.ENE_THRESHOLD, value=case.maker.ene_threshold, unit=codes.ONE),
        ],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(name=codes.INTENDED_USE, value=codes.RESEARCH_ONLY),
            *(
                []
                if result.has_primary is None  # nobody looked: "no" would be a finding
                else [hd.sr.QualitativeEvaluation(name=codes.PRIMARY_FOUND, value=_yes(result.has_primary))]
            ),
        ],
    )
    words = "" if result.nodes else "No malignant lymph node was found. "
    _comment(hd, group, ascii_of(f"{words}{RESEARCH}. {case.maker.notice}"))
    return group


def _node(hd: Any, case: ExportCase, found: Findings, node: NodeResult, segmentation: Dataset | None) -> Any:
    mask = found.mask_in_block(node.name)
    here = segmentation is not None and node in found.present
    volume = (
        (volume_mm3(mask, case), codes.SUM_OF_VOXELS) if here else (node.contour_mm3, codes.VOLUME_OF_RUN)
    )
    measurements = [_measured(hd, codes.VOLUME, volume[0], codes.CUBIC_MILLIMETRE, volume[1])]
    axes = lengths(case, mask)
    if axes is not None:
        measurements += [
            _measured(hd, axis, mm, codes.MILLIMETRE, codes.AXES_OF_MASK)
            for axis, mm in zip((codes.LONG_AXIS, codes.SHORT_AXIS), axes, strict=True)
        ]
    for of, probability in ((codes.ENE, node.ene), (codes.POSITIVITY, node.pos)):
        if probability is not None:
            measurements.append(_probability(hd, case, of, probability))
    verdict = codes.NOT_JUDGED if node.ene_classification is None else _yes(node.ene_classification == 1)
    words = {
        "tracking_identifier": _tracking(hd, case, node.name),
        "finding_category": codes.ABNORMAL_STRUCTURE,
        "finding_type": codes.SECONDARY_NEOPLASM,
        "finding_sites": [_site(hd, node.side)],
        "algorithm_id": _algorithm(hd, case),
        "measurements": measurements,
        "qualitative_evaluations": [hd.sr.QualitativeEvaluation(name=codes.ENE_VERDICT, value=verdict)],
    }
    if not here:
        group = hd.sr.MeasurementsAndQualitativeEvaluations(**words)
        _comment(hd, group, "No voxel of the CT lies in this node, so it has no segment.")
        return group
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=_segment(hd, case, found, node.name, segmentation), **words
    )


def _primary(hd: Any, case: ExportCase, found: Findings, segmentation: Dataset | None) -> Any:
    volume = volume_mm3(found.mask_in_block(PRIMARY), case)
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(hd, case, PRIMARY),
        referenced_segment=_segment(hd, case, found, PRIMARY, segmentation),
        finding_category=codes.ABNORMAL_STRUCTURE,
        finding_type=codes.PRIMARY_NEOPLASM,
        finding_sites=[hd.sr.FindingSite(anatomic_location=codes.HEAD_AND_NECK)],
        algorithm_id=_algorithm(hd, case),
        measurements=[_measured(hd, codes.VOLUME, volume, codes.CUBIC_MILLIMETRE, codes.SUM_OF_VOXELS)],
    )


def _segment(hd: Any, case: ExportCase, found: Findings, name: str, segmentation: Dataset | None) -> Any:
    if segmentation is None:
        raise ValueError("a finding with voxels, but no segmentation to refer to")
    return hd.sr.ReferencedSegment(
        sop_class_uid=SegmentationStorage,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=found.names.index(name) + 1,
        source_series=hd.sr.SourceSeriesForSegmentation(case.source.datasets[0].SeriesInstanceUID),
    )


def _tracking(hd: Any, case: ExportCase, name: str) -> Any:
    return hd.sr.TrackingIdentifier(uid=tracking_uid(case, name), identifier=name)


def _site(hd: Any, side: str) -> Any:
    if side == "midline":
        return hd.sr.FindingSite(codes.LYMPH_NODE, topographical_modifier=codes.SIDES[side])
    return hd.sr.FindingSite(codes.LYMPH_NODE, laterality=codes.SIDES.get(side))


def _count(hd: Any, name: Code, value: int) -> Any:
    made = hd.sr.Measurement(name=name, value=value, unit=codes.NODES_UNIT)
    made[0].MeasuredValueSequence[0].NumericValue = str(value)
    return made


def _measured(hd: Any, name: Code, value: float, unit: Code, method: Code) -> Any:
    return hd.sr.Measurement(name=name, value=float(f"{value:.10g}"), unit=unit, method=method)


def _probability(hd: Any, case: ExportCase, of: Code, value: float) -> Any:
    made = hd.sr.Measurement(
        name=codes.PROBABILITY,
        value=float(f"{value:.10g}"),
        unit=codes.ONE,
        algorithm_id=_algorithm(hd, case),
    )
    made[0].ContentSequence.append(
        hd.sr.CodeContentItem(name=standard.DCM.Finding, value=of, relationship_type="HAS CONCEPT MOD")
    )
    return made


def _comment(hd: Any, group: Any, text: str) -> None:
    group[0].ContentSequence.append(
        hd.sr.TextContentItem(name=standard.DCM.Comment, value=text, relationship_type="CONTAINS")
    )


def _yes(true: bool) -> Code:
    return codes.YES if true else codes.NO
