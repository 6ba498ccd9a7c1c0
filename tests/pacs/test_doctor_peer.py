"""`aiene doctor --peer` against a true archive."""

from __future__ import annotations

import pytest

from aiene.doctor.peer import peer
from aiene.pacs.config import parse_peer
from builders.orthanc import Orthanc

pytestmark = pytest.mark.slow


def test_echo_contexts_and_a_test_object_that_is_found(empty_archive: Orthanc) -> None:
    found = list(peer(parse_peer(empty_archive.peer), "AIENE"))
    assert [f.level for f in found if f.level == "problem"] == []
    said = " ".join(f.text for f in found)
    assert "it answers C-ECHO" in said
    assert "it accepts every class that we send" in said
    assert "storage commitment" in said
    assert "a test object was stored and found" in said
    (patient,) = empty_archive.get("patients")
    assert empty_archive.get(f"patients/{patient}")["MainDicomTags"]["PatientID"] == "AIENE-TEST"
    again = list(peer(parse_peer(empty_archive.web), "AIENE"))
    assert [f.level for f in again] == ["ok", "ok"]
    assert len(empty_archive.get("instances")) == 2


def test_a_title_that_the_archive_does_not_know(empty_archive: Orthanc) -> None:
    found = list(peer(parse_peer("WRONG@127.0.0.1:4242"), "AIENE"))
    (problem,) = [f for f in found if f.level == "problem"]
    assert "it is not called WRONG" in problem.text
    assert empty_archive.get("instances") == []
