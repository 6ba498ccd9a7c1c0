"""What is found about one contest, and what its numbers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiene.risk.analyse.contest import Contest
from aiene.risk.analyse.record import Skipped
from aiene.risk.analyse.settings import AnalysisSettings
from aiene.risk.stats import Difference, Interval


@dataclass
class Added:
    """What is found about one contest: rows by table, and what could not be computed."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    def put(self, table: str, head: dict[str, Any], **values: Any) -> None:
        """Add a row to a table."""
        self.rows.setdefault(table, []).append(head | values)


def reached(contest: Contest, years: Sequence[float]) -> tuple[float, ...]:
    """The horizons that the follow-up reaches."""
    last = float(contest.outcome.time.max())
    return tuple(sorted({y for y in years if y < last}))


def resamples(settings: AnalysisSettings) -> int:
    """Two where none are wanted: the least that can be asked for; their intervals are not kept."""
    return settings.bootstraps or 2


def ends(value: Interval | Difference, settings: AnalysisSettings) -> dict[str, Any]:
    """Ends of an interval, and p of a difference; nothing without bootstraps."""
    if not settings.bootstraps:
        return {}
    ends = {"lower": value.lower, "upper": value.upper}
    return ends | {"p": value.p} if isinstance(value, Difference) else ends
