"""The whole analysis in one call: its steps as jobs, and the chapters that their results go into."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aiene.parallel import Job, OnProgress, run_jobs
from aiene.report.document import Figure, Item, Section
from aiene.risk.analyse.cohort import (
    LABELS,
    Cohort,
    Outcome,
    Population,
    make_cohort,
    missing_reason,
    outcome_of,
    words,
)
from aiene.risk.analyse.derive.chapter import derive_chapter, scheme_file
from aiene.risk.analyse.descriptives import (
    count_figure,
    flow_figure,
    flow_table,
    migration_figure,
    missing_table,
    table_one,
    table_one_hpv,
)
from aiene.risk.analyse.design import edition_warnings, with_one_edition
from aiene.risk.analyse.grouping import CHAPTERS, Grouping, Groupings, Stratum, make_groupings
from aiene.risk.analyse.incremental_value import added_part, assess
from aiene.risk.analyse.locked_model import FOLDER as MODELS
from aiene.risk.analyse.locked_model import locked_chapter
from aiene.risk.analyse.marker_effect import forms_part, interaction_row
from aiene.risk.analyse.model_comparison import Added, model_comparisons
from aiene.risk.analyse.output import take_folder, write_analysis
from aiene.risk.analyse.records import (
    Analysis,
    AnalysisSettings,
    Endpoint,
    Part,
    Skipped,
    chosen_endpoint,
    fields_of,
    parse_endpoints,
    table_of,
)
from aiene.risk.analyse.regression import (
    Sample,
    cox_part,
    fine_gray_part,
    guarded,
    hazards_part,
    make_sample,
    sample_of_all,
)
from aiene.risk.analyse.sensitivity.other_models import (
    burden_part,
    check_also,
    groups_part,
    imputed_part,
    models_part,
)
from aiene.risk.analyse.sensitivity.subgroups import centre_part, subgroups_part
from aiene.risk.analyse.survival import competing_part, follow_up_table, survival_part
from aiene.risk.analyse.text import checklists, head_of, key_results, methods_text, multiplicity_section
from aiene.risk.analyse.threshold_sensitivity import threshold_chapter
from aiene.risk.stratify import stratify

if TYPE_CHECKING:
    import pandas as pd

    from aiene.risk.schemes.scheme import Scheme

_SCHEMES = tuple(scheme_file(chapter) for chapter in ("", *CHAPTERS))


@dataclass(frozen=True)
class _Study:
    """What is analysed: patients, their groups, the endpoints that they have, and how."""

    cohort: Cohort
    groupings: Groupings
    scheme: Scheme
    endpoints: tuple[Endpoint, ...]
    settings: AnalysisSettings

    @property
    def populations(self) -> tuple[Population, ...]:
        """All patients, and the HPV strata where they are analysed too."""
        return self.cohort.populations(strata=self.settings.hpv_strata)

    @property
    def cutoffs(self) -> tuple[int, ...]:
        """Lower bounds of the marker classes above the first."""
        return tuple(int(re.findall(r"\d+", label)[0]) for label in self.groupings.marker.order[1:])

    def outcomes(self, endpoint: Endpoint) -> list[tuple[Population, pd.DataFrame, Outcome]]:
        """Each population with its own table and an endpoint of it."""
        tables = [self.cohort.table.iloc[p.rows].reset_index(drop=True) for p in self.populations]
        outcomes = [outcome_of(table, endpoint)[0] for table in tables]
        return list(zip(self.populations, tables, outcomes, strict=True))

    def stratum(self, population: Population, outcome: Outcome, grouping: Grouping) -> Stratum:
        """A population in a grouping, with the layers within which its groups are compared too."""
        table = self.cohort.table
        ranks = grouping.rank(table)[population.rows][outcome.rows]
        within = {"centres": "center"} | ({"HPV strata": "hpv"} if population.name == "all" else {})
        layers = {what: words(table, c)[population.rows][outcome.rows] for what, c in within.items()}
        return Stratum(population.name, population.label, outcome, ranks, grouping, layers)


# Jobs and chapters


class Chapter(NamedTuple):
    """A section without items, whose name is its anchor, and the jobs whose results make it, in order."""

    section: Section
    jobs: list[Job]


def endpoint_chapters(study: _Study, endpoint: Endpoint) -> tuple[Chapter, ...]:
    """All chapters of one endpoint."""
    outcomes, covariates = study.outcomes(endpoint), study.settings.covariates
    samples = [make_sample(p.name, p.label, table, o, covariates) for p, table, o in outcomes if o.n]
    chapters = {
        ("curves", "curves and tests"): _curve_jobs(study, endpoint),
        ("cox", "regression"): _model_jobs(study, samples),
        ("added", "does AI-ENE add anything?"): _comparison_jobs(study, samples),
        ("sensitivity", "does the effect hold?"): _sensitivity_jobs(study, samples, endpoint),
    }
    return tuple(
        Chapter(Section(f"{endpoint}-{name}", f"{LABELS[endpoint]}: {title}", ()), jobs)
        for (name, title), jobs in chapters.items()
    )


def _job(what: str, function: Callable[..., Any], arguments: tuple[Any, ...], weight: float) -> Job:
    """A job that ends in a part of the report, or in the reason why there is none."""
    return Job(what, guarded, (what, function, *arguments), weight)


def _curve_jobs(study: _Study, endpoint: Endpoint) -> list[Job]:
    jobs, groupings, settings = [], study.groupings, study.settings
    outcomes = study.outcomes(endpoint)
    for grouping in (*groupings.shown, *groupings.chapters):
        strata = [study.stratum(p, o, grouping) for p, _, o in outcomes]
        strata = strata[:1] if grouping.chapter else strata  # a chapter of AJCC-8 is a stratum already
        what = f"{strata[0].outcome.label} by {grouping.title}"
        jobs.append(_job(what, survival_part, (strata, settings), 2))
        if strata[0].outcome.competes and grouping not in groupings.chapters:
            jobs.append(_job(f"{what}, death competing", competing_part, (strata, settings), 4))
    return jobs


def _model_jobs(study: _Study, samples: Sequence[Sample]) -> list[Job]:
    jobs, settings = [], study.settings
    for sample in samples:
        what, of = f"{sample.outcome.label}, {sample.label}", (sample, settings)
        jobs.append(_job(f"Cox, {what}", cox_part, of, 3))
        if sample.outcome.competes:
            jobs.append(_job(f"Fine-Gray, {what}", fine_gray_part, of, 6))
        jobs.append(_job(f"Forms of the count, {what}", forms_part, (*of, study.cutoffs), 3))
        if settings.impute and sample.outcome.n_events:
            jobs.append(_job(f"Imputation, {what}", imputed_part, of, 10.0 * settings.imputations))
        jobs.append(_job(f"Proportional hazards, {what}", hazards_part, of, 3))
    return jobs


def _comparison_jobs(study: _Study, samples: Sequence[Sample]) -> list[Job]:
    jobs, settings = [], study.settings
    for sample in samples:
        for comparison in model_comparisons(sample, study.groupings, settings.marker_cap):
            of = f"{comparison.outcome.label}, {comparison.population}, {comparison.title}"
            size = max(0.2, comparison.outcome.n / 1000) * len(comparison.models) / 2
            weight = 5 + settings.bootstraps * size
            jobs.append(_job(f"{of} with and without AI-ENE", assess, (comparison, settings), weight))
    return jobs


def _sensitivity_jobs(study: _Study, samples: Sequence[Sample], endpoint: Endpoint) -> list[Job]:
    """Of all patients: subgroups, centres, other nodes, and the effect over time."""
    jobs, settings = [], study.settings
    for sample in (s for s in samples if s.name == "all"):
        label, of = sample.outcome.label, (sample, settings)
        jobs.append(_job(f"{label}: subgroups", subgroups_part, of, 4))
        jobs.append(_job(f"{label}: more than one centre", centre_part, of, 4))
        jobs.append(_job(f"{label}: AI-ENE, or just more nodes?", burden_part, of, 3))
        jobs.append(_job(f"{label}: the effect over time", models_part, of, 6))
        whole = study.stratum(study.populations[0], sample.outcome, study.groupings.main)
        what = f"{label} by {whole.grouping.title}, hazards not proportional"
        jobs.append(_job(what, groups_part, (whole, settings), 2))
    return jobs


def finish(chapter: Chapter, results: Sequence[Any], settings: AnalysisSettings) -> tuple[Section, Part]:
    """The chapter with its items; the comparisons of an endpoint come together in common tables."""
    section = chapter.section
    parts = [r for r in results if isinstance(r, Part)]
    assessed = [r for r in results if isinstance(r, Added)]
    if assessed:
        parts.append(added_part(section.name.removesuffix("-added"), assessed, settings))
    whole = sum(parts, Part())
    items = whole.items if section.name.endswith("-cox") else tuple(sorted(whole.items, key=_place))
    return Section(section.name, section.title, items), whole


def _place(item: Item) -> int:
    """Narrow figures first, so that old and new stand beside each other; then wide ones, then tables."""
    return int(item.wide) if isinstance(item, Figure) else 2


def interaction_chapter(study: _Study) -> Section:
    """The test of interaction with HPV, all endpoints in one table."""
    rows = []
    for endpoint in study.endpoints:
        sample = sample_of_all(study.cohort, endpoint, study.settings)
        if sample.outcome.n:
            rows += interaction_row(sample, study.settings, study.cutoffs)
    return Section("interaction", "Does the effect differ by HPV?", (table_of("interaction", rows),))


def analyse(
    table: pd.DataFrame,
    *,
    endpoints: Sequence[str],
    scheme: Scheme,
    out: Path,
    settings: AnalysisSettings | None = None,
    nodes: pd.DataFrame | None = None,
    on_progress: OnProgress | None = None,
) -> Analysis:
    """Analyse a cohort and write the whole report into a folder.

    Parameters
    ----------
    table : canonical table, one row per patient, with `n_ai_ene`; staged and stratified here where it is not.
    endpoints : out of os, dc, lrc, dfs, dmfs.
    scheme : classes of the count and how they make combined groups.
    out : folder for analysis.json, report.html, tables/, figures/, methods.txt, excluded.csv.
    settings : see there.
    nodes : nodes of a run (`patient_id`, `ene`) for the sensitivity to the ENE threshold.
    on_progress : told after each job.

    Raises
    ------
    UsageError : an endpoint is unknown or, chosen for --derive, not analysed; no patient is left; or T or N
        are of two editions that cannot be brought to one.
    OutputError : the results cannot be written.
    MissingExtraError : the extra `risk` is not installed.
    """
    settings = settings or AnalysisSettings()
    wanted = parse_endpoints(list(endpoints))
    chosen_endpoint(settings, wanted)
    check_also(table, settings.also)
    if "combined_group" not in table or "marker_class" not in table:
        table = stratify(table, scheme)
    cohort = make_cohort(table, settings)
    cohort = replace(cohort, table=with_one_edition(cohort.table, settings.covariates))
    groupings = make_groupings(cohort.table, scheme)
    take_folder(out, _SCHEMES, (MODELS,))
    usable, skipped = _usable(cohort, wanted)
    if settings.derive_endpoint is None:
        settings = replace(settings, derive_endpoint=chosen_endpoint(settings, usable))
    study = _Study(cohort, groupings, scheme, usable, settings)
    sections, parts = _chapters(study, on_progress)
    more: list[tuple[Section, Part]] = []
    if usable:
        sections.append(interaction_chapter(study))
        named = [(p.name, p.label) for p in study.populations]
        sections.append(multiplicity_section(sections, usable, named))
        more.append(locked_chapter(cohort, scheme, usable, settings, out))
    if settings.derive != "no":
        more.append(derive_chapter(cohort, groupings, scheme, usable, settings, out, on_progress))
    if nodes is not None:
        more.append(threshold_chapter(cohort, groupings, scheme, nodes, usable, settings))
    sections += [section for section, _ in more]
    parts += [part for _, part in more]
    sections.insert(0, key_results(sections, usable, settings))
    warnings = [*_warnings(cohort), *(w for p in parts for w in p.warnings)]
    analysis = Analysis(
        head=_head(study),
        sections=tuple(sections),
        skipped=(*skipped, *(s for p in parts for s in p.skipped)),
        warnings=tuple(dict.fromkeys(warnings)),
        simulated=cohort.simulated,
        methods=methods_text(cohort, scheme, usable, settings),
        checklists=checklists(sections, usable, settings),
    )
    left = cohort.left_out
    left += [
        {"patient_id": who, "step": f"endpoint {endpoint}", "reason": why}
        for endpoint in usable
        for who, why in outcome_of(cohort.table, endpoint)[1]
    ]
    write_analysis(analysis, out, excluded=left, workers=settings.jobs, on_progress=on_progress)
    return analysis


def _usable(cohort: Cohort, wanted: Sequence[Endpoint]) -> tuple[tuple[Endpoint, ...], list[Skipped]]:
    usable, skipped = [], []
    for name in wanted:
        reason = missing_reason(cohort.table, name)
        if not reason:
            outcome, _ = outcome_of(cohort.table, name)
            reason = "" if outcome.n else "no analysed patient has both its time and its event"
            if outcome.n and not outcome.time.max() > 0:
                reason = "every time is 0, so nobody is followed"
        if reason:
            skipped.append(Skipped(f"Endpoint {name} ({LABELS[name].lower()})", f"{reason}.", asked=True))
        else:
            usable.append(name)
    return tuple(usable), skipped


def _chapters(study: _Study, on_progress: OnProgress | None) -> tuple[list[Section], list[Part]]:
    chapters = [chapter for endpoint in study.endpoints for chapter in endpoint_chapters(study, endpoint)]
    jobs = [job for chapter in chapters for job in chapter.jobs]
    results = iter(run_jobs(jobs, workers=study.settings.jobs, on_progress=on_progress))
    sections, parts = [_cohort_section(study)], []
    for chapter in chapters:
        section, part = finish(chapter, [next(results) for _ in chapter.jobs], study.settings)
        if section.items:
            sections.append(section)
        parts.append(part)
    return sections, parts


def _cohort_section(study: _Study) -> Section:
    cohort, groupings, settings = study.cohort, study.groupings, study.settings
    items: list[Item | None] = [
        flow_figure(cohort),
        migration_figure(cohort, groupings),
        count_figure(cohort, cap=settings.marker_cap),
        flow_table(cohort, groupings),
        table_one(cohort, groupings.main),
        table_one_hpv(cohort),
        missing_table(cohort, settings.covariates),
    ]
    followed = [
        (f"{LABELS[endpoint]}, {population.label}", outcome)
        for endpoint in study.endpoints
        for population, _, outcome in study.outcomes(endpoint)
    ]
    if followed:
        items.append(follow_up_table(followed))
    return Section("cohort", "The cohort", tuple(i for i in items if i is not None))


def _warnings(cohort: Cohort) -> list[str]:
    warnings = []
    hpv = cohort.table["hpv"].isna().sum()
    n = len(cohort.table)
    if hpv:
        warnings.append(
            f"HPV is unknown in {int(hpv)} of {n} analysed patients; they are in the overall curves, and in "
            "no HPV stratum."
        )
    if n < 50:
        warnings.append(
            f"Only {n} patient{'s' * (n > 1)}: intervals are wide and tests rest on large-sample "
            "theory that does not hold here."
        )
    warnings += edition_warnings(cohort.table)
    if cohort.table["site"].isna().all():
        warnings.append("No primary site is given, so every patient was taken as if it were eligible.")
    return warnings


def _head(study: _Study) -> dict[str, Any]:
    """What the analysis was made with, and its summary."""
    cohort, scheme, settings = study.cohort, study.scheme, study.settings
    rows = [("Patients", f"{cohort.n_input} in the table, {len(cohort.table)} analysed")]
    for endpoint in study.endpoints:
        outcome, _ = outcome_of(cohort.table, endpoint)
        rows.append((LABELS[endpoint], f"{outcome.n_events} events in {outcome.n} patients"))
    sources = sorted({str(s) for s in cohort.table["ai_ene_source"].dropna()}) or ["not stated"]
    rows += [
        ("AI-ENE count", ", ".join(s.upper() if s == "simulated" else s for s in sources)),
        ("Scheme", f"{scheme.name} ({scheme.source.kind}), SHA-256 {scheme.sha256[:12]}"),
        ("Resampling", f"{settings.bootstraps} bootstraps, seed {settings.seed}"),
    ]
    facts = fields_of(scheme, "name", "sha256", "base", "cutoffs", "groups")
    return {
        **head_of(settings),
        "scheme": facts | {"source": scheme.source.kind},
        "endpoints": list(study.endpoints),
        "summary": [{"name": name, "value": value} for name, value in rows],
    }
