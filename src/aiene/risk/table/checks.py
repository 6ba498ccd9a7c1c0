"""Checks of a whole table: patients, editions, endpoints, units."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aiene.risk.table.columns import DAYS_PER_YEAR, TIMED
from aiene.risk.table.values import Findings, listed, rows_of

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
