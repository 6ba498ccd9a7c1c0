"""What a pull asks for: a list of patients, accession numbers or studies, or a query."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from aiene.errors import InputError, UsageError

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
