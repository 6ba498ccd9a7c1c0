"""Whose result it is, and of which images: copied from the source series where the standard allows it."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from aiene.errors import CaseError, Said, ours, said
from aiene.export.case import ExportCase, SourceSeries
from aiene.ingest.dicom.header import ODD_VALUE, quiet
from aiene.ingest.dicom.header_values import IDENTITY, NEEDED_UIDS, TYPE_2, identity_of, value_of

MANUFACTURER: Final = "AI-ENE open research software"
MODEL_NAME: Final = "aiene"
RESEARCH: Final = "Research, not for clinical use"
"""Stands in every series description."""

_DIGITS: Final = re.compile(r"[0-9][0-9.]{0,63}")
"""What archives take for a UID, well-formed or not."""


def check_source(source: SourceSeries) -> None:
    """Whether the source images can be referred to.

    Raises
    ------
    CaseError : a UID that every object must copy is missing or holds something else, or several images have
        one and the same.
    """
    again = "export the series again from the archive"
    for keyword, word in NEEDED_UIDS.items():
        if any(not dataset.get(keyword) for dataset in source.datasets):
            raise CaseError(
                said("the source images have no {}, so nothing can be put in their place", ours(word)), again
            )
        if any(not _DIGITS.fullmatch(str(dataset.get(keyword))) for dataset in source.datasets):
            problem = said("the {} of the source images is not valid, so nothing can refer to it", ours(word))
            raise CaseError(problem, again)
    every = zip(source.datasets, source.frames, strict=True)
    different = len({(str(dataset.SOPInstanceUID), frame) for dataset, frame in every})
    if different < len(source.datasets):
        template = "its {} source images have {} different image UIDs, so they cannot be told apart"
        raise CaseError(said(template, len(source.datasets), different), again)


def contradictions(source: SourceSeries) -> list[Said]:
    """What to warn of: images of one series that differ in what every object takes from the first of them."""
    words = {
        "FrameOfReferenceUID": "frames of reference",
        "StudyInstanceUID": "studies",
        "PatientID": "patient ids",
        "PatientName": "patient names",
    }
    with quiet():
        counts = {word: len({_shown(d, keyword) for d in source.datasets}) for keyword, word in words.items()}
    return [
        said("the source images name {} {}: the objects take that of the first image", count, ours(word))
        for word, count in counts.items()
        if count > 1
    ]


def copy_identity(source: Dataset, target: Dataset) -> None:
    """Patient and study of `source` in `target`, whatever it held before.

    An attribute that the standard does not allow as it is (`header_values.headers_of`) is left out, or left
    empty where every object must have it; `odd_headers` tells which.
    """
    target.StudyInstanceUID = source.StudyInstanceUID
    found = identity_of(source).elements
    for keyword in IDENTITY:
        if keyword in target:
            delattr(target, keyword)
        if keyword in found:
            target.add(found[keyword])
        elif keyword in TYPE_2:
            setattr(target, keyword, "")


def copy_frame_of_reference(source: Dataset, target: Dataset) -> None:
    """The frame of reference of `source` in `target`."""
    target.FrameOfReferenceUID = source.FrameOfReferenceUID
    target.PositionReferenceIndicator = value_of(source, "PositionReferenceIndicator") or ""


def stamp(target: Dataset, when: datetime) -> None:
    """Every date and time of the object's own making: that of the run, so that an export repeats.

    In UTC, or in the time zone of the source where `copy_identity` has brought one.
    """
    at = when.astimezone(_zone(str(target.get("TimezoneOffsetFromUTC") or "")))
    date, time = at.strftime("%Y%m%d"), at.strftime("%H%M%S")
    for kind in ("InstanceCreation", "Content", "Series"):
        if kind == "InstanceCreation" or kind == "Series" or f"{kind}Date" in target:
            setattr(target, f"{kind}Date", date)
            setattr(target, f"{kind}Time", time)
    for equipment in target.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = when.strftime("%Y%m%d%H%M%S+0000")


def referenced_series(source: SourceSeries) -> list[Dataset]:
    """An item for the ReferencedSeriesSequence: every instance of the source series."""
    seen = {str(dataset.SOPInstanceUID): reference(dataset) for dataset in source.datasets}
    series = Dataset()
    series.SeriesInstanceUID = source.datasets[0].SeriesInstanceUID
    series.ReferencedInstanceSequence = list(seen.values())
    return [series]


def reference(image: Dataset, frame: int | None = None) -> Dataset:
    """An item that refers to a source image."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame
    return item


def new_object(case: ExportCase, sop_class: UID, syntax: UID) -> Dataset:
    """An object of a class and transfer syntax, of the case's patient and study, made by us."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = sop_class
    made.file_meta.TransferSyntaxUID = syntax
    copy_identity(case.source.datasets[0], made)
    made.Manufacturer, made.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    made.SoftwareVersions = case.maker.software_version
    return made


def for_highdicom(case: ExportCase) -> dict[str, Any]:
    """What each of highdicom's objects is given; its UIDs come with `name_by_content`."""
    return {
        "series_instance_uid": "0.0",
        "sop_instance_uid": "0.0",
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": case.maker.software_version,
        "device_serial_number": case.maker.bundle_sha256[:16],
        "transfer_syntax_uid": ExplicitVRLittleEndian,
    }


def uid_of(*words: str) -> str:
    """A UID that is the same for the same words."""
    return str(generate_uid(entropy_srcs=["aiene export 1", *words]))


def tracking_uid(case: ExportCase, name: str) -> str:
    """The UID of a finding (`GTVn_01`, `GTVp`), the same in every object of an export.

    It follows from the source series, the bundle, the name, and where and how large the finding is.
    """
    node = next((n for n in case.result.nodes if n.name == name), None)
    facts = "" if node is None else f"{node.number} {node.centroid_lps_mm} {node.native_volume_mm3}"
    series = str(case.source.datasets[0].SeriesInstanceUID)
    return uid_of("tracking", series, case.maker.bundle_sha256, name, facts)


def name_by_content(kind: str, *objects: Dataset) -> None:
    """Make the instance UIDs of the objects of one series, and its own, from their content and kind.

    So the same export gives the same UIDs and bytes, and another content another UID.
    """
    contents = []
    for made in objects:
        made.SeriesInstanceUID = made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = "0.0"
        contents.append(hashlib.sha256(encoded(made)).hexdigest())
    for made, content in zip(objects, contents, strict=True):
        made.SeriesInstanceUID = uid_of("series", kind, *contents)
        made.SOPInstanceUID = uid_of("instance", kind, content)
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID


def ascii_of(text: str) -> str:
    """Words of ours that every character set can write."""
    return text.encode("ascii", "replace").decode()


def encoded(dataset: Dataset) -> bytes:
    """The object as the bytes of a file."""
    stream = DicomBytesIO()
    with quiet():
        dcmwrite(stream, dataset, enforce_file_format=True)
    return bytes(stream.getvalue())


def _zone(offset: str) -> timezone:
    """The zone of an offset such as +0130; UTC where it is none."""
    found = re.fullmatch(r"([+-])(\d\d)(\d\d)", offset.strip())
    if found is None:
        return UTC
    ahead = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-ahead if found[1] == "-" else ahead) if ahead < timedelta(hours=24) else UTC


def _shown(dataset: Dataset, keyword: str) -> str:
    try:
        return str(dataset.get(keyword) or "")
    except ODD_VALUE:
        return ""


def parameters(case: ExportCase) -> dict[str, str]:
    """What tells one way of making a result from another."""
    maker = case.maker
    return {
        "bundle_sha256": maker.bundle_sha256,
        "ene_threshold": repr(maker.ene_threshold),
        "masks": "the user's own" if maker.own_masks else "the bundle's segmenter",
    }
