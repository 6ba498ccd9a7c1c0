"""Reading the canonical table: any table with its column names made complete, and checked as a whole.

Checked are patients, endpoints, units, and the edition that T and N were read by: it is stated, told by the
name of the column, or as asked for.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from aiene.hashing import file_sha256
from aiene.risk.table.columns import BY_NAME, COLUMNS, DAYS_PER_YEAR, SITES, TIMED, Column
from aiene.risk.table.endpoints import with_disease_free_survival
from aiene.risk.table.files import as_text, read_raw
from aiene.risk.table.values import Findings, listed, number, quoted, rows_of, typed, without_totals

_OWN_NAMES = {
    "t": ("t", "ct", "t_stage", "t_category"),
    "n": ("n", "cn", "n_stage", "n_category"),
    "m": ("cm", "m_stage", "m_category"),
    "edition": ("edition", "tnm_edition", "ajcc_edition", "uicc_edition"),
}
"""Headers that hold T, N, M or the edition of both without saying which canonical column they are."""

_EDITION = re.compile(
    r"(?:(?:ajcc|uicc|tnm)[ -]?)?(?:v|ed\.?|edition|version)? ?([789])(?:\.0+|th)?(?: ed(?:\.|ition)?)?"
)


def edition_of(text: str) -> str | None:
    """`7`, `8` or `9` of the usual ways to write an edition (`AJCC 8`, `8th`, `7.0`); else None."""
    found = _EDITION.fullmatch(text.strip().casefold())
    return found.group(1) if found else None


def placed(table: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """Columns called T, N, M and edition as canonical ones: `t7` or `t8`, by the edition of each row.

    Parameters
    ----------
    table : headers as the canonical table has them, where they are known.
    findings : its `edition` is the user's word for rows that do not say it themselves.
    """
    folded = {_plain(name): str(name) for name in table}
    names = {role: next((folded[n] for n in own if n in folded), None) for role, own in _OWN_NAMES.items()}
    out = table.copy()
    if names["m"] is not None and "m" not in out:
        out = out.rename(columns={names["m"]: "m"})
    edition = names["edition"]
    unsaid = []
    for letter in "tn":
        header = names[letter]
        if header is None or any(f"{letter}{number}" in out for number in "789"):
            continue
        words = _editions(out, letter, names["edition"], findings)
        given = out[header].notna()
        if (given & words.isna()).any():
            unsaid.append(str(header))
        odd = (given & words.notna() & ~words.isin(["7", "8", "9"])).to_numpy(dtype=bool)
        if odd.any():
            problem = f"the edition of {header} is {quoted(words[odd])} in {rows_of(odd)}"
            findings.bad_values(problem, "allowed are 7, 8 and 9", f"edition_{letter}")
        given &= ~odd
        out[f"edition_{letter}"] = words.where(given)
        out[header] = out[header].where(given)
        old, newest = (words == "7").fillna(False), ((words == "9") & (letter == "n")).fillna(False)
        for which, rows in (("7", old), ("9", newest), ("8", ~old & ~newest)):
            if (rows & given).any():
                out[f"{letter}{which}"] = out[header].where(rows)
        out = out.drop(columns=header)
        read = [f"{letter}{number}" for number in "789" if f"{letter}{number}" in out]
        findings.note(f"the column {header} is read as {' and '.join(read) or 'missing'}, by its edition")
    if edition is not None and {"edition_t", "edition_n"} & set(out):
        out = out.drop(columns=edition)
    if unsaid:
        columns = f"the column{'s' * (len(unsaid) > 1)} {' and '.join(unsaid)}"
        findings.wrong(
            f"{columns} {'do' if len(unsaid) > 1 else 'does'} not state the TNM edition",
            "use --edition 7 or --edition 8 if it is the same for all patients; otherwise add the columns "
            "edition_t and edition_n",
            "edition_t", "edition_n",
        )  # fmt: skip
    return out


def _editions(table: pd.DataFrame, letter: str, shared: str | None, findings: Findings) -> pd.Series:
    """The edition of each row: its own column's, else that of T and N, else as asked for; else NA."""
    own = f"edition_{letter}" if f"edition_{letter}" in table else shared
    words = pd.Series(pd.NA, table.index, dtype="string") if own is None else table[own].astype("string")
    words = words.map(lambda word: edition_of(word) or word, na_action="ignore")
    return words if findings.edition is None else words.fillna(findings.edition)


def filled(table: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """Editions that a typed table leaves out: as asked for, else by the column (`t7` is of edition 7)."""
    out = table.copy()
    for letter in "tn":
        name = f"edition_{letter}"
        old, new = out[f"{letter}7"].notna(), out[f"{letter}8"].notna()
        other = ((old | new) & out[name].notna() & (out[name] != (findings.edition or ""))).fillna(False)
        if findings.edition is not None and other.any():
            findings.warn(
                f"--edition {findings.edition} is ignored where {name} states another ({rows_of(other)})"
            )
        by_column = pd.Series(np.where(old, "7", "8"), index=out.index, dtype="string")
        asked = by_column if findings.edition is None else findings.edition
        nameless = (out[name].isna() & (old ^ new)).to_numpy(dtype=bool)
        if nameless.any() and name not in findings.flawed:
            out[name] = out[name].mask(nameless, asked)
            said = (
                "as asked for" if findings.edition is not None else f"by the column, {letter}7 or {letter}8"
            )
            findings.note(f"{name}: {said}, in {rows_of(nameless)}")
    return out


_LONGEST_YEARS = 40.0
_SHORTEST_YEARS = 0.5
_MANY = 10
_ADULT = 18


def check_patients(table: pd.DataFrame, findings: Findings) -> None:
    """Every patient has a name, and stands once."""
    ids = table["patient_id"]
    missing = ids.isna().to_numpy(dtype=bool)
    if missing.any():
        findings.wrong(f"patient_id is missing in {rows_of(missing)}", "name every patient")
    again = (ids.duplicated(keep=False) & ids.notna()).to_numpy(dtype=bool)
    if again.any():
        names = pd.unique(ids[again]).tolist()
        problem = f"{len(names)} patient{'s appear' if len(names) > 1 else ' appears'} more than once"
        remedy = f"keep one row each of {listed(names)} ({rows_of(again)})"
        findings.wrong(problem, remedy)


def check_editions(table: pd.DataFrame, findings: Findings) -> None:
    """T and N come with the edition they were read by, and stand in the column of that edition."""
    for letter in "tn":
        if f"edition_{letter}" in findings.flawed:
            continue
        edition = table[f"edition_{letter}"]
        old, new = table[f"{letter}7"].notna(), table[f"{letter}8"].notna()
        nameless = ((old | new) & edition.isna()).to_numpy(dtype=bool)
        if nameless.any():
            problem = (
                f"{letter.upper()} is given in {letter}7 and {letter}8 without edition_{letter} in "
                f"{rows_of(nameless)}"
            )
            findings.wrong(problem, f"state the edition in edition_{letter} (7, 8 or 9)")
        wrong = (old & ~new & (edition != "7")) | (new & ~old & (edition == "7"))
        wrong |= new & (edition == "9") & (letter == "n")
        wrong_rows = wrong.fillna(False).to_numpy(dtype=bool)
        if wrong_rows.any():
            problem = f"edition_{letter} does not fit the column of {letter.upper()}"
            remedy = f"put edition 7 into {letter}7 and edition 8 into {letter}8 ({rows_of(wrong_rows)})"
            remedy += "; N of version 9 into n9" if letter == "n" else ""
            findings.wrong(problem, remedy)


def check_endpoints(table: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """Times and events belong together; an event without its time leaves that endpoint only, and is told."""
    out = table.copy()
    for name in TIMED:
        time, event = out[f"{name}_time"], out[f"{name}_event"]
        if name == "os" and not findings.flawed & {"os_time", "os_event"}:
            if event.notna().any() and time.notna().sum() == 0:
                findings.wrong("os_event has no os_time", "give both or neither")
            if time.notna().any() and event.notna().sum() == 0:
                findings.wrong("os_time has no os_event", "give both or neither")
        half = (time.isna() != event.isna()).to_numpy(dtype=bool)
        if half.any():
            findings.warn(
                f"{name}: time or event is missing in {rows_of(half)}; left out of this endpoint only"
            )
            out.loc[half, f"{name}_time"] = np.nan
            out.loc[half, f"{name}_event"] = pd.NA
    return out


def check_plausible(table: pd.DataFrame, findings: Findings) -> None:
    """Warn of times that are hardly years, of one event code only, and of follow-up that outlives people."""
    for name in TIMED:
        time = table[f"{name}_time"].dropna()
        if time.empty:
            continue
        _check_unit(name, time, findings)
        event = table[f"{name}_event"].dropna()
        if len(event) >= _MANY and event.nunique() == 1:
            what = "an event" if int(event.iloc[0]) == 1 else "censored"
            findings.warn(f"{name}: every patient is {what}; is the coding reversed?")
    check_later_failures(table, findings)
    check_imaging(table, findings)
    young = (table["age"] < _ADULT).to_numpy(dtype=bool)
    if young.any():
        findings.warn(f"age is under {_ADULT} in {rows_of(young)}; kept")


def _check_unit(name: str, time: pd.Series, findings: Findings) -> None:
    longest, middle = float(time.max()), float(time.median())
    if longest > _LONGEST_YEARS:
        unit = "days" if longest > 400 else "months"
        findings.warn(
            f"{name}_time reaches {longest:.0f} years (median {middle:.1f}); were {unit} mistaken for "
            f"{'years or months' if unit == 'days' else 'years'}?"
        )
    elif len(time) >= _MANY and longest < _SHORTEST_YEARS:
        findings.warn(
            f"{name}_time ends at {longest:.2g} years (median {middle:.2g}); were months or years taken for "
            "days?"
        )


def within_follow_up(table: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """Patients without a failure are followed for it no longer than to death or the last follow-up; told."""
    out = table.copy()
    for name in ("dm", "lrf"):
        late = (out[f"{name}_event"] == 0) & (out[f"{name}_time"] > out["os_time"] + 1e-9)
        rows = late.fillna(False).to_numpy(dtype=bool)
        if rows.any():
            findings.warn(
                f"{name}_time is beyond os_time, without an event, in {rows_of(rows)}; cut at os_time"
            )
            out.loc[rows, f"{name}_time"] = out.loc[rows, "os_time"]
    return out


def check_imaging(table: pd.DataFrame, findings: Findings) -> None:
    """Tell of patients who died after their imaging for a failure ended: what then holds is a choice."""
    for name in ("dm", "lrf"):
        after = (table[f"{name}_event"] == 0) & (table["os_event"] == 1)
        after &= table["os_time"] > table[f"{name}_time"] + 1 / DAYS_PER_YEAR
        rows = after.fillna(False).to_numpy(dtype=bool)
        if rows.any():
            findings.note(
                f"{name}: death after the end of its own follow-up in {rows_of(rows)}; it counts as "
                "competing; use --dm-censor-at last_imaging to censor instead"
            )


def check_later_failures(table: pd.DataFrame, findings: Findings) -> None:
    """Warn of failures that lie after the last follow-up; they are kept."""
    for name in ("dm", "lrf"):
        late = (table[f"{name}_event"] == 1) & (table[f"{name}_time"] > table["os_time"] + 1e-9)
        rows = late.fillna(False).to_numpy(dtype=bool)
        if rows.any():
            findings.warn(f"{name}: the event is after the last follow-up in {rows_of(rows)}; kept")


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
