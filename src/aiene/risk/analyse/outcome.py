"""Endpoints as arrays of the patients at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aiene.risk.analyse.settings import Endpoint

LABELS: dict[str, str] = {
    "os": "Overall survival",
    "dc": "Distant control",
    "lrc": "Locoregional control",
    "dfs": "Disease-free survival",
}
EVENTS: dict[str, str] = {
    "os": "death",
    "dc": "distant metastasis",
    "lrc": "locoregional failure",
    "dfs": "first of recurrence, metastasis and death",
}
COMPETING: tuple[Endpoint, ...] = ("dc", "lrc")
"""Endpoints that death before the event competes with."""


@dataclass(frozen=True)
class Outcome:
    """One endpoint of some patients.

    Parameters
    ----------
    name : os, dc, lrc or dfs.
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

    def take(self, keep: np.ndarray) -> Outcome:
        """The patients where `keep` (bool or positions) says so."""
        return Outcome(self.name, self.rows[keep], self.time[keep], self.event[keep], self.state[keep])


def outcome_of(table: pd.DataFrame, name: Endpoint) -> tuple[Outcome, tuple[tuple[str, str], ...]]:
    """The endpoint of a table's patients, and who is left out with the reason.

    Parameters
    ----------
    table : canonical table with a plain index.
    name : os, dc, lrc or dfs.
    """
    from aiene.risk.table import competing, endpoint

    plain = endpoint(table, name)
    rows = np.flatnonzero(plain.usable)
    event = np.asarray(plain.event)[rows].astype(int)
    state = event
    if name in COMPETING:
        with_death = competing(table, name)
        rows = np.flatnonzero(np.asarray(plain.usable) & np.asarray(with_death.usable))
        event = np.asarray(plain.event)[rows].astype(int)
        state = np.asarray(with_death.event)[rows].astype(int)
    time = np.asarray(plain.time, dtype=float)[rows]
    return Outcome(name, rows, time, event, state), tuple(plain.left_out)


def missing_reason(table: pd.DataFrame, name: Endpoint) -> str:
    """Why an endpoint cannot be analysed at all; empty where it can."""
    column = {"dc": "dm", "lrc": "lrf"}.get(name, name)
    empty = [c for c in (f"{column}_time", f"{column}_event") if c not in table or table[c].isna().all()]
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
