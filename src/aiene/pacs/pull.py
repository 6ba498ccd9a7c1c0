"""Series from an archive, by C-GET, C-MOVE or WADO-RS, into a folder.

They are counted as they arrive, and a pull that was ended is taken up. What is wanted is a list of patients,
accession numbers or studies, or a query.
"""

from __future__ import annotations

import csv
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, field, fields
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar, get_args

from pydicom import dcmread
from pydicom.dataset import Dataset

from aiene.csv_tables import rows_bytes
from aiene.errors import InputError, OutputError, UsageError
from aiene.export.identity import encoded
from aiene.ingest.dicom.header import CT_CLASSES, DAMAGED, quiet
from aiene.pacs.config import Peer
from aiene.pacs.dimse import FIND, PeerError, associated, context, matches, netdicom
from aiene.pacs.push import pause_s
from aiene.pacs.web import WebArchive
from aiene.results.atomic import make_folder, write_bytes
from aiene.results.ownership import Owned

GET: Final = "1.2.840.10008.5.1.4.1.2.2.3"
MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
_PENDING: Final = (0xFF00, 0xFF01)
Keep = Callable[[bytes], None]


@dataclass(frozen=True)
class FoundSeries:
    """A series that an archive has.

    Parameters
    ----------
    instances : how many it says that there are; None where it does not say.
    """

    study: str
    series: str
    modality: str
    body_part: str
    instances: int | None

    @property
    def query(self) -> Dataset:
        """What asks for it."""
        filters = {"StudyInstanceUID": self.study, "SeriesInstanceUID": self.series}
        return _dataset_of("SERIES", filters)


class Archive(Protocol):
    """What a pull asks of an archive. All raise `PeerError`."""

    def studies(self, filters: Mapping[str, str]) -> list[str]:
        """StudyInstanceUIDs that match."""
        ...

    def series(self, study: str) -> list[FoundSeries]:
        """The series of a study."""
        ...

    def retrieve(self, wanted: FoundSeries, keep: Keep) -> str:
        """Give the bytes of each instance of a series to `keep`; what the archive said at the end."""
        ...


@contextmanager
def archive_of(
    peer: Peer, own_title: str, by: Literal["get", "move"], port: tuple[str, int] | None
) -> Iterator[Archive]:
    """The archive behind a peer.

    Parameters
    ----------
    by : C-GET, or C-MOVE to a port of ours that the archive must know.
    port : host and port of ours, for C-MOVE.

    Raises
    ------
    UsageError : C-MOVE without a port, or the port cannot be opened.
    """
    if peer.url is not None:
        yield _Web(peer)
    elif by == "get":
        yield _Get(peer, own_title)
    elif port is None:
        raise UsageError("--by move needs --port: the archive opens an association back to us.")
    else:
        with _Move(peer, own_title, port) as archive:
            yield archive


class _Dimse:
    def __init__(self, peer: Peer, own_title: str) -> None:
        netdicom("Pulling from an archive")
        self.peer, self.own_title = peer, own_title

    def studies(self, filters: Mapping[str, str]) -> list[str]:
        answers = self._find("STUDY", filters, "StudyInstanceUID")
        return [str(found.StudyInstanceUID) for found in answers if "StudyInstanceUID" in found]

    def series(self, study: str) -> list[FoundSeries]:
        empty = ("SeriesInstanceUID", "Modality", "BodyPartExamined", "NumberOfSeriesRelatedInstances")
        return [found_series(study, a) for a in self._find("SERIES", {"StudyInstanceUID": study}, *empty)]

    def _find(self, level: str, filters: Mapping[str, str], *empty: str) -> list[Dataset]:
        with associated(self.peer, self.own_title, [context(FIND)]) as found:
            return matches(found, _dataset_of(level, filters, *empty))


class _Get(_Dimse):
    def retrieve(self, wanted: FoundSeries, keep: Keep) -> str:
        from pynetdicom import build_role, evt
        from pynetdicom._globals import ALL_TRANSFER_SYNTAXES

        contexts = [context(GET), *(context(ct, *ALL_TRANSFER_SYNTAXES) for ct in CT_CLASSES)]
        roles = [build_role(ct, scp_role=True) for ct in CT_CLASSES]
        handlers = [(evt.EVT_C_STORE, _on_store, [lambda: keep])]
        with associated(self.peer, self.own_title, contexts, handlers=handlers, negotiation=roles) as found:
            return _told(found.send_c_get(wanted.query, GET))


class _Move(_Dimse):
    """By C-MOVE: a service of ours is open meanwhile. What comes is counted by its own series: it may
    be late, or another."""

    def __init__(self, peer: Peer, own_title: str, port: tuple[str, int]) -> None:
        super().__init__(peer, own_title)
        self._port = port
        self._keep: Keep = lambda _: None
        self._server: Any = None

    def __enter__(self) -> _Move:
        from pynetdicom import AE, evt
        from pynetdicom._globals import ALL_TRANSFER_SYNTAXES

        entity = AE(ae_title=self.own_title)
        for storage in CT_CLASSES:
            entity.add_supported_context(storage, ALL_TRANSFER_SYNTAXES)
        entity.require_called_aet = True
        handlers: list[Any] = [(evt.EVT_C_STORE, _on_store, [lambda: self._keep])]
        try:
            self._server = entity.start_server(self._port, block=False, evt_handlers=handlers)
        except OSError as error:
            raise UsageError(f"--port {self._port[1]}: it cannot be opened ({error.strerror}).") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def retrieve(self, wanted: FoundSeries, keep: Keep) -> str:
        self._keep = keep
        try:
            with associated(self.peer, self.own_title, [context(MOVE)]) as found:
                return _told(found.send_c_move(wanted.query, self.own_title, MOVE))
        finally:
            self._keep = lambda _: None


class _Web:
    def __init__(self, peer: Peer) -> None:
        self._peer, self._service = peer, WebArchive(peer)

    def studies(self, filters: Mapping[str, str]) -> list[str]:
        return [str(found.StudyInstanceUID) for found in self._ask("studies", filters, None)]

    def series(self, study: str) -> list[FoundSeries]:
        return [found_series(study, answer) for answer in self._ask("series", {}, study)]

    def retrieve(self, wanted: FoundSeries, keep: Keep) -> str:
        for dataset in self._service.retrieve(wanted.study, wanted.series):
            keep(encoded(dataset))
        return ""

    def _ask(self, level: str, filters: Mapping[str, str], study: str | None) -> list[Dataset]:
        answers = self._service.find(level, filters, study=study)
        if answers is None:
            raise PeerError(f"{self._peer.address}: it answers no queries (QIDO-RS)", "pull by AET@HOST:PORT")
        return answers


def found_series(study: str, answer: Dataset) -> FoundSeries:
    """A series as an archive describes it."""
    try:
        count: int | None = int(str(answer.get("NumberOfSeriesRelatedInstances")))
    except ValueError:
        count = None
    modality, part = (str(answer.get(word) or "").upper() for word in ("Modality", "BodyPartExamined"))
    return FoundSeries(study, str(answer.get("SeriesInstanceUID") or ""), modality, part, count)


def _dataset_of(level: str, filters: Mapping[str, str], *empty: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword in empty:
        setattr(query, keyword, "" if keyword != "NumberOfSeriesRelatedInstances" else None)
    if any(not value.isascii() for value in filters.values()):
        query.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in filters.items():
        setattr(query, keyword, value)
    return query


def _on_store(event: Any, keep: Callable[[], Keep]) -> int:
    """Handler of a C-STORE; `keep` tells who keeps it now."""
    try:
        keep()(event.encoded_dataset())
    except OSError:
        return 0xA700
    return 0x0000


def _told(answers: Iterator[tuple[Dataset, Any]]) -> str:
    """What a C-GET or C-MOVE ended with; empty where all is well.

    Raises
    ------
    PeerError : it broke off, refused, or does not know us.
    """
    last = Dataset()
    with quiet(), suppress(RuntimeError):  # it broke off: no status yet, or one of a part
        for status, _ in answers:
            last = status
    code = last.get("Status")
    if code is None or code in _PENDING:
        raise PeerError("the archive ended the connection", "try again", passing=True)
    if code == 0xA801:
        problem = "the archive does not know where to send (move destination unknown)"
        raise PeerError(problem, "enter our AE title, host and port in its configuration")
    failed = int(last.get("NumberOfFailedSuboperations") or 0)
    if code == 0x0000 and not failed:
        return ""
    comment = str(last.get("ErrorComment") or "")
    return f"it ended with status {code:04X}, {failed} failed" + (f" ({comment})" if comment else "")


Key = Literal["PatientID", "AccessionNumber", "StudyInstanceUID"]
_COLUMNS: Final[dict[str, Key]] = {
    "patient": "PatientID",
    "patientid": "PatientID",
    "accession": "AccessionNumber",
    "accessionnumber": "AccessionNumber",
    "study": "StudyInstanceUID",
    "studyuid": "StudyInstanceUID",
    "studyinstanceuid": "StudyInstanceUID",
}
_DATE: Final = re.compile(r"(\d{8})?-?(\d{8})?")
_WILD: Final = re.compile(r"[*?\\]")


@dataclass(frozen=True)
class Wanted:
    """One question to the archive.

    Parameters
    ----------
    filters : attributes by keyword, of the study.
    line : of the list; 0 where it comes from the command line.
    """

    filters: tuple[tuple[str, str], ...]
    line: int = 0

    @property
    def words(self) -> str:
        """As a message names it: by its place in the list, since the value may be a patient's."""
        return f"line {self.line}" if self.line else "the query"


def read_list(file: Path) -> list[Wanted]:
    """The rows of a CSV with columns of patients, accession numbers or study UIDs, joined by "and".

    Raises
    ------
    InputError : it cannot be read, has no such column, or a row is empty or asks with wildcards.
    """
    remedy = "give a CSV with a column patient_id, accession_number or study_uid"
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            sample = stream.read(4096)
            stream.seek(0)
            delimiter = ";" if sample.split("\n")[0].count(";") > sample.split("\n")[0].count(",") else ","
            rows = list(csv.reader(stream, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(file, "it cannot be read as CSV in UTF-8", remedy) from error
    head = [re.sub(r"[\W_]+", "", name).lower() for name in rows[0]] if rows else []
    places = {place: _COLUMNS[name] for place, name in enumerate(head) if name in _COLUMNS}
    if not places:
        raise InputError(file, "it has no column that identifies a study", remedy)
    found: dict[tuple[tuple[str, str], ...], Wanted] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        filters = tuple(
            (key, row[place].strip())
            for place, key in places.items()
            if place < len(row) and row[place].strip()
        )
        if not filters:
            raise InputError(file, f"line {line} names no study", "fill it in, or remove the line")
        if any(_WILD.search(value) for _, value in filters):
            problem = f"line {line} holds *, ? or \\, which archives treat as wildcards"
            raise InputError(file, problem, "name one study per line")
        found.setdefault(filters, Wanted(filters, line))
    if not found:
        raise InputError(file, "it has no rows", remedy)
    return list(found.values())


def query(modality: str, date: str | None, description: str | None) -> Wanted:
    """A question by modality, date and description.

    Parameters
    ----------
    date : `20240131`, `20240101-20240131`, `20240101-` or `-20240131`.
    description : of the study; `*` stands for anything.

    Raises
    ------
    UsageError : it asks for everything, or the date is none.
    """
    if not date and not description:
        raise UsageError(
            "a query needs --date or --description; without them it would ask for the whole archive."
        )
    if date and (not _DATE.fullmatch(date) or not re.search(r"\d", date)):
        raise UsageError(f"--date {date}: give YYYYMMDD, YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD.")
    more = (("StudyDate", date), ("StudyDescription", description))
    return Wanted((("ModalitiesInStudy", modality), *((key, value) for key, value in more if value)))


CSV: Final = "pull.csv"
JSON: Final = "pull.json"
Answer = TypeVar("Answer")
Status = Literal["ok", "already_there", "incomplete", "failed", "not_found"]


@dataclass(frozen=True)
class PulledRow:
    """What became of one series, or of a question that found none.

    Parameters
    ----------
    wanted : which question: its line in the list.
    folder : of the series below the folder of the pull; made of hashes.
    expected, arrived : instances; None where the archive does not say how many there are.
    """

    wanted: str
    status: Status
    reason: str = ""
    folder: str = ""
    expected: int | None = None
    arrived: int = 0


@dataclass(frozen=True)
class PullSummary:
    """What a pull ended with."""

    rows: tuple[PulledRow, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many series and questions of each status."""
        every = [row.status for row in self.rows]
        return {status: every.count(status) for status in get_args(Status) if status in every}

    @property
    def exit_code(self) -> int:
        """0 where everything that was asked for is there."""
        return int(any(row.status in ("incomplete", "failed", "not_found") for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"exit_code": self.exit_code, "counts": self.counts, "series": [asdict(r) for r in self.rows]}


@dataclass(frozen=True)
class Choice:
    """Which series of a study are taken.

    Parameters
    ----------
    modality : of the series.
    body_parts : in upper case; empty is any. A series that does not say is taken.
    rate : instances a second at most; 0 is as fast as the archive gives.
    tries : for each series and question, where the reason may pass by itself.
    """

    modality: str = "CT"
    body_parts: tuple[str, ...] = ()
    rate: float = 0.0
    tries: int = 3

    def takes(self, found: FoundSeries) -> bool:
        """Whether a series is wanted."""
        part = found.body_part
        return found.modality == self.modality and (
            not self.body_parts or not part or part in self.body_parts
        )


@dataclass
class _Pull:
    archive: Archive
    owned: Owned
    choice: Choice
    on_row: Callable[[PulledRow], None]
    sleep: Callable[[float], None]
    done: set[str] = field(default_factory=set)
    rows: list[PulledRow] = field(default_factory=list)

    def take(self, wanted: Wanted) -> None:
        """Every series that a question finds."""
        try:
            studies = self._again(lambda: self.archive.studies(dict(wanted.filters)))
            series = [s for uid in studies for s in self._again(partial(self.archive.series, uid))]
        except PeerError as error:
            self._tell(PulledRow(wanted.words, "failed", str(error)))
            if not error.passing:
                raise
            return
        taken = [s for s in series if self.choice.takes(s)]
        if not taken:
            other = ", ".join(sorted({s.modality for s in series}))
            fits_not = f"no {self.choice.modality} that fits, but {other}"
            reason = fits_not if other else "no such study in the archive"
            self._tell(PulledRow(wanted.words, "not_found", reason))
        for found in taken:
            if found.series not in self.done:
                self.done.add(found.series)
                self._tell(self._one(wanted, found))

    def _one(self, wanted: Wanted, found: FoundSeries) -> PulledRow:
        place = f"study-{_hash(found.study)}/series-{_hash(found.series)}"
        folder = self.owned.root / place
        there = {f.stem for f in folder.glob("*.dcm")}
        if there and found.instances is not None and len(there) >= found.instances:
            return PulledRow(wanted.words, "already_there", "", place, found.instances, len(there))
        make_folder(folder.parent, private=True)
        make_folder(folder, private=True)
        began, strangers = time.monotonic(), 0
        lack: list[OutputError] = []

        def keep(content: bytes) -> None:
            nonlocal strangers
            name = _instance_of(content, found.series)
            if name is None:
                strangers += 1
                return
            try:
                write_bytes(folder / f"{name}.dcm", content, private=True)
            except OutputError as error:
                lack.append(error)
                raise OSError(str(error)) from error
            there.add(name)

        try:
            told = self._again(lambda: self.archive.retrieve(found, keep))
        except PeerError as error:
            if lack:
                raise lack[0] from error
            return PulledRow(wanted.words, "failed", str(error), place, found.instances, len(there))
        if lack:
            raise lack[0]
        if self.choice.rate > 0:
            self.sleep(max(0.0, len(there) / self.choice.rate - (time.monotonic() - began)))
        return _judged(wanted.words, place, found.instances, len(there), told, strangers)

    def _again(self, ask: Callable[[], Answer]) -> Answer:
        for attempt in range(1, self.choice.tries + 1):
            try:
                return ask()
            except PeerError as error:
                if not error.passing or attempt == self.choice.tries:
                    raise
                self.sleep(pause_s(attempt))
        raise AssertionError("unreachable: tries is at least 1")

    def _tell(self, row: PulledRow) -> None:
        self.rows.append(row)
        self.on_row(row)
        self.write()

    def write(self) -> None:
        """Both tables, as far as the pull is."""
        head = [column.name for column in fields(PulledRow)]
        self.owned.write(self.owned.root / CSV, rows_bytes([head, *map(astuple, self.rows)]))
        rows = [asdict(row) for row in self.rows]
        self.owned.write_json(self.owned.root / JSON, {"format": 1, "series": rows})


def pull(
    archive: Archive,
    wanted: Sequence[Wanted],
    out: Path,
    choice: Choice,
    *,
    on_row: Callable[[PulledRow], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> PullSummary:
    """Retrieve every series that is wanted and not there yet, one after the other.

    The files lie in `out/study-*/series-*`, by names that tell nothing; `aiene run out` takes the folder.

    Raises
    ------
    PeerError : the archive refuses us for good; the tables tell of what came before.
    OutputError : nothing can be written.
    UsageError : a table of the user's lies in the place of ours.
    """
    make_folder(out, private=True)
    work = _Pull(archive, Owned(out), choice, on_row, sleep)
    work.owned.check(CSV, JSON)
    for question in wanted:
        work.take(question)
    return PullSummary(tuple(work.rows))


def _judged(
    words: str, place: str, expected: int | None, arrived: int, told: str, strangers: int
) -> PulledRow:
    more = f"; {strangers} instances of other series were not kept" if strangers else ""
    said = told or "the archive said success"
    status: Status = "incomplete" if told else "ok"
    reason = told + more if told else more.lstrip("; ")
    if expected is not None and arrived < expected:
        status, reason = "incomplete", f"{arrived} of {expected} instances came: {said}{more}"
    elif arrived == 0:
        status, reason = "failed", f"no instance came: {said}{more}"
    return PulledRow(words, status, reason, place, expected, arrived)


def _instance_of(content: bytes, series: str) -> str | None:
    """The name for an instance; None where it does not belong to the series."""
    try:
        with quiet():
            head = dcmread(
                BytesIO(content),
                stop_before_pixels=True,
                specific_tags=["SOPInstanceUID", "SeriesInstanceUID"],
            )
            mine = str(head.get("SeriesInstanceUID") or "") == series and head.get("SOPInstanceUID")
            return _hash(str(head.SOPInstanceUID)) if mine else None
    except DAMAGED:
        return None


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:20]
