"""The analysed cohort: who is included, who is not and why, and the endpoints as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aiene.errors import UsageError, counted
from aiene.risk.analyse.records import AnalysisSettings, Endpoint
from aiene.risk.table.endpoints import ALIASES, competing, endpoint
from aiene.stats.records import NotEstimableError

LABELS: dict[str, str] = {
    "os": "Overall survival",
    "dc": "Distant control",
    "lrc": "Locoregional control",
    "dfs": "Disease-free survival",
    "dmfs": "Distant-metastasis-free survival",
}
EVENTS: dict[str, str] = {
    "os": "death",
    "dc": "distant metastasis",
    "lrc": "locoregional failure",
    "dfs": "first of recurrence, metastasis and death",
    "dmfs": "first of distant metastasis and death",
}
COMPETING: tuple[Endpoint, ...] = ("dc", "lrc")
"""Endpoints that death before the event competes with."""

FEWEST_EVENTS = 3
"""With fewer events a test or a hazard ratio is a story about one or two patients, whatever its p."""

_Rule = tuple[str, str, Callable[[pd.DataFrame], np.ndarray]]


@dataclass(frozen=True)
class Outcome:
    """One endpoint of some patients.

    Parameters
    ----------
    name : os, dc, lrc, dfs or dmfs.
    rows : positions in the table that it was made from.
    time : float (n,), years.
    event : int (n,), 0 censored, 1 event; death before the event is censoring.
    state : int (n,), as `event`, but 2 where death came before the event.
    """

    name: Endpoint
    rows: np.ndarray
    time: np.ndarray
    event: np.ndarray
    state: np.ndarray

    @property
    def label(self) -> str:
        """Its name in words."""
        return LABELS[self.name]

    @property
    def event_word(self) -> str:
        """What its event is called."""
        return EVENTS[self.name]

    @property
    def competes(self) -> bool:
        """Death competes with its event."""
        return self.name in COMPETING

    @property
    def n(self) -> int:
        """Patients."""
        return int(self.time.size)

    @property
    def n_events(self) -> int:
        """Patients with the event."""
        return int(self.event.sum())

    @property
    def counts(self) -> dict[str, int]:
        """Patients and events as cells of a table."""
        return {"n": self.n, "events": self.n_events}

    def take(self, keep: np.ndarray) -> Outcome:
        """The patients where `keep` (bool or positions) says so."""
        return Outcome(self.name, self.rows[keep], self.time[keep], self.event[keep], self.state[keep])


def check_events(events: int) -> None:
    """Refuse a test or a model of next to no events.

    Raises
    ------
    NotEstimableError : fewer than `FEWEST_EVENTS`.
    """
    if events < FEWEST_EVENTS:
        told = "no event happened" if not events else f"only {counted(events, 'event')} happened"
        raise NotEstimableError(told, f"a test or a model needs {FEWEST_EVENTS} or more")


def outcome_of(table: pd.DataFrame, name: Endpoint) -> tuple[Outcome, tuple[tuple[str, str], ...]]:
    """The endpoint of a table's patients, and who is left out with the reason.

    Parameters
    ----------
    table : canonical table with a plain index.
    name : os, dc, lrc, dfs or dmfs.
    """
    found = competing(table, name) if name in COMPETING else endpoint(table, name)
    rows = np.flatnonzero(found.usable)
    state = np.asarray(found.event)[rows].astype(int)
    time = np.asarray(found.time, dtype=float)[rows]
    return Outcome(name, rows, time, (state == 1).astype(int), state), tuple(found.left_out)


def missing_reason(table: pd.DataFrame, name: Endpoint) -> str:
    """Why an endpoint cannot be analysed at all; empty where it can."""
    if name == "dmfs":
        return missing_reason(table, "os") or missing_reason(table, "dc")
    column = ALIASES[name]
    empty = [c for c in (f"{column}_time", f"{column}_event") if c not in table or table[c].isna().all()]
    if empty and name == "dfs" and not missing_reason(table, "dmfs"):
        return (
            "without locoregional failure (lrf_time, lrf_event) the first of metastasis and death is "
            "distant-metastasis-free survival: ask for dmfs"
        )
    if empty:
        return f"the table has no value in {' and '.join(empty)}"
    if name in COMPETING and ("os_event" not in table or table["os_event"].isna().all()):
        return f"{LABELS[name].lower()} needs os_event, since death competes with it, and the table has none"
    return ""


def numeric(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as float (n,), NaN where missing."""
    values: Any = table[column].to_numpy(dtype=float, na_value=np.nan)
    return np.asarray(values, dtype=float)


def words(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as an object array of text, empty where missing."""
    return np.asarray(table[column].astype("string").fillna("").to_numpy(dtype=object))


def lower(title: str) -> str:
    """A title inside a sentence: abbreviations stay as they are."""
    return title[0].lower() + title[1:] if title[:2].istitle() else title


def small(text: str) -> str:
    """The name of a population inside a sentence."""
    return text[0].lower() + text[1:] if text.startswith("All") else text


@dataclass(frozen=True)
class Step:
    """One exclusion: how many came, who left, how many went on.

    Parameters
    ----------
    name : in one word, for machines.
    reason : why the patients left, in words.
    before, after : patients before and after.
    left : (patient_id, detail) of those who left.
    """

    name: str
    reason: str
    before: int
    after: int
    left: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Population:
    """Patients that are analysed together.

    Parameters
    ----------
    name : `all`, `hpv_positive` or `hpv_negative`.
    label : in words.
    rows : positions in the cohort's table.
    """

    name: str
    label: str
    rows: np.ndarray


@dataclass(frozen=True)
class Cohort:
    """The analysed patients and the way to them.

    Parameters
    ----------
    table : one row per analysed patient, plain index.
    steps : exclusions in their order; counts add up from the first `before` to the length of the table.
    simulated : the AI-ENE count of at least one patient is simulated.
    """

    table: pd.DataFrame
    steps: tuple[Step, ...]
    simulated: bool

    @property
    def n_input(self) -> int:
        """Rows of the table that came in."""
        return self.steps[0].before if self.steps else len(self.table)

    @property
    def left_out(self) -> list[dict[str, str]]:
        """Who left at which step, and why: rows of `excluded.csv`."""
        return [
            {"patient_id": who, "step": step.name, "reason": why}
            for step in self.steps
            for who, why in step.left
        ]

    def populations(self, *, strata: bool) -> tuple[Population, ...]:
        """All patients, and those with a known HPV status by status where `strata`."""
        every = Population("all", "All patients", np.arange(len(self.table)))
        if not strata:
            return (every,)
        hpv = words(self.table, "hpv")
        found = [
            Population(f"hpv_{status}", f"HPV-{status}", np.flatnonzero(hpv == status))
            for status in ("positive", "negative")
        ]
        return (every, *(p for p in found if 0 < p.rows.size < len(self.table)))


def make_cohort(table: pd.DataFrame, settings: AnalysisSettings) -> Cohort:
    """Take the exclusions one after the other.

    Parameters
    ----------
    table : the stratified canonical table.

    Raises
    ------
    UsageError : the table is empty, or nobody is left.
    """
    if not len(table):
        raise UsageError("the table has no patient.")
    simulated = bool((words(table, "ai_ene_source") == "simulated").any())
    at = table.reset_index(drop=True)
    if settings.dm_censor_at is not None:
        at["dm_censor_at"] = settings.dm_censor_at
    steps = []
    for name, reason, detail in _rules(settings):
        details = detail(at)
        gone = details != ""
        left = tuple(zip(words(at, "patient_id")[gone], details[gone], strict=True))
        steps.append(Step(name, reason, len(at), int((~gone).sum()), left))
        at = at.loc[~gone].reset_index(drop=True)
    if not len(at):
        worst = max(steps, key=lambda s: len(s.left))
        raise UsageError(
            f"no patient is left to analyse: {len(worst.left)} of {len(table)} were left out because of "
            f"'{worst.reason}'."
        )
    return Cohort(at, tuple(steps), simulated)


def _rules(settings: AnalysisSettings) -> list[_Rule]:
    """Name, words and the reason of each patient (empty: goes on), in their order."""
    named = " or ".join(s.replace("_", " ") for s in settings.sites)
    rules: list[_Rule] = [
        ("site", f"primary site is not {named}", lambda t: _site(t, settings.sites)),
        ("metastatic", "distant metastasis at diagnosis (M1)", lambda t: _told(words(t, "m") == "M1", "M1")),
        ("no_count", "no AI-ENE count", lambda t: _told(t["n_ai_ene"].isna(), "n_ai_ene is empty")),
        ("no_follow_up", "no follow-up of any endpoint", _without_follow_up),
    ]
    return rules if settings.sites else rules[1:]


def _site(table: pd.DataFrame, sites: tuple[str, ...]) -> np.ndarray:
    site = words(table, "site")
    known = bool((site != "").any())
    told = ["" if s in sites or not known else (s.replace("_", " ") or "site unknown") for s in site]
    return np.asarray(told, dtype=object)


def _told(rows: np.ndarray | pd.Series, reason: str) -> np.ndarray:
    return np.where(rows, reason, "").astype(object)


def _without_follow_up(table: pd.DataFrame) -> np.ndarray:
    known = np.zeros(len(table), dtype=bool)
    for name in ("os", "dm", "lrf", "dfs"):
        known |= (table[f"{name}_time"].notna() & table[f"{name}_event"].notna()).to_numpy(dtype=bool)
    return _told(~known, "no time and event")
