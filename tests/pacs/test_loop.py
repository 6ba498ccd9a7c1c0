"""A CT is sent to the listener, and its objects stand beside it in the archive."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from aiene.pacs.config import Peer, Settings
from aiene.pacs.dimse import read_outgoing
from aiene.pacs.web import WebArchive
from builders.export_runs import NODES, OBLIQUE, ball, small_grid
from builders.orthanc import Orthanc
from builders.pacs_site import Site, ThreadCrew, oblique_series, send, settings_for, uid_of_study, until
from builders.rtstruct_readers import by_point_in_polygon

pytestmark = pytest.mark.slow

GRID = small_grid(OBLIQUE)
NODE_MASKS = {f"GTVn_{number:02d}": ball(GRID, node) for number, node in enumerate(NODES, start=1)}
STATUS, STOW = 8081, 8082


def site_settings(store: Path, archive: Orthanc, **more: Any) -> Settings:
    peers = {
        "archive": {"ae_title": "ORTHANC", "port": 4242, "commitment": True},
        "web": {"url": archive.web},
    }
    ports = {"status": {"port": STATUS}, "stow": {"port": STOW}}
    return settings_for(store, peers=peers, **{"send_to": ["archive"], **ports, **more})


@pytest.fixture(scope="module")
def site(archive: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A listener beside the archive, to which it sends what it makes."""
    with Site(site_settings(tmp_path_factory.mktemp("store"), archive)) as running:
        yield running


def masks_in(segmentation: pydicom.Dataset, files: list[Path]) -> dict[str, np.ndarray]:
    """Each segment, its frames laid on the slices whose image they name; by nothing but pydicom."""
    place = {}
    for file in files:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        place[header.SOPInstanceUID] = int(header.InstanceNumber) - 1
    names = {int(s.SegmentNumber): str(s.SegmentLabel) for s in segmentation.SegmentSequence}
    found = {name: np.zeros(GRID.size, bool) for name in names.values()}
    for frame, item in zip(
        segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True
    ):
        number = int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        source = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found[names[number]][place[source]] = frame > 0
    return found


def check_objects(found: dict[str, list[pydicom.Dataset]], files: list[Path], folder: Path) -> None:
    """One of each kind, each in the patient's own study, the masks voxel by voxel as they were planted."""
    source = pydicom.dcmread(files[0], stop_before_pixels=True)
    assert {kind: len(found.get(kind, [])) for kind in ("SEG", "SR", "RTSTRUCT")} == {
        "SEG": 1,
        "SR": 1,
        "RTSTRUCT": 1,
    }
    for kind in ("SEG", "SR", "RTSTRUCT"):
        assert found[kind][0].StudyInstanceUID == source.StudyInstanceUID
        assert found[kind][0].PatientID == source.PatientID
        assert found[kind][0].PatientName == source.PatientName
    masks = masks_in(found["SEG"][0], files)
    for name, planted in NODE_MASKS.items():
        np.testing.assert_array_equal(masks[name], planted)
    structures = folder / "rtstruct.dcm"
    found["RTSTRUCT"][0].save_as(structures, enforce_file_format=True)
    assert set(NODE_MASKS) <= set(by_point_in_polygon(structures, files[0].parent))


def test_a_series_sent_by_storescu_comes_back_as_objects_in_its_study(
    site: Site, empty_archive: Orthanc, tmp_path: Path
) -> None:
    files = oblique_series(tmp_path / "ct", "storescu")
    program = shutil.which("storescu")
    if program is None:
        pytest.skip("storescu (Debian: dcmtk) is not installed")
    subprocess.run(
        [program, "-aet", "CT1", "-aec", "AIENE", "127.0.0.1", "11112", "+sd", str(tmp_path / "ct")],
        check=True,
    )
    uid = uid_of_study(files)
    ended = site.wait_for(uid, "sent", "failed")
    assert (ended.state, ended.reason, ended.images, ended.series) == ("sent", "", len(files), 1)
    check_objects(empty_archive.objects(uid), files, tmp_path)
    received = list((site.settings.store / "incoming" / ended.name).glob("*"))
    assert {f.stat().st_mode & 0o777 for f in received} == {0o600}
    assert not any(part in str(f) for f in received for part in (uid, "ID-77", "storescu"))

    until(lambda: any(line["event"] == "commitment" for line in site.lines("audit.jsonl")), "the commitment")
    (commitment,) = [line for line in site.lines("audit.jsonl") if line["event"] == "commitment"]
    assert (commitment["study"], commitment["held"], commitment["lost"]) == (ended.name, 3, 0)
    log = (site.settings.store / "log" / "events.jsonl").read_text()
    assert uid not in log
    assert "ID-77" not in log
    (came,) = [line for line in site.lines("audit.jsonl") if line["event"] == "sent_to_us"]
    assert (came["caller"], came["address"], came["instances"]) == ("CT1", "127.0.0.1", len(files))

    # the same again, from another program in another transfer syntax: nothing is new, nothing is sent
    before = empty_archive.stored()
    assert set(send(files)) == {0}
    assert site.state(uid) == "sent"
    assert empty_archive.stored() == before
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    figures = opener.open(f"http://127.0.0.1:{STATUS}/metrics").read().decode()
    assert "\naiene_objects_sent_total 3\n" in figures


def test_the_same_by_dicomweb(archive: Orthanc, tmp_path: Path, store: Path) -> None:
    """In by STOW-RS, back by STOW-RS, to the same masks."""
    archive.clear()
    files = oblique_series(tmp_path / "ct", "web")
    uid = uid_of_study(files)
    settings = site_settings(
        store, archive, send_to=["web"], listen={"port": 11122}, stow={"port": 8092}, status=None
    )
    with Site(settings, new_crew=ThreadCrew) as site:
        gateway = WebArchive(Peer(url="http://127.0.0.1:8092/dicom-web"))
        said = gateway.send([read_outgoing(file) for file in files], lambda _: None)
        assert {d.status for d in said} == {"accepted"}
        assert site.wait_for(uid, "sent", "failed").state == "sent"
    check_objects(archive.objects(uid), files, tmp_path)


def test_a_structure_set_in_the_study_and_what_comes_late(
    site: Site, empty_archive: Orthanc, tmp_path: Path
) -> None:
    """Another object starts nothing; a new image does, and the new result is sent."""
    files = oblique_series(tmp_path / "ct", "late")
    uid = uid_of_study(files)
    held_back = max(files, key=lambda f: int(pydicom.dcmread(f, stop_before_pixels=True).InstanceNumber))
    send([f for f in files if f != held_back])
    first = site.wait_for(uid, "sent", "failed")
    assert first.state == "sent"
    objects = empty_archive.objects(uid)
    structures = tmp_path / "theirs.dcm"
    objects["RTSTRUCT"][0].save_as(structures, enforce_file_format=True)
    subprocess.run(
        ["storescu", "-aet", "CT1", "-aec", "AIENE", "127.0.0.1", "11112", str(structures)], check=True
    )
    assert site.studies()[uid].state == "sent"
    assert site.studies()[uid].generation == first.generation
    send([held_back])
    again = site.wait_for(uid, "received", "waiting", "running")
    assert again.generation == first.generation + 1
    assert site.wait_for(uid, "sent", "failed").state == "sent"
    assert len(empty_archive.objects(uid)["SEG"]) == 2


def test_the_page_and_the_figures_show_the_queue_and_no_patient(site: Site) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    shown = {
        p: opener.open(f"http://127.0.0.1:{STATUS}{p}").read().decode()
        for p in ("/", "/metrics", "/status.json")
    }
    for content in shown.values():
        assert "ID-77" not in content
        assert "1.2.826" not in content
    figures = dict(line.split() for line in shown["/metrics"].splitlines() if not line.startswith("#"))
    assert float(figures["aiene_studies_done_total"]) >= 1
    assert float(figures['aiene_studies{state="sent"}']) >= 1
    assert float(figures["aiene_queue_length"]) == 0
    assert "Research software, not a medical device." in shown["/"]
