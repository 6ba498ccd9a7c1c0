"""Reports tell every number of the result, and readers of other makers find them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from scipy.spatial.distance import pdist

from aiene.errors import CaseError
from aiene.export import codes, seg, sr
from aiene.export.case import findings_of
from aiene.export.identity import encoded, tracking_uid
from aiene.export.verification import check_report, parsed
from builders.export_runs import FOOT_GRID, MAKER, Planted, ball, case_of, says, series_of, small_grid

hd = pytest.importorskip("highdicom", reason="the dicom extra is not installed")

DOCS = Path(__file__).resolve().parents[2] / "docs" / "dicom.md"

node_map = np.zeros(FOOT_GRID.size, np.uint16)
node_map[2:7, 3:7, 4] = 1
node_map[5:8, 8:10, 7:12] = 2
primary_map = np.zeros(FOOT_GRID.size, np.uint8)
primary_map[1:3, 8:10, 1:4] = 1


def case_with(**changes: Any) -> Any:
    case = case_of(node_map, FOOT_GRID, labels=primary_map, maker=replace(MAKER, **changes.pop("maker", {})))
    first, second = case.result.nodes
    first = replace(first, side="right", ene=0.6, pos=0.91, ene_classification=1)
    second = replace(second, side="midline", ene=0.25, pos=0.5, ene_classification=0)
    return replace(case, result=replace(case.result, nodes=(first, second), **changes))


def report(case: Any) -> tuple[bytes, Any]:
    found = findings_of(case)
    segmentation = seg.build(case, found) if found.names else None
    return encoded(sr.build(case, found, segmentation)), segmentation


def groups(content: bytes) -> dict[str, Any]:
    """The measurement groups by tracking identifier, as highdicom reads them."""
    read = hd.sr.Comprehensive3DSR.from_dataset(parsed(content)).content
    found = [*read.get_image_measurement_groups(), *read.get_volumetric_roi_measurement_groups()]
    return {group.tracking_identifier: group for group in found}


def verdict_of(group: Any) -> str:
    """Code value of the answer to whether ENE is predicted."""
    told = {e.name.value: e.value.value for e in group.get_qualitative_evaluations()}
    return told[codes.ENE_VERDICT.value]


def values(group: Any, name: Any) -> dict[str, float]:
    """Each measurement of a name, by the code value of its method or of what it is a probability of."""
    found = {}
    for item in (m for m in group.get_measurements() if m.name.value == name.value):
        inner = [c for c in item[0].get("ContentSequence", ()) if c.ValueType == "CODE"]
        told = [
            c.ConceptCodeSequence[0].CodeValue
            for c in inner
            if c.ConceptNameCodeSequence[0].CodeValue in ("370129005", "121071")
        ]
        found[told[0] if told else ""] = item.value
    return found


@pytest.mark.slow
def test_highdicoms_reader_finds_every_number_of_every_node() -> None:
    case = case_with()
    content, _ = report(case)
    found = groups(content)
    assert set(found) == {"Patient", "GTVn_01", "GTVn_02", "GTVp"}
    voxel = FOOT_GRID.voxel_volume_mm3
    for node, count in zip(case.result.nodes, (20, 30), strict=True):
        group = found[node.name]
        assert values(group, codes.VOLUME)["126030"] == pytest.approx(count * voxel, rel=1e-6)
        told = values(group, codes.PROBABILITY)
        assert told == {"ENE001": node.ene, "ENE002": node.pos}
        assert group.tracking_uid == tracking_uid(case, node.name)
        assert group.finding_type.value == "14799000"
        (site,) = group.finding_sites
        assert site.value.value == codes.LYMPH_NODE.value
        assert verdict_of(group) == (codes.YES if node.ene_classification else codes.NO).value
    assert values(found["GTVp"], codes.VOLUME)["126030"] == pytest.approx(12 * voxel, rel=1e-6)


def test_the_patients_ai_ene_node_number_and_the_intended_use_stand_first() -> None:
    content, _ = report(case_with())
    tree = parsed(content).ContentSequence[-1].ContentSequence
    first = tree[0].ContentSequence
    told = {
        item.ConceptNameCodeSequence[0].CodeValue: item.MeasuredValueSequence[0]
        for item in first
        if item.ValueType == "NUM"
    }
    assert told["ENE004"].NumericValue == 1
    assert told["ENE004"].MeasurementUnitsCodeSequence[0].CodeValue == "{nodes}"
    assert told["ENE005"].NumericValue == 2
    assert told["ENE006"].NumericValue == 0.3
    said = {
        i.ConceptNameCodeSequence[0].CodeValue: i.ConceptCodeSequence[0].CodeMeaning
        for i in first
        if i.ValueType == "CODE" and i.ConceptNameCodeSequence[0].CodeValue.startswith("ENE")
    }
    assert said == {"ENE007": "Research, not for clinical use", "ENE012": "Yes"}
    comment = next(i.TextValue for i in first if i.ValueType == "TEXT" and "Research" in i.TextValue)
    assert comment.endswith("Trained on phantoms.")
    assert "Research, not for clinical use" in parsed(content).SeriesDescription


@pytest.mark.slow
def test_tracking_uids_and_segment_numbers_are_those_of_the_segmentation() -> None:
    case = case_with()
    content, segmentation = report(case)
    segments = {s.SegmentNumber: s for s in segmentation.SegmentSequence}
    for name, group in groups(content).items():
        if name == "Patient":
            continue
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        (number,) = {int(n) for n in np.ravel(reference[0].referenced_segment_numbers)}
        assert segments[number].TrackingID == name
        assert segments[number].TrackingUID == group.tracking_uid


@pytest.mark.slow
def test_a_side_is_a_laterality_and_the_midline_a_place() -> None:
    content, _ = report(case_with())
    said = {}
    for group in parsed(content).ContentSequence[-1].ContentSequence:
        for item in group.ContentSequence:
            if item.ConceptNameCodeSequence[0].CodeValue == "363698007":
                for inner in item.get("ContentSequence", ()):
                    concept = inner.ConceptNameCodeSequence[0].CodeMeaning
                    said[group.ContentSequence[0].TextValue] = (
                        concept,
                        inner.ConceptCodeSequence[0].CodeMeaning,
                    )
    assert said == {"GTVn_01": ("Laterality", "Right"), "GTVn_02": ("Topographical modifier", "Midline")}


@pytest.mark.slow
def test_the_published_axes_of_the_run_are_not_told_since_they_hold_a_layer_around() -> None:
    case = case_with()
    axes = {"long_axis_axial": 18.5, "short_axis_axial": 11.25}
    nodes = tuple(replace(node, axes=axes) for node in case.result.nodes)
    with_axes, _ = report(replace(case, result=replace(case.result, nodes=nodes)))
    without, _ = report(case)
    for concept in (codes.LONG_AXIS, codes.SHORT_AXIS):
        told = values(groups(with_axes)["GTVn_01"], concept)
        assert told == values(groups(without)["GTVn_01"], concept)
        assert set(told) == {codes.AXES_OF_MASK.value}


def test_axes_are_measured_on_the_contour_between_voxel_centres() -> None:
    grid = small_grid(size=(9, 60, 70))
    mask = ball(grid, Planted((0.5, 0.5, 0.5), 12.0))
    case = case_of(mask.astype(np.uint16), grid)
    content, _ = report(case)
    group = groups(content)["GTVn_01"]
    long_mm = values(group, codes.LONG_AXIS)[codes.AXES_OF_MASK.value]
    short_mm = values(group, codes.SHORT_AXIS)[codes.AXES_OF_MASK.value]
    largest = mask[mask.sum(axis=(1, 2)).argmax()]
    points = np.argwhere(largest) * np.array(grid.spacing[1:])
    assert long_mm == pytest.approx(pdist(points).max(), rel=1e-9)
    assert 0 < short_mm < long_mm + 1e-6


def test_no_node_is_told_as_zero_nodes_and_refers_to_no_segment() -> None:
    case = case_of(np.zeros(FOOT_GRID.size, np.uint16), FOOT_GRID)
    content, segmentation = report(case)
    assert segmentation is None
    found = groups(content)
    assert set(found) == {"Patient"}
    assert values(found["Patient"], codes.ENE_NODE_NUMBER) == {"": 0}
    assert values(found["Patient"], codes.NODE_NUMBER) == {"": 0}
    assert b"No malignant lymph node was found" in content
    check_report(content, case, findings_of(case), None)


@pytest.mark.parametrize(("primary", "told"), [(True, 1), (False, 1), (None, 0)])
@pytest.mark.slow
def test_the_primary_tumour_is_answered_only_where_somebody_looked(primary: bool | None, told: int) -> None:
    content, _ = report(case_with(has_primary=primary))
    evaluations = groups(content)["Patient"].get_qualitative_evaluations()
    assert sum(e.name.value == codes.PRIMARY_FOUND.value for e in evaluations) == told


@pytest.mark.slow
def test_a_node_that_was_not_judged_has_no_probability_and_says_so() -> None:
    case = case_with()
    blank = replace(case.result.nodes[0], ene=None, pos=None, ene_classification=None)
    case = replace(case, result=replace(case.result, nodes=(blank, case.result.nodes[1])))
    content, _ = report(case)
    group = groups(content)["GTVn_01"]
    assert values(group, codes.PROBABILITY) == {}
    assert verdict_of(group) == codes.NOT_JUDGED.value


@pytest.mark.slow
def test_a_node_that_holds_no_voxel_of_the_ct_keeps_its_group() -> None:
    case = case_with()
    tiny = replace(case.result.nodes[1], name="GTVn_03", native_volume_mm3=0.0, contour_mm3=4.5)
    case = replace(case, result=replace(case.result, nodes=(*case.result.nodes, tiny)))
    content, segmentation = report(case)
    group = groups(content)["GTVn_03"]
    assert values(group, codes.VOLUME) == {codes.VOLUME_OF_RUN.value: 4.5}
    assert len(segmentation.SegmentSequence) == 3
    check_report(content, case, findings_of(case), segmentation)


def test_the_private_scheme_is_declared_and_the_docs_have_the_same_table() -> None:
    content, _ = report(case_with())
    (scheme,) = parsed(content).CodingSchemeIdentificationSequence
    assert (scheme.CodingSchemeDesignator, scheme.CodingSchemeVersion) == ("99AIENE", codes.SCHEME_VERSION)
    told = dict(re.findall(r"^\| (ENE\d{3}) \| ([^|]+?) \|", DOCS.read_text(encoding="utf-8"), re.M))
    assert told == {code.value: code.meaning for code in codes.OWN}
    assert all(len(code.meaning) <= 64 and len(code.value) <= 16 for code in codes.OWN)


def test_words_of_a_bundle_that_the_character_set_cannot_write_do_no_harm() -> None:
    case = case_with(maker={"notice": "Für Forschung – 研究", "bundle_version": "β2"})
    case = replace(case, source=series_of(FOOT_GRID))  # no SpecificCharacterSet: ASCII alone
    content, segmentation = report(case)
    check_report(content, case, findings_of(case), segmentation)
    assert b"F?r Forschung" in content


def change_number(concept: str, nth: int = 0) -> Any:
    """A flaw: the nth number of a concept in the whole tree is raised by a tenth."""

    def change(dataset: pydicom.Dataset) -> None:
        found = [i for i in _walk(dataset) if i.ValueType == "NUM" and _concept(i) == concept]
        value = found[nth].MeasuredValueSequence[0]
        value.NumericValue = str(round(float(value.NumericValue) * 1.1, 6))

    return change


def change_verdict(dataset: pydicom.Dataset) -> None:
    item = next(i for i in _walk(dataset) if _concept(i) == codes.ENE_VERDICT.value)
    item.ConceptCodeSequence[0].CodeValue = codes.NO.value


def change_tracking(dataset: pydicom.Dataset) -> None:
    [i for i in _walk(dataset) if _concept(i) == "112040"][2].UID = "1.9"


def change_segment(dataset: pydicom.Dataset) -> None:
    item = next(i for i in _walk(dataset) if _concept(i) == "121191")
    item.ReferencedSOPSequence[0].ReferencedSegmentNumber = 2


def change_object(dataset: pydicom.Dataset) -> None:
    item = next(i for i in _walk(dataset) if _concept(i) == "121191")
    item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.9"


def drop_node(dataset: pydicom.Dataset) -> None:
    del dataset.ContentSequence[-1].ContentSequence[1]


def change_patient(dataset: pydicom.Dataset) -> None:
    dataset.PatientID = "A2"


FLAWS = {
    "ENE number": (change_number(codes.ENE_NODE_NUMBER.value), "nodes with ENE"),
    "ENE": (change_number(codes.PROBABILITY.value), "probabilities of GTVn_01"),
    "positivity": (change_number(codes.PROBABILITY.value, 3), "probabilities of GTVn_02"),
    "volume": (change_number(codes.VOLUME.value), "sizes of GTVn_01"),
    "long axis": (change_number(codes.LONG_AXIS.value), "sizes of GTVn_01"),
    "short axis": (change_number(codes.SHORT_AXIS.value, 1), "sizes of GTVn_02"),
    "verdict": (change_verdict, "verdict on GTVn_01"),
    "tracking": (change_tracking, "tracking"),
    "segment": (change_segment, "another segment"),
    "object": (change_object, "another segment"),
    "node": (drop_node, "GTVn_01"),
    "patient": (change_patient, "PatientID"),
}


@pytest.mark.parametrize(("flaw", "said"), FLAWS.values(), ids=FLAWS)
@pytest.mark.slow
def test_a_flaw_in_a_report_is_found_when_it_is_read_back(flaw: Any, said: str) -> None:
    case = case_with()
    content, segmentation = report(case)
    found = findings_of(case)
    check_report(content, case, found, segmentation)
    dataset = parsed(content)
    flaw(dataset)
    with pytest.raises(CaseError, match=said):
        check_report(encoded(dataset), case, found, segmentation)


def _walk(item: pydicom.Dataset) -> Iterator[Any]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _walk(child)


def _concept(item: pydicom.Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


@pytest.mark.slow
def test_the_same_result_gives_the_same_bytes() -> None:
    assert report(case_with())[0] == report(case_with())[0]


@pytest.mark.slow
def test_validators_and_text_readers_take_the_report(tmp_path: Path) -> None:
    for name, case in (("full", case_with()), ("none", case_of(np.zeros_like(node_map), FOOT_GRID))):
        file = tmp_path / f"{name}.dcm"
        file.write_bytes(report(case)[0])
        said = says("dciodvfy", file)[1]
        assert "Error" not in said, said
        code, text = says("dsrdump", file)
        assert code == 0, text
        assert "Number of lymph nodes predicted with extranodal extension" in text


@pytest.mark.slow
def test_dcmqis_reader_finds_the_measurements(tmp_path: Path) -> None:
    (tmp_path / "sr.dcm").write_bytes(report(case_with())[0])
    code, said = says(
        "tid1500reader", "--inputDICOM", tmp_path / "sr.dcm", "--outputMetadata", tmp_path / "sr.json"
    )
    assert code == 0, said
    told = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    by_name = {group["TrackingIdentifier"]: group for group in told}
    assert {"GTVn_01", "GTVn_02", "GTVp"} <= set(by_name)
    items = by_name["GTVn_01"]["measurementItems"]
    assert {item["quantity"]["CodeMeaning"] for item in items} >= {"Volume", "Long axis", "Probability"}
