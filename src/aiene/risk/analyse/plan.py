"""The steps of an analysis as jobs, and the chapters that their results go into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiene.risk.analyse.added import assess
from aiene.risk.analyse.added_show import added_part
from aiene.risk.analyse.cohort import Cohort, Population
from aiene.risk.analyse.competing import competing_part
from aiene.risk.analyse.contest import contests
from aiene.risk.analyse.gains import Added
from aiene.risk.analyse.grouping import Grouping, Groupings
from aiene.risk.analyse.hazards import hazards_part
from aiene.risk.analyse.imputed import imputed_part
from aiene.risk.analyse.marker import forms_part, interaction_row, interaction_table
from aiene.risk.analyse.outcome import LABELS, Outcome, outcome_of
from aiene.risk.analyse.pool import Job
from aiene.risk.analyse.record import Figure, Item, Part, Section
from aiene.risk.analyse.regression import Sample, cox_part, fine_gray_part, make_sample
from aiene.risk.analyse.safe import guarded
from aiene.risk.analyse.settings import AnalysisSettings, Endpoint
from aiene.risk.analyse.survival import Stratum, survival_part


@dataclass(frozen=True)
class Chapter:
    """Jobs whose results make one chapter.

    Parameters
    ----------
    section : the chapter without items; its name is the anchor.
    jobs : in the order of the page.
    """

    section: Section
    jobs: tuple[Job, ...]


def endpoint_chapters(
    cohort: Cohort, groupings: Groupings, endpoint: Endpoint, settings: AnalysisSettings
) -> tuple[Chapter, ...]:
    """All chapters of one endpoint."""
    populations = cohort.populations(strata=settings.hpv_strata)
    outcomes = [
        outcome_of(cohort.table.iloc[p.rows].reset_index(drop=True), endpoint)[0] for p in populations
    ]
    samples = [_sample(cohort, p, o, settings) for p, o in zip(populations, outcomes, strict=True)]
    samples = [s for s in samples if s.outcome.n]
    name = LABELS[endpoint]
    return (
        Chapter(
            Section(f"{endpoint}-curves", f"{name}: curves and tests", ()),
            _curve_jobs(cohort, populations, outcomes, groupings, settings),
        ),
        Chapter(
            Section(f"{endpoint}-cox", f"{name}: regression", ()), _model_jobs(samples, groupings, settings)
        ),
        Chapter(
            Section(f"{endpoint}-added", f"{name}: does AI-ENE add anything?", ()),
            _contest_jobs(samples, groupings, settings),
        ),
    )


def _sample(cohort: Cohort, population: Population, outcome: Outcome, settings: AnalysisSettings) -> Sample:
    own = cohort.table.iloc[population.rows].reset_index(drop=True)
    return make_sample(population.name, population.label, own, outcome, settings.covariates)


def _job(what: str, function: Callable[..., Any], arguments: tuple[Any, ...], weight: float) -> Job:
    """A job that ends in a part of the report, or in the reason why there is none."""
    return Job(what, guarded, (what, function, *arguments), weight)


def _curve_jobs(
    cohort: Cohort,
    populations: Sequence[Population],
    outcomes: Sequence[Outcome],
    groupings: Groupings,
    settings: AnalysisSettings,
) -> tuple[Job, ...]:
    jobs = []
    for grouping in groupings.shown:
        strata = [_stratum(cohort, p, o, grouping) for p, o in zip(populations, outcomes, strict=True)]
        what = f"{strata[0].outcome.label} by {grouping.title}"
        jobs.append(_job(what, survival_part, (strata, settings), 2))
        if strata[0].outcome.competes:
            jobs.append(
                _job(
                    f"{what}, death competing",
                    competing_part,
                    (strata, settings),
                    4,
                )
            )
    return tuple(jobs)


def _stratum(cohort: Cohort, population: Population, outcome: Outcome, grouping: Grouping) -> Stratum:
    ranks = grouping.rank(cohort.table)[population.rows][outcome.rows]
    return Stratum(population.name, population.label, outcome, ranks, grouping)


def _model_jobs(
    samples: Sequence[Sample], groupings: Groupings, settings: AnalysisSettings
) -> tuple[Job, ...]:
    jobs = []
    for sample in samples:
        what = f"{sample.outcome.label}, {sample.label}"
        jobs.append(_job(f"Cox, {what}", cox_part, (sample, settings), 3))
        if sample.outcome.competes:
            jobs.append(_job(f"Fine-Gray, {what}", fine_gray_part, (sample, settings), 6))
        jobs.append(
            _job(
                f"Forms of the count, {what}",
                forms_part,
                (sample, settings, _cutoffs(groupings)),
                3,
            )
        )
        if settings.impute and sample.outcome.n_events:
            jobs.append(
                _job(
                    f"Imputation, {what}",
                    imputed_part,
                    (sample, settings),
                    10.0 * settings.imputations,
                )
            )
        jobs.append(
            _job(
                f"Proportional hazards, {what}",
                hazards_part,
                (sample, settings),
                3,
            )
        )
    return tuple(jobs)


def _contest_jobs(
    samples: Sequence[Sample], groupings: Groupings, settings: AnalysisSettings
) -> tuple[Job, ...]:
    jobs = []
    for sample in samples:
        for contest in contests(sample, groupings, settings.marker_cap):
            what = f"{contest.outcome.label}, {contest.population}, {contest.title} with and without AI-ENE"
            weight = 5 + settings.bootstraps * max(0.2, contest.outcome.n / 1000) * len(contest.models) / 2
            jobs.append(_job(what, assess, (contest, settings), weight))
    return tuple(jobs)


def _cutoffs(groupings: Groupings) -> tuple[int, ...]:
    """Lower bounds of the marker classes above the first."""
    bounds = []
    for label in groupings.marker.order[1:]:
        digits = "".join(c if c.isdigit() else " " for c in label).split()
        bounds.append(int(digits[0]))
    return tuple(bounds)


def finish(chapter: Chapter, results: Sequence[Any], settings: AnalysisSettings) -> tuple[Section, Part]:
    """The chapter with its items; the contests of an endpoint come together in common tables."""
    section = chapter.section
    parts = [r for r in results if isinstance(r, Part)]
    assessed = [r for r in results if isinstance(r, Added)]
    if assessed:
        parts.append(added_part(section.name.removesuffix("-added"), assessed, settings))
    whole = sum(parts, Part())
    items = _side_by_side(whole.items) if not section.name.endswith("-cox") else whole.items
    return Section(section.name, section.title, items), whole


def _side_by_side(items: Sequence[Item]) -> tuple[Item, ...]:
    """Narrow figures first, so that old and new stand beside each other; then wide ones, then tables."""
    narrow = [i for i in items if isinstance(i, Figure) and not i.wide]
    wide = [i for i in items if isinstance(i, Figure) and i.wide]
    return (*narrow, *wide, *(i for i in items if not isinstance(i, Figure)))


def interaction_chapter(
    cohort: Cohort, groupings: Groupings, endpoints: Sequence[Endpoint], settings: AnalysisSettings
) -> Section:
    """The test of interaction with HPV, all endpoints in one table."""
    every = Population("all", "All patients", np.arange(len(cohort.table)))
    rows = []
    for endpoint in endpoints:
        outcome, _ = outcome_of(cohort.table, endpoint)
        if outcome.n:
            sample = _sample(cohort, every, outcome, settings)
            rows += interaction_row(sample, settings, _cutoffs(groupings))
    return Section("interaction", "Does the effect differ by HPV?", (interaction_table(rows),))
