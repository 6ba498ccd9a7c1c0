"""Own tables: everything that is understood stands in a mapping file.

It tells which header is which column, and states codes, units and the origin of times.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from aiene.errors import InputError
from aiene.risk.importers.source import PER_YEAR, ImportOptions, Source, days_between, same_header
from aiene.risk.table.columns import BY_NAME, COLUMNS, EXTRA_COLUMNS, Column
from aiene.risk.table.endpoints import FAILURES
from aiene.risk.table.values import listed, rows_of, understood, without_totals, yes_or_no

Unit = Literal["days", "months", "years"]
LENGTHS: dict[str, float] = {"cm": 1.0, "mm": 10.0}
"""How many of a unit make a centimetre."""

_AI = ("n_ai_ene", "n_ai_nodes", "ai_model", "ai_threshold", "ai_ene_source")


class Mapping(BaseModel):
    """A mapping file.

    Parameters
    ----------
    unit : of all times; needed as soon as one is mapped.
    units : of single columns instead: days, months or years of a time, cm or mm of a size.
    origin : when the clock starts.
    origin_date : header of the day on which it starts; the mapped times are then days of the calendar, and a
        failure without a day is followed to `os_time`.
    date_format : how the days are written, such as "%d/%m/%Y"; 2026-11-30 unless it is said.
    sheet : of a workbook.
    columns : canonical column -> header of the table.
    values : canonical column -> code of the table -> canonical word; an empty word means missing.
    constants : canonical column -> the same word for every patient.
    keep : further columns of the table to carry along.
    headers : for the importer of a collection: header it asks for -> header of this copy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
    unit: Unit | None = None
    units: dict[str, Literal["days", "months", "years", "cm", "mm"]] = {}
    origin: Literal["diagnosis", "rt_start", "rt_end"] | None = None
    origin_date: str | None = None
    date_format: str = "%Y-%m-%d"
    sheet: str | None = None
    columns: dict[str, str] = {}
    values: dict[str, dict[str, str | int | float]] = {}
    constants: dict[str, str] = {}
    keep: list[str] = []
    headers: dict[str, str] = {}


def read_mapping(path: Path) -> Mapping:
    """A mapping file.

    Raises
    ------
    InputError : it is no mapping, or names a column that does not exist.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        mapping = Mapping.model_validate(content)
    except OSError as error:
        raise InputError(path, "it cannot be read", "name a mapping file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, f"it is not TOML ({error})", "write one with --template") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"it is not a mapping file ({where}: {first['msg'][0].lower()}{first['msg'][1:]})"
        raise InputError(path, problem, "write one with --template") from error
    named = {*mapping.columns, *mapping.values, *mapping.constants, *mapping.units}
    foreign = sorted(named - set(BY_NAME))
    if foreign:
        remedy = "the file that --template writes lists the columns"
        raise InputError(path, f"there is no canonical column {listed(foreign)}", remedy)
    return mapping


def template(headers: Sequence[str] = ()) -> str:
    """A mapping file to fill in; with the headers of a table, those of canonical names are filled.

    Parameters
    ----------
    headers : of the user's table.
    """
    known = {same_header(header).replace(" ", "_"): header for header in headers}
    yours = "".join(f"\n#   {header}" for header in headers)
    lines = [
        _line(column, known.get(column.name))
        for column in (*COLUMNS, *EXTRA_COLUMNS)
        if column.name not in (*_AI, "time_origin")
    ]
    text = (resources.files("aiene.risk.importers") / "mapping_template.toml").read_text(encoding="utf-8")
    text = text.replace("@headers\n", f"\n# Your table has:{yours}\n" if headers else "")
    return text.replace("@columns", "\n".join(lines))


def _line(column: Column, header: str | None) -> str:
    words = f": {', '.join(column.words)}" if column.words else ""
    filled = f'{column.name} = "{header}"' if header else f'# {column.name} = ""'
    return f"{filled:<34}# {column.meaning}{words}"


TITLE = "own table by a mapping file"
_DAY = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{2,4}(?:[T ].*)?$"


def build_by(source: Source, options: ImportOptions, mapping: Mapping) -> pd.DataFrame:
    """The canonical columns that a mapping names.

    Raises
    ------
    InputError : a header that is not there, a time without a unit, or a code that is not explained.
    """
    if "patient_id" not in mapping.columns:
        raise source.findings.refuse("the mapping has no patient_id under [columns]", "name its header")
    source.need(*mapping.columns.values(), *mapping.keep, *filter(None, [mapping.origin_date]))
    header = str(source.find(mapping.columns["patient_id"]))
    source.raw = without_totals(source.raw, header, source.findings)
    out = {name: _column(source, name, header, mapping) for name, header in mapping.columns.items()}
    for name, word in mapping.constants.items():
        constant = source.constant(word)
        if name.startswith("edition_"):
            letter = name[-1]
            given = [out[c] for c in (f"{letter}7", f"{letter}8") if c in out]
            constant = constant.where(pd.concat(given, axis=1).notna().any(axis=1)) if given else constant
        out[name] = constant
        source.record(name, ("constant",), f"{word} for every patient", constant)
    out |= _followed_to_the_end(out) if mapping.origin_date else {}
    origin = options.origin or mapping.origin
    timed = [name for name in out if name.endswith("_time")]
    if timed and origin is None and "time_origin" not in out:
        remedy = 'write origin = "diagnosis", "rt_start" or "rt_end"'
        raise source.findings.refuse("the mapping does not state when follow-up starts", remedy)
    if origin is not None:
        out["time_origin"] = source.constant(origin)
    for header in mapping.keep:
        out[f"own_{header}" if header in BY_NAME else header] = source.text(header)
    return pd.DataFrame(out)


def _followed_to_the_end(out: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """Times of failures: their own day where they happened, else that of death or the last follow-up."""
    found = {}
    for name in FAILURES:
        time, event = out.get(f"{name}_time"), out.get(f"{name}_event")
        if time is not None and event is not None and "os_time" in out:
            free = understood(event, yes_or_no)[0].map(lambda happened: happened is False)
            found[f"{name}_time"] = time.where(~(free & time.isna()), out["os_time"])
    return found


def _days(source: Source, column: str, header: str, mapping: Mapping) -> pd.Series:
    texts = source.text(header)
    days = pd.to_datetime(texts, format=mapping.date_format, errors="coerce")
    bad = (texts.notna() & days.isna()).to_numpy(dtype=bool)
    if bad.any():
        shown = f'"{texts[bad].iloc[0]}" in {rows_of(bad)}, not a date like {mapping.date_format}'
        remedy = "state in the mapping how dates are written (date_format)"
        source.findings.bad_values(f"{header} holds {shown}", remedy, column)
    return days


def _refuse_dates(source: Source, header: str) -> None:
    """A time that holds days of the calendar needs the day on which the clock starts."""
    texts = source.text(header)
    days = texts.str.contains(_DAY, na=False).to_numpy(dtype=bool)
    if days.any():
        shown = f'the day "{texts[days].iloc[0]}" in {rows_of(days)}, not a time'
        problem = f"{source.find(header)} holds {shown}"
        remedy = "name the column of the start of follow-up in the mapping (origin_date, and date_format)"
        raise source.findings.refuse(problem, remedy)


def _column(source: Source, name: str, header: str, mapping: Mapping) -> pd.Series:
    column = BY_NAME[name]
    if name in mapping.values:
        codes = {code: str(word) for code, word in mapping.values[name].items()}
        plain = {word: word for word in column.words} if column.kind == "category" else {}
        known: dict[str, str | None] = {**plain, **codes}
        return source.coded(name, header, codes=known)
    if name.endswith("_time") and mapping.origin_date is not None:
        days = (_days(source, name, which, mapping) for which in (header, mapping.origin_date))
        years = pd.Series(days_between(*days) / PER_YEAR["days"])
        source.record(name, (header,), f"day of the calendar less {mapping.origin_date}, in years", years)
        return years
    if name.endswith("_time"):
        _refuse_dates(source, header)
        unit = mapping.units.get(name, mapping.unit)
        if unit not in PER_YEAR:
            remedy = 'write unit = "days", "months" or "years" in the mapping; it is not guessed'
            raise source.findings.refuse(f"the unit of {name} is not stated", remedy)
        return source.numbers(name, header, per=PER_YEAR[unit], unit=unit)
    if name.endswith("_cm"):
        unit = mapping.units.get(name, "cm")
        if unit not in LENGTHS:
            raise source.findings.refuse(f"the unit of {name} cannot be {unit}", "write cm or mm")
        return source.numbers(name, header, per=LENGTHS[unit], unit=unit, whole="cm")
    return source.plain(name, header, understood=column.kind)
