"""A peer: echo, the classes that it takes, and a test object that is stored and found again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from aiene.doctor.machine import Finding
from aiene.errors import AieneError, ProblemError
from aiene.export.identity import encoded
from aiene.pacs.config import Peer
from aiene.pacs.dimse import NoClassError, associated, context, echo, read_outgoing, there_already
from aiene.pacs.push import push
from aiene.pacs.web import WebArchive

_CLASSES: Final = {
    "Segmentation": "1.2.840.10008.5.1.4.1.1.66.4",
    "report (Comprehensive 3D SR)": "1.2.840.10008.5.1.4.1.1.88.34",
    "RT Structure Set": "1.2.840.10008.5.1.4.1.1.481.3",
    "Secondary Capture": SecondaryCaptureImageStorage,
}
_SERVICES: Final = {
    "queries (C-FIND)": "1.2.840.10008.5.1.4.1.2.2.1",
    "C-GET": "1.2.840.10008.5.1.4.1.2.2.3",
    "C-MOVE": "1.2.840.10008.5.1.4.1.2.2.2",
    "storage commitment": "1.2.840.10008.1.20.1",
}


def peer(wanted: Peer, own_title: str, *, store: bool = True) -> Iterator[Finding]:
    """Look at a peer.

    Parameters
    ----------
    store : store a test object, which stays there: an archive takes, and does not give back.
    """
    area = f"peer {wanted.address}"
    try:
        if wanted.url is None:
            echo(wanted, own_title)
            yield Finding(area, "ok", "it answers C-ECHO")
            yield from _contexts(area, wanted, own_title)
        else:
            answers = WebArchive(wanted).find("studies", {"StudyInstanceUID": "1.2.3"})
            nothing = "it is reachable, but answers no queries"
            yield Finding(area, "ok", nothing if answers is None else "it answers queries")
        if store:
            yield _stored_and_found(area, wanted, own_title)
    except ProblemError as error:
        yield Finding(area, "problem", error.problem, error.remedy)
    except AieneError as error:
        yield Finding(area, "problem", str(error).rstrip("."), "correct that")


def _contexts(area: str, wanted: Peer, own_title: str) -> Iterator[Finding]:
    everything = {**_CLASSES, **_SERVICES}
    try:
        with associated(wanted, own_title, [context(uid) for uid in everything.values()]) as found:
            taken = {str(c.abstract_syntax) for c in found.accepted_contexts}
    except NoClassError:
        taken = set()
    refused = [name for name, uid in _CLASSES.items() if uid not in taken]
    if refused:
        text = f"it does not accept {', '.join(refused)}"
        yield Finding(area, "problem", text, "allow these classes in its configuration")
    else:
        yield Finding(area, "ok", "it accepts every class that we send")
    lacking = [name for name, uid in _SERVICES.items() if uid not in taken]
    offered = [name for name in _SERVICES if name not in lacking]
    text = f"it offers {', '.join(offered) or 'no service beside storage'}"
    text += f", not {', '.join(lacking)}" if lacking else ""
    yield Finding(
        area, "note" if lacking else "ok", text, "allow them for us if you need them" if lacking else ""
    )


def _stored_and_found(area: str, wanted: Peer, own_title: str) -> Finding:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "test.dcm"
        file.write_bytes(encoded(picture_of_nobody()))
        item = read_outgoing(file)
        (delivery,) = push([item], wanted, own_title)
        if not delivery.is_there:
            remedy = "allow us to store Secondary Capture in its configuration"
            return Finding(area, "problem", f"the test object was not stored: {delivery.reason}", remedy)
        there = (
            WebArchive(wanted).there_already([item])
            if wanted.url
            else there_already([item], wanted, own_title)
        )
    if there is None:
        text = "a test object was stored; it answers no queries, so it was not looked for"
        return Finding(area, "note", text)
    if item.sop_instance not in there:
        text = "it reports that the test object is stored, but does not find it"
        return Finding(area, "problem", text, "look at its log")
    return Finding(area, "ok", "a test object was stored and found (patient AIENE-TEST; delete it there)")


def picture_of_nobody() -> Dataset:
    """A picture of nobody, black, of a patient called AIENE-TEST."""
    made, now = Dataset(), datetime.now(UTC)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.PatientName, made.PatientID = "AIENE^TEST", "AIENE-TEST"
    made.PatientBirthDate, made.PatientSex = "", "O"
    made.StudyDate, made.StudyTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.AccessionNumber, made.StudyID, made.ReferringPhysicianName = "", "", ""
    made.Modality, made.ConversionType, made.SeriesNumber, made.InstanceNumber = "OT", "SYN", 1, 1
    made.SeriesDescription = "aiene doctor: test object, no patient"
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 8, 8, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = np.zeros((8, 8), np.uint8).tobytes()
    return made
