"""Series from an archive: whole, counted, taken up again, and what is not there is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import InputError, UsageError
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.pacs.config import parse_peer
from aiene.pacs.dimse import PeerError
from aiene.pacs.pull import Choice, FoundSeries, Wanted, archive_of, pull, query, read_list
from builders.dicom_files import slice_dataset
from builders.orthanc import PULL_PORT, Orthanc
from builders.pacs_site import oblique_series, uid_of_study

PACS = "PACS@127.0.0.1:11121"
BY_STUDY = (("StudyInstanceUID", "1.2.3"),)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return oblique_series(tmp_path_factory.mktemp("ct"), "pulled")


@pytest.mark.slow
@pytest.mark.parametrize("road", ["get", "move", "web"])
def test_a_series_of_a_real_archive_by_each_road(
    empty_archive: Orthanc, series: list[Path], tmp_path: Path, road: str
) -> None:
    empty_archive.store(series)
    table = tmp_path / "list.csv"
    table.write_text(f"study_uid;note\n{uid_of_study(series)};x\n1.2.3.4;absent\n")
    peer = empty_archive.web if road == "web" else empty_archive.peer
    words = ["dicom", "pull", "--from", peer, "-o", str(tmp_path / "out"), "--list", str(table)]
    words += ["--ae-title", "PULLER"]
    words += ["--by", "move", "--port", str(PULL_PORT)] if road == "move" else []
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    assert "line 3: not_found  no such study in the archive" in done.output
    (case,) = find_cases(tmp_path / "out", format="dicom")[0]
    assert isinstance(case, Case)
    assert case.file_count == len(series)
    by_uid = {pydicom.dcmread(f).SOPInstanceUID: pydicom.dcmread(f) for f in series}
    for file in case.files:
        got = pydicom.dcmread(file)
        assert (got.pixel_array == by_uid[got.SOPInstanceUID].pixel_array).all()
        assert file.stat().st_mode & 0o777 == 0o600
        assert got.SOPInstanceUID not in str(file)
    # taken up again: nothing is asked for that is there; what is missing comes
    again = CliRunner().invoke(app, words)
    assert "already_there" in again.output
    case.files[0].unlink()
    assert ": ok" in CliRunner().invoke(app, words).output
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == len(series)


@pytest.mark.slow
def test_a_move_to_a_title_that_the_archive_does_not_know_is_said(
    empty_archive: Orthanc, series: list[Path], tmp_path: Path
) -> None:
    empty_archive.store(series)
    with archive_of(
        parse_peer(empty_archive.peer), "PULLER", "move", ("127.0.0.1", PULL_PORT + 1)
    ) as archive:
        wanted = [Wanted((("StudyInstanceUID", uid_of_study(series)),))]
        summary = pull(archive, wanted, tmp_path / "out", Choice(tries=1))
    # Orthanc sends to the port that it knows, where nobody listens: what counts is what came
    (row,) = summary.rows
    assert row.status in ("incomplete", "failed")
    assert row.arrived == 0


class Lying:
    """An archive that says what it is told to say."""

    def __init__(
        self, found: list[FoundSeries], send: list[bytes], errors: list[Exception] | None = None
    ) -> None:
        self.found, self.send, self.errors, self.asked = found, send, errors or [], 0

    def studies(self, filters: Mapping[str, str]) -> list[str]:
        return ["1.2.3"] if self.found else []

    def series(self, study: str) -> list[FoundSeries]:
        return self.found

    def retrieve(self, wanted: FoundSeries, keep: Any) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        for content in self.send:
            keep(content)
        return ""


def instance(number: int, series: str = "9.9") -> bytes:
    import numpy as np

    from aiene.export.identity import encoded

    ds = slice_dataset(np.zeros((4, 4), np.uint16), position=(0, 0, number))
    ds.SeriesInstanceUID, ds.SOPInstanceUID = series, f"9.9.{number}"
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
        ds.SOPClassUID,
        ds.SOPInstanceUID,
    )
    return encoded(ds)


def of_series(count: int | None, modality: str = "CT", part: str = "", uid: str = "9.9") -> FoundSeries:
    return FoundSeries("1.2.3", uid, modality, part, count)


@pytest.mark.parametrize(
    ("count", "sent", "status", "words"),
    [
        (3, 3, "ok", ""),
        (3, 2, "incomplete", "2 of 3 instances came: the archive said success"),
        (3, 0, "incomplete", "0 of 3 instances came: the archive said success"),
        (None, 0, "failed", "no instance came: the archive said success"),
        (None, 2, "ok", ""),
    ],
)
def test_what_arrives_counts_and_not_what_the_archive_says(
    tmp_path: Path, count: int | None, sent: int, status: str, words: str
) -> None:
    archive = Lying([of_series(count)], [instance(n) for n in range(sent)])
    (row,) = pull(archive, [Wanted(BY_STUDY)], tmp_path, Choice()).rows
    assert (row.status, row.reason, row.arrived) == (status, words, sent)


def test_instances_of_another_series_are_not_kept(tmp_path: Path) -> None:
    archive = Lying([of_series(1)], [instance(1), instance(2, "8.8"), b"no DICOM"])
    (row,) = pull(archive, [Wanted(BY_STUDY)], tmp_path, Choice()).rows
    assert (row.status, row.reason) == ("ok", "2 instances of other series were not kept")
    assert len(list(tmp_path.rglob("*.dcm"))) == 1


def test_only_the_series_that_are_wanted(tmp_path: Path) -> None:
    archive = Lying([of_series(1, "MR"), of_series(1, "CT", "CHEST")], [])
    (row,) = pull(archive, [Wanted(BY_STUDY)], tmp_path, Choice(body_parts=("NECK",))).rows
    assert (row.status, row.reason) == ("not_found", "no CT that fits, but CT, MR")
    assert archive.asked == 0
    choice = Choice(body_parts=("NECK",))
    assert choice.takes(of_series(1, "CT", "NECK"))
    assert choice.takes(of_series(1, "CT", ""))  # it does not say


def test_what_passes_is_tried_again_and_a_refusal_ends_the_pull(tmp_path: Path) -> None:
    waits: list[float] = []
    passing, final = PeerError("it is busy", "wait", passing=True), PeerError("it refused us", "ask")
    archive = Lying([of_series(1)], [instance(1)], [passing, passing])
    (row,) = pull(archive, [Wanted(BY_STUDY)], tmp_path / "a", Choice(), sleep=waits.append).rows
    assert (row.status, waits) == ("ok", [2.0, 4.0])
    archive = Lying([of_series(1)], [instance(1)], [final])
    (row,) = pull(archive, [Wanted(BY_STUDY)], tmp_path / "b", Choice(), sleep=waits.append).rows
    assert (row.status, row.reason) == ("failed", "it refused us; ask.")
    assert archive.asked == 1


def test_a_rate_is_kept(tmp_path: Path) -> None:
    waits: list[float] = []
    archive = Lying([of_series(4)], [instance(n) for n in range(4)])
    pull(archive, [Wanted(BY_STUDY)], tmp_path, Choice(rate=0.5), sleep=waits.append)
    assert len(waits) == 1
    assert 0 < waits[0] <= 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "no column that identifies"),
        ("", "no column that identifies"),
        ("patient_id\n", "no rows"),
        ("patient_id,note\n,x\n", "line 2 names no study"),
        ("patient_id\nA*\n", "line 2 holds *"),
        ("study_uid\n1.2\\1.3\n", "line 2 holds *"),
    ],
)
def test_a_list_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError) as error:
        read_list(tmp_path / "list.csv")
    assert words in str(error.value)


def test_a_list_as_a_spreadsheet_writes_it(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(
        "﻿Patient ID;Accession Number\r\nP1;A1\r\n\r\nP2;\r\nP1;A1\r\n".encode()
    )
    found = read_list(tmp_path / "list.csv")
    assert [w.filters for w in found] == [
        (("PatientID", "P1"), ("AccessionNumber", "A1")),
        (("PatientID", "P2"),),
    ]
    assert [w.line for w in found] == [2, 4]


@pytest.mark.parametrize("date", ["2024", "20240101-2024", "-", "yesterday"])
def test_a_query_says_when(date: str) -> None:
    with pytest.raises(UsageError):
        query("CT", date, None)
    with pytest.raises(UsageError, match="whole archive"):
        query("CT", None, None)
    assert query("CT", "20240101-", None).filters == (("ModalitiesInStudy", "CT"), ("StudyDate", "20240101-"))


@pytest.mark.slow
def test_an_archive_that_moves_nothing_and_says_success(network: None, tmp_path: Path) -> None:
    """C-MOVE over the wire, from an archive that opens no association back."""

    def on_find(event: Any) -> Any:
        answer = Dataset()
        answer.QueryRetrieveLevel = event.identifier.QueryRetrieveLevel
        answer.StudyInstanceUID = "1.2.3"
        if answer.QueryRetrieveLevel == "SERIES":
            answer.SeriesInstanceUID, answer.Modality, answer.NumberOfSeriesRelatedInstances = "9.9", "CT", 7
        yield 0xFF00, answer

    def on_move(event: Any) -> Any:
        yield "127.0.0.1", PULL_PORT
        yield 0

    entity = AE(ae_title="PACS")
    for model in ("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"):
        entity.add_supported_context(model)
    handlers = [(evt.EVT_C_FIND, on_find), (evt.EVT_C_MOVE, on_move)]
    server = entity.start_server(("127.0.0.1", 11121), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    try:
        with archive_of(parse_peer(PACS), "PULLER", "move", ("127.0.0.1", PULL_PORT)) as archive:
            (row,) = pull(archive, [Wanted(BY_STUDY)], tmp_path, Choice(tries=1)).rows
    finally:
        server.shutdown()  # type: ignore[union-attr]
    assert (row.status, row.expected, row.arrived) == ("incomplete", 7, 0)
