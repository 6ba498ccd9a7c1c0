"""Own tables: everything that is understood stands in a mapping file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aiene.risk.importers.mapping import LENGTHS, Mapping
from aiene.risk.importers.source import PER_YEAR, ImportOptions, Source, days_between
from aiene.risk.table.columns import BY_NAME
from aiene.risk.table.endpoints import FAILURES
from aiene.risk.table.files import read_raw
from aiene.risk.table.values import rows_of, understood, without_totals, yes_or_no

TITLE = "own table by a mapping file"
_DAY = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{2,4}(?:[T ].*)?$"


def read(path: Path, options: ImportOptions) -> pd.DataFrame:
    """The raw table."""
    return read_raw(path, sheet=options.sheet)


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
        constant = pd.Series(word, index=source.raw.index, dtype="string")
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
        out["time_origin"] = pd.Series(origin, index=source.raw.index, dtype="string")
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
        source.findings.bad_values(
            f'{header} holds "{texts[bad].iloc[0]}" in {rows_of(bad)}, not a date like {mapping.date_format}',
            "state in the mapping how dates are written (date_format)",
            column,
        )
    return days


def _refuse_dates(source: Source, header: str) -> None:
    """A time that holds days of the calendar needs the day on which the clock starts."""
    texts = source.text(header)
    days = texts.str.contains(_DAY, na=False).to_numpy(dtype=bool)
    if days.any():
        problem = (
            f'{source.find(header)} holds the day "{texts[days].iloc[0]}" in {rows_of(days)}, not a time'
        )
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
        days = days_between(
            _days(source, name, header, mapping), _days(source, name, mapping.origin_date, mapping)
        )
        years = pd.Series(days / PER_YEAR["days"])
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
