"""Reading the canonical table, and making any table with its column names complete."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from aiene.hashing import file_sha256
from aiene.risk.table.checks import (
    check_editions,
    check_endpoints,
    check_patients,
    check_plausible,
    filled,
    placed,
    within_follow_up,
)
from aiene.risk.table.columns import BY_NAME, COLUMNS, SITES, Column
from aiene.risk.table.endpoints import with_disease_free_survival
from aiene.risk.table.files import as_text, read_raw
from aiene.risk.table.values import Findings, listed, number, rows_of, typed, without_totals


def read_table(
    path: Path,
    *,
    lenient: bool = False,
    default_site: str | None = None,
    sheet: str | None = None,
    edition: str | None = None,
) -> pd.DataFrame:
    """A canonical table from a file, typed, checked, with every canonical column.

    Parameters
    ----------
    path : .csv, .tsv, .xlsx or .parquet with one row per patient and times in years.
    lenient : values that cannot be right count as missing, with a warning, instead of being refused.
    default_site : site of every patient where the table has no such column.
    sheet : of a workbook.
    edition : 7 or 8: of T and N, where the table does not say it.

    Returns
    -------
    Columns as `COLUMNS`, then the table's own; `attrs` holds `warnings`, `notes`, `dropped`, `source`,
    `source_name` and `source_sha256`.

    Raises
    ------
    InputError : it cannot be read, a patient appears twice, or a value cannot be right.
    TableError : more than one such problem; all are told at once.
    """
    raw = read_raw(path, sheet=sheet)
    if not any(_plain(name) == "patient_id" for name in raw.columns):
        remedy = (
            "is it a canonical table? For another format use --from (aiene risk import --help), and for your "
            "own write a mapping file with aiene risk import --template"
        )
        if sum(str(c).startswith("Unnamed") for c in raw.columns) > len(raw.columns) / 2:
            remedy = "its first row is not a header: remove the rows above the header, and unmerge its cells"
        raise Findings(path.name).refuse("it has no column patient_id", remedy)
    table = complete(raw, name=path.name, lenient=lenient, default_site=default_site, edition=edition)
    table.attrs.update(source="canonical", source_name=path.name, source_sha256=file_sha256(path))
    return table


def complete(
    table: pd.DataFrame,
    *,
    name: str = "table",
    lenient: bool = False,
    default_site: str | None = None,
    edition: str | None = None,
) -> pd.DataFrame:
    """Any table with canonical names (text or typed), as `read_table` gives it.

    Raises
    ------
    InputError, TableError : see `read_table`.
    """
    findings = Findings(name, lenient, default_site=default_site, edition=edition)
    known = placed(_known_names(table, findings), findings)
    own = [str(name) for name in known if name not in BY_NAME]
    if own:
        findings.note(f"columns that are copied but not used: {listed(own, shown=8)}")
    return finish(known, findings)


def finish(table: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """Type, check and complete a table of canonical names; findings so far become part of its `attrs`.

    Raises
    ------
    InputError, TableError : see `read_table`.
    """
    texts = without_totals(_texts(_with_site(table, findings)), "patient_id", findings)
    texts = _pack_years_with_words(texts, findings)
    columns = {
        column.name: typed(texts[column.name], column, findings)
        if column.name in texts
        else _blank(column, len(texts))
        for column in COLUMNS
    }
    extra = {
        name: typed(texts[name], BY_NAME[name], findings) if name in BY_NAME else table[name]
        for name in texts.columns
        if name not in columns
    }
    out = filled(pd.DataFrame({**columns, **extra}), findings)
    check_patients(out, findings)
    check_editions(out, findings)
    out = check_endpoints(_derived(out, findings), findings)
    findings.raise_problems()
    out = within_follow_up(out, findings)
    out = with_disease_free_survival(out)
    check_plausible(out, findings)
    unnamed = out["n_ai_ene"].notna() & out["ai_ene_source"].isna()
    out["ai_ene_source"] = out["ai_ene_source"].mask(unnamed, "given")
    out.attrs = {
        "source": "canonical",
        "source_name": findings.name,
        "source_sha256": "",
        "warnings": list(findings.warnings),
        "notes": list(findings.notes),
        "dropped": list(findings.dropped),
    }
    return out


def _blank(column: Column, n: int) -> pd.Series:
    """A column of missing values."""
    return pd.Series([None] * n, dtype=column.dtype)


def _with_site(table: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """The table with the default site, where it has no site of its own."""
    site = findings.default_site
    if site is not None and site not in SITES:
        raise findings.refuse(f"no site is called {site}", f"sites are {', '.join(SITES)}")
    if "site" in table and table["site"].notna().any():
        return table
    if site is None:
        findings.warn(
            "it has no site, so nothing can be staged; use --default-site oropharynx if that is the site of "
            "all patients"
        )
        return table
    findings.note(f"site: {site} for every patient, as asked for")
    return table.assign(site=site)


def _plain(header: object) -> str:
    """A header in the spelling of the canonical ones: `Patient ID` is patient_id."""
    return re.sub(r"[\s.-]+", "_", str(header).strip().casefold())


def _known_names(table: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    folded = {name: _plain(name) for name in table.columns}
    known = {name: plain for name, plain in folded.items() if plain in BY_NAME}
    for plain in dict.fromkeys(known.values()):
        same = [str(name) for name in known if known[name] == plain]
        if len(same) > 1:
            raise findings.refuse(f"the columns {' and '.join(same)} are both {plain}", "keep one of them")
    return table.rename(columns=known).reset_index(drop=True)


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """Columns that are understood as text; numbers stay numbers, and so do the table's own columns."""
    wanted = [
        name
        for name in table.columns
        if name in BY_NAME
        and not (BY_NAME[name].kind == "float" and pd.api.types.is_float_dtype(table[name].dtype))
    ]
    out = table.copy()
    out[wanted] = as_text(table[wanted])
    return out


def _pack_years_with_words(texts: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """`<10` and the like in pack_years become a class where they decide one, else stay undecided."""
    if "pack_years" not in texts or pd.api.types.is_float_dtype(texts["pack_years"].dtype):
        return texts
    words = texts["pack_years"]
    bounded = words.str.match(r"^[<>≤≥]=?\s*\d").fillna(False).to_numpy(dtype=bool)
    if not bounded.any():
        return texts
    classes = words[bounded].map(bounded_class)
    out = texts.copy()
    if "pack_years_class" not in out:
        out["pack_years_class"] = pd.array([None] * len(out), dtype="string")
    out.loc[bounded, "pack_years_class"] = out.loc[bounded, "pack_years_class"].fillna(classes)
    out.loc[bounded, "pack_years"] = pd.NA
    findings.note(
        f"pack_years: bounds such as {words[bounded].iloc[0]} give only a class ({rows_of(bounded)})"
    )
    return out


def bounded_class(text: str) -> str | None:
    """The pack-years class that a bound decides: `<10` le10, `>20` gt10, `<20` none."""
    value = number(text.strip("<>≤≥= ")) if isinstance(text, str) else None
    if value is None:
        return None
    if text[0] in "<≤":
        return "le10" if value <= 10 else None
    strict = text[0] == ">" and "=" not in text
    return "gt10" if value > 10 or (value == 10 and strict) else None


def _derived(table: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """The class of the pack-years, and 0 pack-years for never smokers that have no number.

    The 0 serves regressions only and is marked in `pack_years_derived`; a class is never made from it.
    """
    out = table.copy()
    if "pack_years_derived" not in out:
        out["pack_years_derived"] = pd.array([False] * len(out), dtype="boolean")
    derived_before = out["pack_years_derived"].fillna(False).astype(bool)
    years = out["pack_years"].mask(derived_before).to_numpy(dtype=float)
    by_number = pd.array(np.where(years > 10, "gt10", "le10"), dtype="string")
    by_number[np.isnan(years)] = pd.NA
    given = out["pack_years_class"]
    differs = (given.notna() & (given != by_number)).fillna(False).to_numpy(dtype=bool)
    if differs.any():
        findings.warn(f"pack_years_class does not fit pack_years in {rows_of(differs)}; the number is taken")
    out["pack_years_class"] = pd.Series(by_number, index=out.index).fillna(given)
    never = ((out["smoking_status"] == "never") & out["pack_years"].isna()).fillna(False).astype(bool)
    never &= out["pack_years_class"].isna()
    if never.any():
        out.loc[never, "pack_years"] = 0.0
        out.loc[never, "pack_years_derived"] = True
        findings.note(
            f"pack_years: 0 for regressions where a never smoker has no number ({rows_of(never)}); "
            "no class is derived from it"
        )
    return out
