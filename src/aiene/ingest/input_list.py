"""An input list: a CSV table that names the CTs of a run, whose they are, and their masks.

| column | what |
| --- | --- |
| `image` | a CT: a file, folder or archive; its path from the folder of the list, or from the root |
| `case_id` (or `case`) | what the case is called; empty: by the usual rule |
| `patient_id` (or `patient`) | whose CT it is |
| `date` | of the CT, YYYY-MM-DD; empty: as the DICOM header says |
| `treatment` | first day of the patient's treatment, YYYY-MM-DD |
| `mask` | its own label map, as in the folder of `--masks` |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from aiene.csv_tables import Row, Table, plain_id, read_table
from aiene.errors import InputError, Name, Said, TableError, case_name, file_name, joined, ours, said
from aiene.ingest.case import Case, Refusal, iso_date
from aiene.ingest.case_id import case_id, safe

_REMEDY: Final = "give a CSV with a column image and, optionally, case_id, patient_id, date, treatment, mask"
_OTHER_NAMES: Final = {"case": "case_id", "patient": "patient_id"}
_COLUMNS: Final = ("image", "case_id", "patient_id", "date", "treatment", "mask")


@dataclass(frozen=True)
class Entry:
    """One row of an input list.

    Parameters
    ----------
    line : of the file, for messages.
    image : where the CT lies.
    shown : the same, as it is written in the list.
    case_id, patient : empty where the list does not say.
    date, treatment : YYYY-MM-DD; empty where the list does not say.
    mask : None where the list names none.
    """

    line: int
    image: Path
    shown: str
    case_id: str = ""
    patient: str = ""
    date: str = ""
    treatment: str = ""
    mask: Path | None = None


def is_input_list(source: Path) -> bool:
    """Whether an input is a list of CTs, by its name."""
    return source.suffix.lower() in (".csv", ".tsv") and source.is_file()


def read_input_list(source: Path) -> list[Entry]:
    """The rows of an input list.

    Raises
    ------
    InputError : it cannot be read, has no column `image` or no row, or a column that is none of a list's.
    TableError : every row that cannot be used, all at once: no image, a date that is none, an id or an image
        twice, a mask in some rows only.
    """
    table = read_table(source, _REMEDY)
    columns = {_OTHER_NAMES.get(name.casefold(), name.casefold()): name for name in table.columns if name}
    if "image" not in columns:
        raise InputError(source, "the column image is missing", _REMEDY)
    if len(columns) < len([name for name in table.columns if name]):
        raise InputError(source, "two of its columns mean the same", "keep case_id, or case; not both")
    if not table.rows:
        raise InputError(source, "it has no rows", _REMEDY)
    problems: list[Said] = []
    entries = [_entry(table, row, columns, problems) for row in table.rows]
    problems += _twice(source, entries)
    without = [entry.line for entry in entries if entry.mask is None]
    if without and len(without) < len(entries):
        which = joined(", ", [*without[:5], *([ours("...")] if len(without) > 5 else [])])
        problems.append(
            said("{}: no mask in line {}; give a mask for every case, or for none.", file_name(source), which)
        )
    if problems:
        raise TableError(problems)
    return entries


def _entry(table: Table, row: Row, columns: dict[str, str], problems: list[Said]) -> Entry:
    values = {name: row.values[columns[name]] for name in _COLUMNS if name in columns}
    here = said("{}, line {}", file_name(table.file), row.line)
    if not values["image"]:
        problems.append(said("{}: image is empty; name the CT, or remove the row.", here))
    days = {}
    for name in ("date", "treatment"):
        written = values.get(name, "")
        days[name] = iso_date(written)
        if written and not days[name]:
            template = "{}: {} is '{}'; write it as YYYY-MM-DD."
            problems.append(said(template, here, ours(name), case_name(written)))
    folder = table.file.resolve().parent
    mask = values.get("mask", "")
    return Entry(
        row.line,
        folder / values["image"],
        values["image"],
        plain_id(values.get("case_id", "")),
        values.get("patient_id", ""),
        days["date"],
        days["treatment"],
        folder / mask if mask else None,
    )


def _twice(source: Path, entries: list[Entry]) -> list[Said]:
    """Ids and images that stand in two rows: which of them is meant, nobody can say."""
    problems: list[Said] = []
    first: dict[tuple[str, str], int] = {}
    for entry in entries:
        for what, value in (("case_id", entry.case_id.casefold()), ("image", str(entry.image))):
            if not value or (what == "image" and not entry.shown):
                continue
            before = first.setdefault((what, value), entry.line)
            if before != entry.line:
                written = entry.case_id if what == "case_id" else entry.shown
                here = said(
                    "{}, line {}: the {} {}", file_name(source), entry.line, ours(what), Name("file", written)
                )
                problems.append(said("{} is already in line {}.", here, before))
    return problems


def listed_case(source: Path, entry: Entry, found: list[Case | Refusal] | InputError) -> Case | Refusal:
    """The case of a row, from what was found at its image: one CT, or a reason why there is none."""
    item: Case | Refusal
    if isinstance(found, InputError):
        item = Refusal(safe(entry.image.name), found.told)
    elif len(found) > 1:
        names = joined(", ", [file_name(item.source) for item in found[:3]])
        more = said("") if len(found) <= 3 else said(" and {} more", len(found) - 3)
        told = said(
            "{}, line {}: {} holds {} CTs ({}{}); list one per row.",
            file_name(source),
            entry.line,
            file_name(entry.image),
            len(found),
            names,
            more,
        )
        item = Refusal(found[0].case_id, told)
    else:
        item = found[0]
        if entry.image.is_relative_to(source.resolve().parent):  # as a folder of the same files would name it
            place = case_id(source.resolve().parent, entry.image, is_file=entry.image.is_file())
            item = replace(item, case_id=place)
    named = replace(
        item,
        case_id=safe(entry.case_id) if entry.case_id else item.case_id,
        patient=safe(entry.patient) if entry.patient else "",
        source=entry.shown,
        date=entry.date or item.date,
        treatment=entry.treatment,
    )
    return replace(named, mask=entry.mask) if isinstance(named, Case) else named
