"""Endpoints of a cohort: which patients have one, and what happened first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from aiene.errors import UsageError

_SAME_DAY = 0.5 / 365.25
ALIASES = {
    "os": "os", "dm": "dm", "dc": "dm", "lrf": "lrf", "lrc": "lrf", "dfs": "dfs", "dmfs": "dmfs",
}  # fmt: skip
"""Names of endpoints that a user may write: distant control is the absence of distant metastasis."""
CONTROL = {"dm": "dc", "lrf": "lrc"}
"""Endpoints are named for the control, columns (`dm_time`, `dm_event`) for the failure that ends it."""
FAILURES = ("dm", "lrf")
"""Endpoints that death competes with."""


@dataclass(frozen=True)
class Endpoint:
    """Times and events of all patients of a table, in its order.

    Parameters
    ----------
    name : `os`, `dm`, `lrf`, `dfs` or `dmfs`.
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
    if known in FAILURES:
        whole = competing(table, known)
        return replace(whole, event=(whole.event == 1).astype(int))
    if known == "dmfs":
        time, event, usable = _first_of(table, ("dm",))
        return _endpoint(table, known, np.where(usable, time, np.nan), np.where(usable, event, 0), usable)
    return _columns(table, known)


def competing(table: pd.DataFrame, name: str) -> Endpoint:
    """Time and state of `dm` or `lrf` with death competing: 0 censored, 1 event, 2 death before it.

    An event and death on one day is the event. Where the follow-up of the failure ended before death (imaging
    stopped), the table's `dm_censor_at` says what holds: `last_followup` (the default) lets the death compete
    when it happens, since nobody fails after it; `last_imaging` censors at the end of the imaging.

    Raises
    ------
    UsageError : an endpoint that death does not compete with.
    """
    known = _known(name)
    if known not in FAILURES:
        raise UsageError(f"{known}: death competes only with dm (dc) and lrf (lrc).")
    own, death = _columns(table, known), _columns(table, "os")
    died = death.usable & (death.event == 1) & own.usable & (own.event == 0)
    imaging = np.zeros(len(table), dtype=bool)
    if "dm_censor_at" in table:
        imaging = (table["dm_censor_at"] == "last_imaging").fillna(False).to_numpy(dtype=bool)
    unseen = died & imaging & (death.time > own.time + _SAME_DAY)
    seen = died & ~unseen
    time = np.where(seen, death.time, own.time)
    return Endpoint(known, time, np.where(seen, 2, own.event), own.usable, own.left_out)


def with_disease_free_survival(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `dfs_time`, `dfs_event` where it has none: the first of failure and death.

    Only patients with overall survival, distant and locoregional failure have it. Without one of them it
    would be another endpoint, such as distant-metastasis-free survival (`dmfs`).
    """
    if table["dfs_time"].notna().any() or any(table[f"{n}_event"].isna().all() for n in ("os", *FAILURES)):
        return table
    time, event, usable = _first_of(table, FAILURES)
    out = table.copy()
    out["dfs_time"] = np.where(usable, time, np.nan)
    out["dfs_event"] = pd.array(np.where(usable, event, 0), dtype="Int64")
    out.loc[~usable, "dfs_event"] = pd.NA
    return out


def _first_of(table: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time and event of the first of some failures and death, and who has all of them."""
    died, failed = _columns(table, "os"), [_columns(table, name) for name in names]
    time, event = died.time, died.event
    for one in failed:
        happened = one.event == 1
        time = np.where(happened, np.minimum(time, one.time), time)
        event = np.where(happened, 1, event)
    return time, event, np.logical_and.reduce([died.usable, *(one.usable for one in failed)])


def _columns(table: pd.DataFrame, name: str) -> Endpoint:
    """The endpoint as the two columns of its name have it."""
    time = table[f"{name}_time"].to_numpy(dtype=float, na_value=np.nan)
    event = table[f"{name}_event"].to_numpy(dtype=float, na_value=np.nan)
    usable = np.isfinite(time) & np.isfinite(event)
    return _endpoint(table, name, time, np.where(usable, event, 0).astype(int), usable)


def _endpoint(
    table: pd.DataFrame, name: str, time: np.ndarray, event: np.ndarray, usable: np.ndarray
) -> Endpoint:
    reason = f"no {name} time or event"
    left_out = tuple((str(i), reason) for i in table["patient_id"].to_numpy()[~usable])
    return Endpoint(name, time, event, usable, left_out)


def _known(name: str) -> str:
    try:
        return ALIASES[name.strip().casefold()]
    except KeyError:
        raise UsageError(f"{name}: no such endpoint; known are os, dc, lrc, dfs and dmfs.") from None
