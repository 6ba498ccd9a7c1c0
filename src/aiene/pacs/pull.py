"""Series from an archive into a folder: counted as they arrive, taken up where a pull was ended.

What is wanted is a list of patients, accession numbers or studies, or a query.
"""

from __future__ import annotations

import csv
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydicom import dcmread

from aiene.csv_tables import rows_bytes
from aiene.errors import InputError, OutputError, UsageError
from aiene.ingest.dicom.header import DAMAGED, quiet
from aiene.pacs.archive import Archive, FoundSeries
from aiene.pacs.dimse import PeerError
from aiene.pacs.push import pause_s
from aiene.results.atomic import make_folder, write_bytes
from aiene.results.ownership import Owned

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
            raise InputError(
                file,
                f"line {line} holds *, ? or \\, which archives treat as wildcards",
                "name one study per line",
            )
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
    filters = [("ModalitiesInStudy", modality)]
    if date:
        filters.append(("StudyDate", date))
    if description:
        filters.append(("StudyDescription", description))
    return Wanted(tuple(filters))


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
    counts: dict[str, int] = field(default_factory=dict)

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


class _Pull:
    def __init__(
        self,
        archive: Archive,
        out: Path,
        choice: Choice,
        on_row: Callable[[PulledRow], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._archive, self._out, self._choice = archive, out, choice
        self._on_row, self._sleep = on_row, sleep
        self._owned = Owned(out)
        self._done: set[str] = set()
        self.rows: list[PulledRow] = []

    def take(self, wanted: Wanted) -> None:
        """Every series that a question finds."""
        try:
            studies = self._again(lambda: self._archive.studies(dict(wanted.filters)))
            series = [s for study in studies for s in self._series(study)]
        except PeerError as error:
            self._tell(PulledRow(wanted.words, "failed", str(error)))
            if not error.passing:
                raise
            return
        taken = [s for s in series if self._choice.takes(s)]
        if not taken:
            other = ", ".join(sorted({s.modality for s in series})) if series else ""
            reason = (
                f"no {self._choice.modality} that fits, but {other}"
                if other
                else "no such study in the archive"
            )
            self._tell(PulledRow(wanted.words, "not_found", reason))
        for found in taken:
            if found.series not in self._done:
                self._done.add(found.series)
                self._tell(self._one(wanted, found))

    def _series(self, study: str) -> list[FoundSeries]:
        return self._again(lambda: self._archive.series(study))

    def _one(self, wanted: Wanted, found: FoundSeries) -> PulledRow:
        place = f"study-{_hash(found.study)}/series-{_hash(found.series)}"
        folder = self._out / place
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
            told = self._again(lambda: self._archive.retrieve(found, keep))
        except PeerError as error:
            if lack:
                raise lack[0] from error
            return PulledRow(wanted.words, "failed", str(error), place, found.instances, len(there))
        if lack:
            raise lack[0]
        self._throttle(len(there), time.monotonic() - began)
        return _judged(wanted.words, place, found.instances, len(there), told, strangers)

    def _throttle(self, instances: int, took_s: float) -> None:
        if self._choice.rate > 0:
            self._sleep(max(0.0, instances / self._choice.rate - took_s))

    def _again(self, ask: Callable[[], Answer]) -> Answer:
        for attempt in range(1, self._choice.tries + 1):
            try:
                return ask()
            except PeerError as error:
                if not error.passing or attempt == self._choice.tries:
                    raise
                self._sleep(pause_s(attempt))
        raise AssertionError("unreachable: tries is at least 1")

    def _tell(self, row: PulledRow) -> None:
        self.rows.append(row)
        self._on_row(row)
        self.write()

    def write(self) -> None:
        """Both tables, as far as the pull is."""
        rows = [asdict(row) for row in self.rows]
        head = list(PulledRow.__dataclass_fields__)
        self._owned.write(self._out / CSV, rows_bytes([head, *([row[n] for n in head] for row in rows)]))
        self._owned.write_json(self._out / JSON, {"format": 1, "series": rows})


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
    Owned(out).check(CSV, JSON)
    work = _Pull(archive, out, choice, on_row, sleep)
    for question in wanted:
        work.take(question)
    every = [row.status for row in work.rows]
    order = ("ok", "already_there", "incomplete", "failed", "not_found")
    counts = {str(status): every.count(status) for status in order if status in every}
    return PullSummary(tuple(work.rows), counts)


def _judged(
    words: str, place: str, expected: int | None, arrived: int, told: str, strangers: int
) -> PulledRow:
    """What to say of a series, by what came and not by what the archive said."""
    more = f"; {strangers} instances of other series were not kept" if strangers else ""
    if expected is not None and arrived < expected:
        said = told or "the archive said success"
        return PulledRow(
            words,
            "incomplete",
            f"{arrived} of {expected} instances came: {said}{more}",
            place,
            expected,
            arrived,
        )
    if arrived == 0:
        return PulledRow(
            words, "failed", f"no instance came: {told or 'the archive said success'}{more}", place, expected
        )
    if told:
        return PulledRow(words, "incomplete", told + more, place, expected, arrived)
    return PulledRow(words, "ok", more.lstrip("; "), place, expected, arrived)


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
