"""An archive by DICOMweb: STOW-RS, QIDO-RS and WADO-RS, with its answers in sentences."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from xml.etree import ElementTree

from pydicom.dataset import Dataset

from aiene.errors import need
from aiene.pacs.config import Peer, secret
from aiene.pacs.dimse import EXTRA, Delivery, Outgoing, PeerError, judge

_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_HTTP: Final = {
    401: ("it refuses our credentials (401)", "correct user and password_file, or token_file, of the peer"),
    403: ("it does not allow this (403)", "ask its administrator for permission"),
    404: ("there is no DICOMweb service at this address (404)", "correct the url of the peer"),
    413: ("the request is too large for it (413)", "raise its limit"),
    415: ("it does not accept DICOM files (415)", "check that the url is that of a DICOMweb service"),
}
_FIELDS: Final = {
    "studies": ["ModalitiesInStudy"],
    "series": ["NumberOfSeriesRelatedInstances", "BodyPartExamined"],
    "instances": None,
}
"""By level of a query, what an archive should tell beside what it tells by itself."""
_FAILED: Final = "00081198"  # FailedSOPSequence
_REFERENCED: Final = "00081199"  # ReferencedSOPSequence
_INSTANCE: Final = "00081155"  # ReferencedSOPInstanceUID
_REASON: Final = "00081197"  # FailureReason
_WARNING: Final = "00081196"  # WarningReason


class WebArchive:
    """A DICOMweb service.

    Raises
    ------
    MissingExtraError : dicomweb-client is not installed.
    InputError : a file of a secret or certificate cannot be used.
    """

    def __init__(self, peer: Peer) -> None:
        api = need("dicomweb_client.api", extra=EXTRA, purpose="Talking to an archive by DICOMweb")
        requests = need("requests", extra=EXTRA, purpose="Talking to an archive by DICOMweb")
        self._errors: Any = requests.exceptions
        self._peer = peer
        self._url = (peer.url or "").rstrip("/")
        session = requests.Session()
        session.trust_env = False  # an archive is in the house: no proxy of the environment, no .netrc
        if peer.user is not None and peer.password_file is not None:
            session.auth = (peer.user, secret(peer.password_file))
        if peer.token_file is not None:
            session.headers["Authorization"] = f"Bearer {secret(peer.token_file)}"
        if peer.tls is not None:
            peer.tls.context()  # says what is wrong with the files
            session.verify = str(peer.tls.ca) if peer.tls.ca else True
            if peer.tls.certificate is not None:
                session.cert = (str(peer.tls.certificate), str(peer.tls.key or peer.tls.certificate))
        self._session = session
        self._client = api.DICOMwebClient(url=self._url, session=session, timeout=peer.timeout_s)
        self._client.set_http_retry_params(retry=False)  # what is tried again, and when, we decide

    def send(self, objects: Sequence[Outgoing], on_delivery: Callable[[Delivery], None]) -> list[Delivery]:
        """Store objects, in one request a study, their bytes as they are.

        Raises
        ------
        PeerError : the service cannot be reached, or refuses the request as a whole.
        """
        done: list[Delivery] = []
        for study in dict.fromkeys(o.study for o in objects):
            mine = [o for o in objects if o.study == study]
            boundary = secrets.token_hex(16)
            with self._reaching():
                answer = self._session.post(
                    f"{self._url}/studies",
                    data=_parts(mine, boundary),
                    headers={
                        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                        "Accept": "application/dicom+json",
                    },
                    timeout=self._peer.timeout_s,
                )
            if answer.status_code not in (200, 202, 409):
                raise self._refusal(answer.status_code)
            for delivery in read_answer(mine, answer.status_code, answer.content):
                done.append(delivery)
                on_delivery(delivery)
        return done

    def there_already(self, objects: Sequence[Outgoing]) -> set[str] | None:
        """The SOP instance UIDs among `objects` that the archive has; None where it answers no queries."""
        found: set[str] = set()
        for study, series in dict.fromkeys((o.study, o.series) for o in objects):
            answers = self.find("instances", {}, study=study, series=series)
            if answers is None:
                return None
            found |= {str(a.get("SOPInstanceUID")) for a in answers}
        return found & {o.sop_instance for o in objects}

    def find(
        self, level: str, filters: Mapping[str, str], *, study: str | None = None, series: str | None = None
    ) -> list[Dataset] | None:
        """The answers to a query for `studies`, `series` or `instances`; None where none are answered.

        Raises
        ------
        PeerError : the service cannot be reached, or refuses.
        """
        search = getattr(self._client, f"search_for_{level}")
        within = [uid for uid in (study, series) if uid is not None]
        with self._reaching():
            try:
                rows = search(
                    *within, fields=_FIELDS[level], search_filters=dict(filters), get_remaining=True
                )
            except self._errors.HTTPError as error:
                code = error.response.status_code
                if code == 404 and study is not None:
                    return []  # Orthanc: no such study
                if code in (405, 501):
                    return None
                raise self._refusal(code) from error
        return [Dataset.from_json(row) for row in rows]

    def retrieve(self, study: str, series: str) -> Iterator[Dataset]:
        """The instances of a series, one after the other.

        Raises
        ------
        PeerError : the service cannot be reached, refuses, or breaks off.
        """
        anything = (("application/dicom", "*"),)  # as it is stored, compressed or not
        with self._reaching():
            try:
                yield from self._client.iter_series(study, series, media_types=anything)
            except self._errors.HTTPError as error:
                raise self._refusal(error.response.status_code) from error

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        errors, told = self._errors, partial(PeerError.of, self._peer)
        try:
            yield
        except errors.SSLError as error:
            raise told("its certificate or TLS is refused", "correct tls of the peer") from error
        except (errors.Timeout, errors.ChunkedEncodingError) as error:
            raise told("no answer in time", "check that it works", passing=True) from error
        except errors.ConnectionError as error:
            raise told("nothing answers there", "check host and port", passing=True) from error
        except (errors.InvalidURL, errors.JSONDecodeError, ValueError) as error:
            problem = "its answer is not that of a DICOMweb service"
            raise told(problem, "correct the url of the peer") from error

    def _refusal(self, code: int) -> PeerError:
        problem, remedy = _HTTP.get(code, (f"it refused the request ({code})", "look at its log"))
        return PeerError.of(self._peer, problem, remedy, passing=code in _PASSING)


def _parts(objects: Sequence[Outgoing], boundary: str) -> Iterator[bytes]:
    """The body of a STOW-RS request, file by file, so that memory holds one of them."""
    for item in objects:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield item.file.read_bytes()
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def read_answer(objects: Sequence[Outgoing], code: int, content: bytes) -> list[Delivery]:
    """What became of each object, by the answer to a STOW-RS request (PS3.18 10.5.3), as JSON or XML.

    An object that a 200 does not mention counts as accepted; one that a 202 or 409 does not mention, as not
    reached: nobody said that it is there.
    """
    told = _items_of(content)
    failed = {item.get(_INSTANCE): item.get(_REASON) for item in told[_FAILED]}
    stored = {item.get(_INSTANCE): item.get(_WARNING) for item in told[_REFERENCED]}
    found = []
    for item in objects:
        if item.sop_instance in failed:
            status, reason = judge(_number(failed[item.sop_instance], 0x0110))
            # a failure is one, whatever number comes with it; a duplicate is there
            status = status if status in ("there", "unreached") else "refused"
            found.append(Delivery(item, status, reason or "it refused the object"))
        elif item.sop_instance in stored:
            warning = stored[item.sop_instance]
            number = _number(warning, 0)
            found.append(Delivery(item, "accepted", f"with warning {number:04X}" if number else ""))
        elif code == 200:
            found.append(Delivery(item, "accepted"))
        else:
            found.append(Delivery(item, "unreached", f"its answer ({code}) does not mention this object"))
    return found


def _items_of(content: bytes) -> dict[str, list[dict[str, Any]]]:
    """The items of both sequences, each as the first value of its attributes by tag."""
    try:
        rows = json.loads(content)
        top = rows[0] if isinstance(rows, list) and rows else rows
        return {
            tag: [
                {t: (v.get("Value") or [None])[0] for t, v in item.items()}
                for item in top.get(tag, {}).get("Value", [])
            ]
            for tag in (_FAILED, _REFERENCED)
        }
    except (ValueError, AttributeError, TypeError, IndexError):
        return _items_of_xml(content)


def _items_of_xml(content: bytes) -> dict[str, list[dict[str, Any]]]:
    """The same of PS3.19's XML; empty where it is none. Entities are not expanded: a DTD is refused."""
    found: dict[str, list[dict[str, Any]]] = {_FAILED: [], _REFERENCED: []}
    if b"<!" in content:
        return found
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return found
    for sequence in root.iter():
        tag = sequence.get("tag", "")
        if tag not in found:
            continue
        for item in sequence:
            values = {a.get("tag", ""): "".join(a.itertext()).strip() for a in item}
            found[tag].append(values)
    return found


def _number(value: Any, otherwise: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return otherwise
