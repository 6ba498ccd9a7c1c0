"""The mapping file of an own table: which header is which column, codes, units and origin; all stated."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from aiene.errors import InputError
from aiene.risk.importers.source import same_header
from aiene.risk.table.columns import BY_NAME, COLUMNS, EXTRA_COLUMNS, Column
from aiene.risk.table.values import listed

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
    lines = [
        "# Which column of your table is which: fill in, and remove the # in front.",
        "# Then: aiene risk import TABLE --from generic --map THIS_FILE -o OUT.csv",
        "",
        '# unit = "days"          # of all times: days, months or years; not guessed',
        '# origin = "rt_start"    # start of follow-up: diagnosis, rt_start or rt_end',
        '# origin_date = "RT start"     # if times are dates: header of the column with the start date',
        '# date_format = "%d/%m/%Y"     # how such dates are written (default: 2026-11-30)',
        '# sheet = "Sheet1"       # of a workbook',
        "# keep = []              # further columns to copy",
    ]
    if headers:
        lines += ["", "# Your table has:", *(f"#   {header}" for header in headers)]
    lines += ["", "[columns]"]
    for column in (*COLUMNS, *EXTRA_COLUMNS):
        if column.name not in (*_AI, "time_origin"):
            lines.append(_line(column, known.get(column.name)))
    lines += [
        "",
        "# the same for every patient",
        "[constants]",
        '# site = "oropharynx"',
        '# edition_t = "7"',
        '# edition_n = "7"',
        "",
        "# units of single columns that differ from the one above (sizes: cm or mm)",
        "[units]",
        '# largest_node_cm = "mm"',
        "",
        "# what your codes mean;  means missing",
        "# [values.os_event]",
        "# 1 = 0      # 1 in your table is censored",
        "# 2 = 1      # 2 in your table is dead",
        "# [values.hpv]",
        '# "p16 pos" = "positive"',
        '# "unclear" = ""',
        "",
    ]
    return "\n".join(lines)


def _line(column: Column, header: str | None) -> str:
    words = f": {', '.join(column.words)}" if column.words else ""
    filled = f'{column.name} = "{header}"' if header else f'# {column.name} = ""'
    return f"{filled:<34}# {column.meaning}{words}"
