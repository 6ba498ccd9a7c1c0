"""Endpoints of a cohort: which patients have one, and what happened first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from aiene.errors import UsageError

_SAME_DAY = 0.5 / 365.25
ALIASES = {"os": "os", "dm": "dm", "dc": "dm", "lrf": "lrf", "lrc": "lrf", "dfs": "dfs"}
"""Names of endpoints that a user may write: distant control is the absence of distant metastasis."""


@dataclass(frozen=True)
class Endpoint:
    """Times and events of all patients of a table, in its order.

    Parameters
    ----------
    name : `os`, `dm`, `lrf` or `dfs`.
    time : years, NaN where the patient has none.
    event : 0 censored, 1 event; for competing risks 2 death before it; 0 where the patient has none.
    usable : patients that have the endpoint.
    left_out : id and reason of those that have not.
    """

    name: str
    time: np.ndarray
    event: np.ndarray
    usable: np.ndarray
    left_out: tuple[tuple[str, str], ...]


def endpoint(table: pd.DataFrame, name: str) -> Endpoint:
    """Time and event (0 or 1) of an endpoint; death is not an event of `dm` and `lrf`, but censors.

    Raises
    ------
    UsageError : an unknown name.
    """
    known = _known(name)
    time = table[f"{known}_time"].to_numpy(dtype=float, na_value=np.nan)
    event = table[f"{known}_event"].to_numpy(dtype=float, na_value=np.nan)
    usable = np.isfinite(time) & np.isfinite(event)
    reason = f"no {known} time or event"
    left_out = tuple((str(i), reason) for i in table["patient_id"].to_numpy()[~usable])
    return Endpoint(known, time, np.where(usable, event, 0).astype(int), usable, left_out)


def competing(table: pd.DataFrame, name: str) -> Endpoint:
    """Time and state of `dm` or `lrf` with death competing: 0 censored, 1 event, 2 death before it.

    An event and death on one day is the event. A death after the failure's own follow-up ended (imaging
    stopped) competes at the time of death, since nobody fails after it.

    Raises
    ------
    UsageError : an endpoint that death does not compete with.
    """
    known = _known(name)
    if known not in ("dm", "lrf"):
        raise UsageError(f"{known}: death competes only with dm (dc) and lrf (lrc).")
    own, death = endpoint(table, known), endpoint(table, "os")
    died = death.usable & (death.event == 1) & own.usable & (own.event == 0)
    time = np.where(died, np.maximum(own.time, death.time), own.time)
    return Endpoint(known, time, np.where(died, 2, own.event), own.usable, own.left_out)


def with_disease_free_survival(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `dfs_time` and `dfs_event` where they are not given: the first of failure and death.

    Only patients with overall survival and at least one failure endpoint have it.
    """
    if table["dfs_time"].notna().any():
        return table
    failures = [name for name in ("dm", "lrf") if table[f"{name}_event"].notna().any()]
    if not failures or table["os_event"].notna().sum() == 0:
        return table
    died, failed = endpoint(table, "os"), [endpoint(table, name) for name in failures]
    usable = np.logical_and.reduce([died.usable, *(one.usable for one in failed)])
    time, event = died.time, died.event
    for one in failed:
        happened = one.event == 1
        earlier = happened & (one.time <= time + _SAME_DAY)
        time = np.where(happened, np.minimum(time, one.time), time)
        event = np.where(earlier | happened, 1, event)
    out = table.copy()
    out["dfs_time"] = np.where(usable, time, np.nan)
    out["dfs_event"] = pd.array(np.where(usable, event, 0), dtype="Int64")
    out.loc[~usable, "dfs_event"] = pd.NA
    return out


def _known(name: str) -> str:
    try:
        return ALIASES[name.strip().casefold()]
    except KeyError:
        raise UsageError(f"{name}: no such endpoint; known are os, dc, lrc and dfs.") from None
