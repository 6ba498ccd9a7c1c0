"""An archive to pull from: which series it has, and a series of it into files; by DIMSE or by DICOMweb."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from pydicom.dataset import Dataset

from aiene.errors import UsageError
from aiene.export.identity import encoded
from aiene.ingest.dicom.header import quiet
from aiene.pacs.config import Peer
from aiene.pacs.dimse import PeerError, associated, context, matches, netdicom
from aiene.pacs.web import WebArchive

FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
GET: Final = "1.2.840.10008.5.1.4.1.2.2.3"
MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
_CT: Final = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
)
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
        query = _query("STUDY", filters, "StudyInstanceUID")
        return [str(found.StudyInstanceUID) for found in self._find(query) if "StudyInstanceUID" in found]

    def series(self, study: str) -> list[FoundSeries]:
        empty = ("SeriesInstanceUID", "Modality", "BodyPartExamined", "NumberOfSeriesRelatedInstances")
        return [
            found_series(study, answer)
            for answer in self._find(_query("SERIES", {"StudyInstanceUID": study}, *empty))
        ]

    def _find(self, query: Dataset) -> list[Dataset]:
        with associated(self.peer, self.own_title, [context(FIND)]) as found:
            return matches(found, query)


class _Get(_Dimse):
    def retrieve(self, wanted: FoundSeries, keep: Keep) -> str:
        from pynetdicom import build_role, evt
        from pynetdicom._globals import ALL_TRANSFER_SYNTAXES

        contexts = [context(GET), *(context(ct, *ALL_TRANSFER_SYNTAXES) for ct in _CT)]
        roles = [build_role(ct, scp_role=True) for ct in _CT]
        handlers = [(evt.EVT_C_STORE, _keeper(keep))]
        with associated(self.peer, self.own_title, contexts, handlers=handlers, negotiation=roles) as found:
            return _told(found.send_c_get(_series_query(wanted), GET))


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
        for storage in _CT:
            entity.add_supported_context(storage, ALL_TRANSFER_SYNTAXES)
        entity.require_called_aet = True
        try:
            self._server = entity.start_server(
                self._port, block=False, evt_handlers=[(evt.EVT_C_STORE, self._on_store)]
            )
        except OSError as error:
            raise UsageError(f"--port {self._port[1]}: it cannot be opened ({error.strerror}).") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def retrieve(self, wanted: FoundSeries, keep: Keep) -> str:
        self._keep = keep
        try:
            with associated(self.peer, self.own_title, [context(MOVE)]) as found:
                return _told(found.send_c_move(_series_query(wanted), self.own_title, MOVE))
        finally:
            self._keep = lambda _: None

    def _on_store(self, event: Any) -> int:
        return int(_keeper(self._keep)(event))


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
    return FoundSeries(
        study,
        str(answer.get("SeriesInstanceUID") or ""),
        str(answer.get("Modality") or "").upper(),
        str(answer.get("BodyPartExamined") or "").upper(),
        count,
    )


def _query(level: str, filters: Mapping[str, str], *empty: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword in empty:
        setattr(query, keyword, "" if keyword != "NumberOfSeriesRelatedInstances" else None)
    if any(not value.isascii() for value in filters.values()):
        query.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in filters.items():
        setattr(query, keyword, value)
    return query


def _series_query(wanted: FoundSeries) -> Dataset:
    filters = {"StudyInstanceUID": wanted.study, "SeriesInstanceUID": wanted.series}
    return _query("SERIES", filters)


def _keeper(keep: Keep) -> Callable[[Any], int]:
    def on_store(event: Any) -> int:
        try:
            keep(event.encoded_dataset())
        except OSError:
            return 0xA700
        return 0x0000

    return on_store


def _told(answers: Iterator[tuple[Dataset, Any]]) -> str:
    """What a C-GET or C-MOVE ended with; empty where all is well.

    Raises
    ------
    PeerError : it broke off, refused, or does not know us.
    """
    try:
        with quiet():
            last = Dataset()
            for status, _ in answers:
                last = status
    except RuntimeError as error:
        raise PeerError("the archive ended the connection", "try again", passing=True) from error
    code = last.get("Status")
    if code is None or code in _PENDING:
        raise PeerError("the archive ended the connection", "try again", passing=True)
    if code == 0xA801:
        raise PeerError(
            "the archive does not know where to send (move destination unknown)",
            "enter our AE title, host and port in its configuration",
        )
    failed = int(last.get("NumberOfFailedSuboperations") or 0)
    if code == 0x0000 and not failed:
        return ""
    comment = str(last.get("ErrorComment") or "")
    return f"it ended with status {code:04X}, {failed} failed" + (f" ({comment})" if comment else "")
