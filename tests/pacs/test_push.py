"""A run's objects to an archive: once, and with the reason where one is refused."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, RTStructureSetStorage, SegmentationStorage  # type: ignore[attr-defined]
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.export.run import export_run
from aiene.pacs.config import Peer, parse_peer
from aiene.pacs.dimse import judge, read_outgoing
from aiene.pacs.push import Commitment, pause_s, push_run
from aiene.pacs.web import read_answer
from builders.export_runs import write_run
from builders.orthanc import ANSWER_PORT, Orthanc
from builders.pacs_site import oblique_series, uid_of_study

PORT = 11120
ARCHIVE = Peer(ae_title="PACS", port=PORT, timeout_s=5)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its three objects."""
    folder = tmp_path_factory.mktemp("run")
    oblique_series(folder / "ct", "pushed")
    write_run(folder / "out", folder / "ct")
    export_run(folder / "out", ["dicom-seg", "dicom-sr", "rtstruct"])
    return folder / "out"


@pytest.fixture
def fresh(out: Path, tmp_path: Path) -> Path:
    """A copy of it that was never pushed."""
    import shutil

    shutil.copytree(out, tmp_path / "out")
    return tmp_path / "out"


class Counting:
    """An archive of pynetdicom's that answers as it is told, and counts."""

    def __init__(self, *statuses: int, classes: Any = None, **options: Any) -> None:
        self.statuses, self.calls = list(statuses), 0
        self.proposed: list[Any] = []
        entity = AE(ae_title="PACS")
        for storage in classes or (SegmentationStorage, Comprehensive3DSRStorage, RTStructureSetStorage):
            entity.add_supported_context(storage)
        entity.require_calling_aet = options.get("callers", [])
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_REQUESTED, self._requested)]
        self._server = entity.start_server(("127.0.0.1", PORT), block=False, evt_handlers=handlers)  # type: ignore[arg-type]

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()  # type: ignore[union-attr]

    def _requested(self, event: Any) -> None:
        primitive = event.assoc.requestor.primitive
        self.proposed += [
            (str(c.abstract_syntax.name), len(c.transfer_syntax))
            for c in primitive.presentation_context_definition_list
        ]

    def _store(self, event: Any) -> int:
        self.calls += 1
        return self.statuses.pop(0) if self.statuses else 0


def push(out: Path, **options: Any) -> Any:
    waits: list[float] = []
    summary = push_run(out, ARCHIVE, "AIENE", sleep=waits.append, **options)
    return summary, waits


@pytest.mark.slow
def test_pushed_twice_is_sent_once_to_a_real_archive(empty_archive: Orthanc, fresh: Path) -> None:
    orthanc = parse_peer(empty_archive.peer)
    first = push_run(fresh, orthanc, "AIENE", commitment=None)
    assert first.counts == {"accepted": 3}
    stored = empty_archive.stored()
    assert push_run(fresh, orthanc, "AIENE").counts == {"there": 3}
    assert push_run(fresh, parse_peer(empty_archive.web), "AIENE").counts == {"there": 3}
    assert empty_archive.stored() == stored
    uid = uid_of_study(sorted((fresh.parent / "out").glob("cases/*/dicom/*.dcm")))
    assert {kind: len(found) for kind, found in empty_archive.objects(uid).items()} == {
        "SEG": 1,
        "SR": 1,
        "RTSTRUCT": 1,
    }
    # what the archive has lost is sent again, whatever our own table says
    empty_archive.clear()
    assert push_run(fresh, parse_peer(empty_archive.web), "AIENE").counts == {"accepted": 3}


@pytest.mark.slow
def test_a_real_archive_commits_itself(empty_archive: Orthanc, fresh: Path) -> None:
    wanted = Commitment(("127.0.0.1", ANSWER_PORT))
    summary = push_run(fresh, parse_peer(empty_archive.peer), "ANSWERS", commitment=wanted)
    assert [d.committed for d in summary.deliveries] == [True] * 3
    assert summary.commitment == "The archive committed to storing 3 of 3 objects."
    assert summary.exit_code == 0


@pytest.mark.slow
def test_a_title_that_a_real_archive_does_not_know_is_said_and_not_tried_again(
    empty_archive: Orthanc, fresh: Path
) -> None:
    done = CliRunner().invoke(
        app, ["dicom", "push", str(fresh), "--to", "NOBODY@127.0.0.1:4242", "--tries", "3", "--json"]
    )
    assert done.exit_code == 1
    assert "it is not called NOBODY; correct the AE title of the peer." in done.output
    assert "Trying again" not in done.output


@pytest.mark.slow
def test_exactly_the_contexts_that_are_needed(network: None, fresh: Path) -> None:
    with Counting() as archive:
        assert push(fresh)[0].counts == {"accepted": 3}
    assert sorted(archive.proposed[-3:]) == sorted(
        [
            ("Segmentation Storage", 1),
            ("Comprehensive 3D SR Storage", 1),
            ("RT Structure Set Storage", 1),
        ]
    )


@pytest.mark.slow
def test_without_queries_our_own_table_keeps_it_from_being_sent_twice(network: None, fresh: Path) -> None:
    with Counting() as archive:
        assert push(fresh)[0].counts == {"accepted": 3}
        assert push(fresh)[0].counts == {"there": 3}
        assert archive.calls == 3
    rows = json.loads((fresh / "push.json").read_text())["objects"]
    assert [row["status"] for row in rows] == ["there"] * 3


@pytest.mark.slow
def test_what_passes_is_tried_again_and_what_does_not_is_not(network: None, fresh: Path) -> None:
    with Counting(0xA700, 0, 0xC123) as archive:
        summary, waits = push(fresh, tries=3)
    assert summary.counts == {"accepted": 2, "refused": 1}
    assert archive.calls == 4  # three, then the one without resources again
    assert waits == [2.0]
    assert "C123" in next(d.reason for d in summary.deliveries if d.status == "refused")


@pytest.mark.slow
def test_an_archive_without_resources_is_left_in_peace_after_some_tries(network: None, fresh: Path) -> None:
    with Counting(*[0xA700] * 99) as archive:
        summary, waits = push(fresh, tries=4)
    assert summary.counts == {"unreached": 3}
    assert waits == [2.0, 4.0, 8.0]
    assert archive.calls == 12


@pytest.mark.slow
def test_a_caller_that_is_refused_stops_at_once(network: None, fresh: Path) -> None:
    with Counting(callers=["SOMEBODY"]) as archive:
        summary, waits = push(fresh, tries=5)
    assert (summary.counts, waits, archive.calls) == ({"refused": 3}, [], 0)
    assert "it does not know our AE title AIENE" in summary.deliveries[0].reason


@pytest.mark.slow
def test_a_class_that_is_not_taken_is_named_and_the_others_are_sent(network: None, fresh: Path) -> None:
    with Counting(classes=[SegmentationStorage]) as archive:
        summary, _ = push(fresh)
    reasons = {d.object.kind: (d.status, d.reason) for d in summary.deliveries}
    assert reasons["Segmentation Storage"][0] == "accepted"
    status, reason = reasons["RT Structure Set Storage"]
    assert (status, reason) == (
        "refused",
        "it does not accept RT Structure Set Storage in this transfer syntax",
    )
    assert archive.calls == 1


@pytest.mark.parametrize(
    ("peer", "words", "passing"),
    [
        (Peer(ae_title="X", port=PORT, timeout_s=2), "nothing listens there", True),
        (Peer(ae_title="X", host="no-such-host.invalid", port=1, timeout_s=2), "no host of this name", True),
        (Peer(url=f"http://127.0.0.1:{PORT}/dicom-web", timeout_s=2), "nothing answers there", True),
    ],
)
@pytest.mark.slow
def test_an_archive_that_is_not_there(
    network: None, fresh: Path, peer: Peer, words: str, passing: bool
) -> None:
    waits: list[float] = []
    summary = push_run(fresh, peer, "AIENE", tries=2, sleep=waits.append)
    assert summary.counts == {"unreached" if passing else "refused": 3}
    assert words in summary.deliveries[0].reason
    assert bool(waits) is passing


@pytest.mark.slow
def test_a_port_that_speaks_something_else_or_nothing(network: None, fresh: Path) -> None:
    with socket.create_server(("127.0.0.1", PORT)) as silent:
        silent.listen()
        summary, _ = push(fresh)
    assert summary.counts == {"unreached": 3}

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", PORT), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        found = push_run(fresh, Peer(url=f"http://127.0.0.1:{PORT}", timeout_s=5), "AIENE")
        assert found.counts == {"refused": 3}
        assert "not that of a DICOMweb service" in found.deliveries[0].reason
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0x0000, "accepted"),
        (0xB000, "accepted"),
        (0xB007, "accepted"),
        (0x0111, "there"),
        (0xA700, "unreached"),
        (0xA900, "refused"),
        (0xC000, "refused"),
        (0x0122, "refused"),
        (0x0124, "refused"),
    ],
)
def test_the_status_of_a_store(status: int, kind: str) -> None:
    assert judge(status)[0] == kind


def test_pauses_grow_and_are_bounded() -> None:
    assert [pause_s(n) for n in (1, 2, 3, 4)] == [2, 4, 8, 16]
    assert pause_s(40) == 3600


def _answer(failed: dict[str, int], stored: list[str], *, xml: bool) -> bytes:
    if not xml:
        return json.dumps(
            {
                "00081198": {
                    "vr": "SQ",
                    "Value": [
                        {"00081155": {"vr": "UI", "Value": [u]}, "00081197": {"vr": "US", "Value": [c]}}
                        for u, c in failed.items()
                    ],
                },
                "00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [u]}} for u in stored]},
            }
        ).encode()

    def attribute(tag: str, value: object) -> str:
        return f'<DicomAttribute tag="{tag}"><Value number="1">{value}</Value></DicomAttribute>'

    bad = "".join(
        f"<Item>{attribute('00081155', u)}{attribute('00081197', c)}</Item>" for u, c in failed.items()
    )
    good = "".join(f"<Item>{attribute('00081155', u)}</Item>" for u in stored)
    return (
        f'<NativeDicomModel><DicomAttribute tag="00081198">{bad}</DicomAttribute>'
        f'<DicomAttribute tag="00081199">{good}</DicomAttribute></NativeDicomModel>'
    ).encode()


@pytest.mark.parametrize("xml", [False, True])
def test_which_object_of_a_409_failed_is_read(out: Path, xml: bool) -> None:
    objects = [read_outgoing(file) for file in sorted(out.glob("cases/*/dicom/*.dcm"))]
    a, b, c = (o.sop_instance for o in objects)
    found = read_answer(objects, 409, _answer({a: 0xA700, b: 0xC000}, [c], xml=xml))
    assert [d.status for d in found] == ["unreached", "refused", "accepted"]
    assert "C000" in found[1].reason
    found = read_answer(objects, 409, _answer({b: 0x0110}, [], xml=xml))
    assert [d.status for d in found] == [
        "unreached",
        "refused",
        "unreached",
    ]  # nobody said that a and c are there
    assert [d.status for d in read_answer(objects, 200, b"")] == ["accepted"] * 3
    assert [d.status for d in read_answer(objects, 409, b"<!DOCTYPE x><x/>")] == ["unreached"] * 3
