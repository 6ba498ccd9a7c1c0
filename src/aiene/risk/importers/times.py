"""Times of the collections: an event's own time where it happened, else the last follow-up."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aiene.risk.importers.options import ImportOptions, Origin
from aiene.risk.importers.source import Source
from aiene.risk.table.problems import rows_of


def origin_of(source: Source, options: ImportOptions, own: Origin, *, stated: bool = True) -> Origin:
    """When the clock starts: the user's word, else the collection's own; told where the table does not say.

    Parameters
    ----------
    own : of the collection.
    stated : whether its dictionary says so.
    """
    if options.origin is None and not stated:
        source.findings.warn(f"the table does not say when its clock starts; taken as {own}, or say --origin")
    return options.origin or own


def only_origin(source: Source, options: ImportOptions, own: Origin, why: str) -> None:
    """Refuse another origin than the collection's own.

    Raises
    ------
    InputError : another was asked for.
    """
    if options.origin not in (None, own):
        raise source.findings.refuse(
            f"its times count from {own}, and {why}", f"leave out --origin {options.origin}"
        )


def failure_time(
    source: Source, name: str, event: pd.Series, own: pd.Series, last: pd.Series
) -> tuple[pd.Series, pd.Series]:
    """Time and event of a failure.

    Parameters
    ----------
    name : `dm` or `lrf`.
    event : "1", "0" or missing.
    own : years to the failure.
    last : years to death or last follow-up.

    Returns
    -------
    Time and event. A failure before the origin counts at time 0, told.
    """
    happened = (event == "1").fillna(False).to_numpy(dtype=bool)
    time = np.where(happened, own.to_numpy(dtype=float), last.to_numpy(dtype=float))
    before = happened & (time < 0)
    if before.any():
        source.findings.warn(
            f"{name}: the event lies before the origin in {rows_of(before)}; counted at time 0"
        )
    return pd.Series(np.where(before, 0.0, time)), event


def since(source: Source, time: pd.Series, start: pd.Series | None, what: str) -> pd.Series:
    """A time from diagnosis as one from the start of treatment, where `start` is given.

    Parameters
    ----------
    start : years from diagnosis to the start of treatment.
    what : name of the time.
    """
    if start is None:
        return time
    lost = (time.notna() & start.isna()).to_numpy(dtype=bool)
    if lost.any():
        source.findings.warn(f"{what}: no start of treatment in {rows_of(lost)}; no time there")
    return time - start


def either(
    first: tuple[pd.Series, pd.Series], second: tuple[pd.Series, pd.Series]
) -> tuple[pd.Series, pd.Series]:
    """The earlier of two failures, as time and event; a missing event of one leaves the other's."""
    happened_1, happened_2 = ((e == "1").fillna(False) for _, e in (first, second))
    both = pd.concat([first[0].where(happened_1), second[0].where(happened_2)], axis=1)
    event = pd.Series(np.where(happened_1 | happened_2, "1", "0"), dtype="string")
    unknown = first[1].isna() & second[1].isna()
    return both.min(axis=1), event.mask(unknown)
