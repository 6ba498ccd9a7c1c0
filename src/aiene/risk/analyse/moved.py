"""Who moves between old and combined groups, and how well each of the two separates."""

from __future__ import annotations

from typing import Any

import numpy as np

from aiene.risk.analyse.contest import Contest
from aiene.risk.analyse.gains import Added, ends, reached, resamples
from aiene.risk.analyse.settings import AnalysisSettings
from aiene.risk.stats import Interval, groome, reclassification


def reclassified(contest: Contest, head: dict[str, Any], added: Added, settings: AnalysisSettings) -> None:
    """Old groups against combined ones on one ordered scale, where both have the same number of groups."""
    outcome = contest.outcome
    if not contest.ranks_old.size or settings.decision_years not in reached(
        contest, (settings.decision_years,)
    ):
        return
    top = max(int(contest.ranks_old.max()), int(contest.ranks_new.max())) + 1
    levels = [f"group {i + 1}" for i in range(top)]
    old = np.array([levels[r] for r in contest.ranks_old], dtype=object)
    new = np.array([levels[r] for r in contest.ranks_new], dtype=object)
    result = reclassification(
        outcome.time,
        outcome.event,
        old,
        new,
        levels=levels,
        horizon=settings.decision_years,
        n_boot=min(resamples(settings), 500),
        seed=settings.seed,
    )
    for cell in result.cells:
        added.put(
            "reclassified",
            head,
            old=cell.old,
            new=cell.new,
            n=cell.n,
            risk=cell.risk,
            lower=cell.lower,
            upper=cell.upper,
        )
    added.put(
        "nri",
        head,
        n=result.n,
        up=result.up,
        down=result.down,
        **_part("event", result.event_part, settings),
        **_part("non_event", result.non_event_part, settings),
        **_part("nri", result.nri, settings),
    )


def _part(name: str, interval: Interval, settings: AnalysisSettings) -> dict[str, Any]:
    limits = ends(interval, settings)
    return {name: interval.value, f"{name}_lower": limits.get("lower"), f"{name}_upper": limits.get("upper")}


def separation(contest: Contest, head: dict[str, Any], added: Added, settings: AnalysisSettings) -> None:
    """Groome's criteria of the old and the combined groups."""
    outcome, horizon = contest.outcome, settings.decision_years
    if not contest.ranks_old.size or contest.groups is None or horizon not in reached(contest, (horizon,)):
        return
    for model, ranks in ((contest.old, contest.ranks_old), (contest.groups, contest.ranks_new)):
        order = [int(r) for r in np.unique(ranks)]
        if len(order) < 2:
            continue
        g = groome(outcome.time, outcome.event, ranks, order=order, horizon=horizon)
        added.put(
            "separation",
            head,
            model=model.label,
            consistency=g.consistency,
            discrimination=g.discrimination,
            balance=g.balance,
            explained=g.explained,
        )
