"""What callers and disks do wrong, and what becomes of it."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import JPEGLSLossless

from aiene.pacs.config import Settings
from aiene.pacs.http import BadRequestError, parts
from aiene.pacs.queue import Outcome, Queue
from aiene.pacs.store import NotKeptError, Receiver, Store, Trail
from builders.dicom_files import write_series
from builders.pacs_site import (
    Site,
    ThreadCrew,
    calling,
    oblique_series,
    send,
    settings_for,
    uid_of_study,
    until,
)


def counting_work(settings: Settings, name: str, generation: int) -> Outcome:
    """Notes that it was called, in the store."""
    with (settings.store / "worked").open("a") as file:
        file.write(f"{name} {generation}\n")
    return Outcome("done")


def ended_work(settings: Settings, name: str, generation: int) -> Outcome:
    raise BrokenProcessPool


def broken_work(settings: Settings, name: str, generation: int) -> Outcome:
    raise RuntimeError("ID-77 went wrong")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return oblique_series(tmp_path / "ct", "faults")


def worked(site: Site) -> list[str]:
    file = site.settings.store / "worked"
    return file.read_text().splitlines() if file.is_file() else []


def quiet_site(store: Path, **more: Any) -> Site:
    """A listener whose studies never settle in the time of a test."""
    return Site(settings_for(store, **{"settle_s": 1000, **more}), counting_work, new_crew=ThreadCrew)


@pytest.mark.slow
def test_echoes_of_strangers_are_refused_for_good_and_noted(network: None, store: Path) -> None:
    callers = [{"ae_title": "CT1", "hosts": ["127.0.0.1"]}]
    with quiet_site(store, listen={"callers": callers}) as site:
        for number in range(8):
            with calling(
                "STRANGER" if number % 2 else "CT1", called="AIENE" if number % 2 else "OTHER"
            ) as found:
                assert found.is_rejected
                assert found.acceptor.primitive.result == 1  # permanent: it need not try again
        with calling("CT1") as found:
            assert found.send_c_echo().Status == 0
        refused = [line for line in site.lines("audit.jsonl") if line["event"] == "association_refused"]
        assert len(refused) == 8
        assert {line["reason"] for line in refused} == {
            "it is not among the callers",
            "we are not called OTHER",
        }


@pytest.mark.slow
def test_a_caller_from_another_address_is_refused(network: None, store: Path) -> None:
    callers = [{"ae_title": "CT1", "hosts": ["10.0.0.0/8"]}]
    with quiet_site(store, listen={"callers": callers}), calling("CT1") as found:
        assert found.is_rejected


@pytest.mark.slow
def test_one_association_too_many_is_refused_for_the_moment(network: None, store: Path) -> None:
    with quiet_site(store, listen={"max_associations": 2}):
        with calling() as one, calling() as two:
            assert one.is_established
            assert two.is_established
            with calling() as three:
                assert three.is_rejected
                assert three.acceptor.primitive.result == 2  # transient
            assert one.send_c_echo().Status == 0

        def free() -> bool:
            with calling() as again:
                return bool(again.is_established)

        until(free, "a free place")


@pytest.mark.slow
def test_callers_that_hang_are_cut_off_and_keep_nobody_out(
    network: None, store: Path, files: list[Path]
) -> None:
    """One says nothing, one stops in the middle of a message."""
    with quiet_site(store, listen={"network_timeout_s": 1}) as site:
        silent = socket.create_connection(("127.0.0.1", 11112))
        half = socket.create_connection(("127.0.0.1", 11112))
        half.sendall(b"\x01\x00\x00\x00\x10\x00")
        assert set(send(files[:2])) == {0}
        for hanging in (silent, half):
            hanging.settimeout(30)
            assert hanging.recv(100) is not None  # cut off, with an abort or without
            hanging.close()
        assert site.studies()[uid_of_study(files)].images == 2


@pytest.mark.slow
def test_a_sender_that_dies_in_the_middle_gets_time_to_try_again(
    network: None, store: Path, files: list[Path]
) -> None:
    with Site(
        settings_for(store, settle_s=0.2, broken_off_wait_s=1000), counting_work, new_crew=ThreadCrew
    ) as site:
        with calling() as found:
            for file in files[:10]:
                found.send_c_store(pydicom.dcmread(file))
            found.abort()
        uid = uid_of_study(files)
        until(lambda: uid in site.studies() and site.studies()[uid].broken_off, "the end of the association")
        time.sleep(1.0)
        assert (site.state(uid), worked(site)) == ("received", [])
        assert set(send(files)) == {0}  # it tries again
        ended = site.wait_for(uid, "sent")
        assert ended.images == len(files)
        assert len(worked(site)) == 1


@pytest.mark.slow
def test_a_disk_that_is_nearly_full_refuses_new_associations_and_lets_others_end(
    network: None, store: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet_site(store, listen={"min_free_gb": 1}) as site, calling() as running:
        assert running.is_established
        monkeypatch.setattr(Store, "free_bytes", property(lambda _: int(0.5e9)))
        with calling() as late:
            assert late.is_rejected
            assert late.acceptor.primitive.result == 2
        assert running.send_c_store(pydicom.dcmread(files[0])).Status == 0
        assert "the disk is nearly full" in {line.get("reason") for line in site.lines("audit.jsonl")}


@pytest.fixture
def small_disk(tmp_path: Path, network: None) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip("no small disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_to_the_sender_and_what_was_confirmed_is_there(
    small_disk: Path, tmp_path: Path
) -> None:
    hu = __import__("numpy").zeros((40, 256, 256), "int16")
    files = write_series(tmp_path / "big", hu=hu)
    with quiet_site(small_disk / "store") as site:
        said = send(files)
        assert 0 in said
        assert set(said) == {0, 0xA700}  # out of resources: try again later
        (folder,) = (site.settings.store / "incoming").iterdir()
        kept = list(folder.glob("*.dcm"))
        assert len(kept) >= said.count(0)
        for file in kept:
            pydicom.dcmread(file).pixel_array  # noqa: B018 - whole
        assert not list(folder.glob(".*"))
        with calling() as found:
            assert found.send_c_echo().Status == 0


@pytest.mark.slow
def test_every_transfer_syntax_is_taken_as_it_comes(network: None, store: Path, tmp_path: Path) -> None:
    def squeeze(_: int, ds: pydicom.Dataset) -> None:
        ds.compress(JPEGLSLossless)

    files = write_series(tmp_path / "ct", change=squeeze)
    with quiet_site(store) as site:
        from pynetdicom import AE
        from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

        entity = AE("CT1")
        entity.add_requested_context(CTImageStorage, JPEGLSLossless)
        found = entity.associate("127.0.0.1", 11112, ae_title="AIENE")
        assert {found.send_c_store(pydicom.dcmread(f)).Status for f in files} == {0}
        found.release()
        kept = list(site.settings.store.glob("incoming/*/*.dcm"))
        assert {pydicom.dcmread(f).file_meta.TransferSyntaxUID for f in kept} == {JPEGLSLossless}


@pytest.mark.slow
def test_four_associations_at_once_with_two_series_each(network: None, store: Path, tmp_path: Path) -> None:
    series = [
        write_series(tmp_path / f"ct{n}", series=f"s{n}", study=f"study{n // 2}", slices=5) for n in range(8)
    ]
    answers: list[int] = []
    with quiet_site(store) as site:

        def caller(number: int) -> None:
            one, other = series[number], series[number + 4]
            mixed = [f for pair in zip(one, other, strict=True) for f in pair]
            answers.extend(send(mixed, title=f"CT{number}"))

        threads = [threading.Thread(target=caller, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [0] * 40
        found = site.studies().values()
        assert sorted((s.images, s.series) for s in found) == [(10, 2)] * 4
        assert sum(1 for _ in site.settings.store.glob("incoming/*/*.dcm")) == 40


@pytest.mark.slow
def test_a_process_that_the_system_ends_is_tried_again_and_then_given_up(
    network: None, store: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiene.pacs.service.pause_s", lambda _: 0.0)
    with Site(settings_for(store), ended_work, new_crew=ThreadCrew) as site:
        send(files[:4])
        ended = site.wait_for(uid_of_study(files), "failed")
    assert "ended by the system, usually for lack of memory, 3 times" in ended.reason


@pytest.mark.slow
def test_a_fault_of_ours_fails_one_study_and_names_nobody(
    network: None, store: Path, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with Site(settings_for(store), broken_work, new_crew=ThreadCrew) as site:
        send(files[:4])
        ended = site.wait_for(uid_of_study(files), "failed")
        assert ended.reason == "internal error (RuntimeError), see the log."
        with calling() as found:
            assert found.send_c_echo().Status == 0


@pytest.mark.slow
def test_a_second_listener_at_the_same_store_is_refused(network: None, store: Path) -> None:
    from aiene.errors import UsageError
    from aiene.pacs.service import Service

    with (
        quiet_site(store),
        pytest.raises(UsageError, match="another aiene dicom listen works with this store"),
    ):
        Service(settings_for(store, listen={"port": 11119}), work=counting_work).run()


@pytest.mark.slow
def test_images_go_after_their_days_and_a_late_one_alone_is_not_run(
    network: None, store: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = uid_of_study(files)
    monkeypatch.setattr("aiene.pacs.service._SWEEP_EVERY_S", 0.0)
    with Site(settings_for(store, keep_days=0), new_crew=ThreadCrew) as site:
        send(files[:-1])
        first = site.wait_for(uid, "sent", "failed")
        until(lambda: site.studies()[uid].dropped, "the sweep")  # type: ignore[arg-type, return-value]
        assert not list(site.settings.store.glob("incoming/*/*.dcm"))
        assert list((site.settings.store / "results" / first.name).glob("cases/*/dicom/seg.dcm"))
        send(files[-1:])
        late = site.wait_for(uid, "failed")
        assert f"{len(files) - 1} of its {len(files)} images were deleted meanwhile" in late.reason
        send(files)
        assert site.wait_for(uid, "sent").images == len(files)


def certificates(folder: Path, *names: str) -> None:
    """An authority, and a certificate of it for each name."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")

    def run(*words: str) -> None:
        subprocess.run([program, *words], check=True, capture_output=True, cwd=folder)

    folder.mkdir(exist_ok=True)
    run(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=ca",
        "-days",
        "2",
    )
    for name in names:
        run(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={name}",
        )
        (folder / "ext").write_text("subjectAltName=IP:127.0.0.1")
        run(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            f"{name}.pem",
            "-days",
            "2",
            "-extfile",
            "ext",
        )


@pytest.mark.slow
def test_tls_lets_in_who_has_a_certificate_and_one_that_hangs_keeps_nobody_out(
    network: None, store: Path, tmp_path: Path
) -> None:
    from aiene.pacs.config import Peer
    from aiene.pacs.dimse import PeerError, echo

    pki = tmp_path / "pki"
    certificates(pki, "server", "client")
    tls = {"certificate": pki / "server.pem", "key": pki / "server.key", "ca": pki / "ca.pem"}
    ours = {"ca": pki / "ca.pem", "certificate": pki / "client.pem", "key": pki / "client.key"}
    peer = {"ae_title": "AIENE", "port": 11112, "timeout_s": 5}
    with quiet_site(store, listen={"tls": tls, "network_timeout_s": 30}) as site:
        with socket.create_connection(("127.0.0.1", 11112)):  # says nothing: the handshake never begins
            echo(Peer.model_validate({**peer, "tls": ours}), "CT1")
        with pytest.raises(PeerError) as plain:
            echo(Peer.model_validate(peer), "CT1")
        assert not plain.value.problem.startswith("AIENE@127.0.0.1:11112: nothing listens")
        with pytest.raises(PeerError):
            echo(Peer.model_validate({**peer, "tls": {"ca": pki / "ca.pem"}}), "CT1")
        with pytest.raises(PeerError, match="its certificate is refused"):
            echo(Peer.model_validate({**peer, "tls": {}}), "CT1")
        until(lambda: any(x["event"] == "tls_refused" for x in site.lines("audit.jsonl")), "a line")
    assert ssl.HAS_TLSv1_3


# the journal and the receiver by themselves


@pytest.fixture
def receiving(store: Path) -> Iterator[tuple[Receiver, Store, Queue]]:
    made = Store(store)
    queue = Queue(made.queue_file)
    yield Receiver(made, queue, lambda _: None), made, queue
    queue.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"StudyInstanceUID": None}, "it has no StudyInstanceUID"),
        ({"SOPInstanceUID": None}, "it has no SOPInstanceUID"),
        ({}, "others than those of the request"),
    ],
)
def test_an_object_that_lacks_what_it_needs_is_not_kept(
    receiving: tuple[Receiver, Store, Queue], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    receiver, store, queue = receiving
    (file,) = write_series(tmp_path / "ct", slices=1, hu=__import__("numpy").zeros((1, 8, 8), "int16"))
    dataset = pydicom.dcmread(file)
    for keyword in change:
        del dataset[keyword]
    dataset.save_as(file)
    with pytest.raises(NotKeptError, match=words):
        receiver.take(file.read_bytes(), expected_uid=None if change else "1.2.3")
    for junk in (b"", b"junk", b"\0" * 128 + b"DICM" + b"\xff" * 50):
        with pytest.raises(NotKeptError):
            receiver.take(junk)
    assert queue.studies() == []
    assert not list(store.incoming.iterdir())


def test_names_on_the_disk_never_come_from_a_uid(receiving: Any, tmp_path: Path) -> None:
    receiver, store, _ = receiving

    def hostile(_: int, ds: pydicom.Dataset) -> None:
        ds.StudyInstanceUID, ds.PatientID = "../../../etc/passwd", "../../x"

    with __import__("warnings").catch_warnings():
        __import__("warnings").simplefilter("ignore")
        (file, *_) = write_series(tmp_path / "ct", slices=1, change=hostile)
        receiver.take(file.read_bytes())
    (kept,) = store.root.rglob("*.dcm")
    assert kept.parent.parent == store.incoming
    assert "passwd" not in str(kept)


def test_instances_in_the_journal_that_were_not_noted_are_taken_up(receiving: Any, files: list[Path]) -> None:
    """A kill between the two."""
    receiver, store, queue = receiving
    for file in files[:3]:
        receiver.take(file.read_bytes())
    (study,) = queue.studies()
    with queue.lock:
        queue._db.execute("DELETE FROM instance")
        queue._db.execute("DELETE FROM study")
    broken = store.incoming / study.name / "00000000000000000000.dcm"
    broken.write_bytes(b"half")
    assert receiver.note_unnoted() == 3
    assert queue.studies()[0].images == 3
    assert not broken.exists()


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_the_parts_of_a_request_come_out_whatever_its_pieces(size: int) -> None:
    content = [b"one\r\n--bound", b"", b"\r\n\r\n" * 50, bytes(range(256)) * 300]
    body = (
        b"".join(b"--xyz\r\nContent-Type: application/dicom\r\n\r\n" + c + b"\r\n" for c in content)
        + b"--xyz--\r\n"
    )
    blocks = (body[at : at + size] for at in range(0, len(body), size))
    assert list(parts(blocks, 'multipart/related; type="application/dicom"; boundary=xyz')) == content


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/dicom", b"x"),
        ("multipart/related", b"x"),
        ("multipart/related; boundary=xyz", b""),
        ("multipart/related; boundary=xyz", b"--xyz\r\n\r\nhalf"),
        ("multipart/related; boundary=xyz", b"--xyz\r\nno end of its header"),
    ],
)
def test_a_request_that_is_none_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(BadRequestError):
        list(parts(iter([body] if body else []), kind))


def test_the_log_is_for_its_owner_and_hides_what_would_act_on_a_screen(store: Path) -> None:
    made = Store(store)
    trail = Trail(made.root / "log")
    trail.audit("called", caller="\x1b[31mCT", study_uid="1.2.3")
    trail.close()
    for file in (made.root / "log").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        assert "\x1b" not in file.read_text()
        assert "1.2.3" not in file.read_text()
