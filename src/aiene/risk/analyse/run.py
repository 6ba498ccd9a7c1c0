"""The whole analysis in one call: its steps as jobs, and the chapters that their results go into."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiene.parallel import Job, OnProgress, run_jobs
from aiene.report.document import Figure, Item, Section
from aiene.results.atomic import make_folder
from aiene.results.ownership import Owned
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
from aiene.risk.analyse.incremental_value import assess
from aiene.risk.analyse.incremental_value_tables import added_part
from aiene.risk.analyse.key_results import key_results, multiplicity_section
from aiene.risk.analyse.locked_chapter import FOLDER as MODELS
from aiene.risk.analyse.locked_chapter import locked_chapter
from aiene.risk.analyse.marker_effect import forms_part, interaction_row, interaction_table
from aiene.risk.analyse.model_comparison import Added, model_comparisons
from aiene.risk.analyse.output import write_analysis
from aiene.risk.analyse.records import (
    Analysis,
    AnalysisSettings,
    Endpoint,
    Part,
    Skipped,
    chosen_endpoint,
    fields_of,
    parse_endpoints,
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
from aiene.risk.analyse.sensitivity.covariates import burden_part, check_also, imputed_part
from aiene.risk.analyse.sensitivity.subgroups import centre_part, subgroups_part
from aiene.risk.analyse.sensitivity.time_effect import groups_part, models_part
from aiene.risk.analyse.survival import competing_part, follow_up_table, survival_part
from aiene.risk.analyse.text import checklists, head_of, methods_text
from aiene.risk.analyse.threshold_sensitivity import threshold_chapter
from aiene.risk.stratify import stratify

if TYPE_CHECKING:
    import pandas as pd

    from aiene.risk.schemes.scheme import Scheme

_SCHEMES = tuple(scheme_file(chapter) for chapter in ("", *CHAPTERS))


# Jobs and chapters


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
    samples = [
        make_sample(p.name, p.label, cohort.table.iloc[p.rows].reset_index(drop=True), o, settings.covariates)
        for p, o in zip(populations, outcomes, strict=True)
        if o.n
    ]
    whole = _stratum(cohort, populations[0], outcomes[0], groupings.main)
    chapters = {
        ("curves", "curves and tests"): _curve_jobs(cohort, populations, outcomes, groupings, settings),
        ("cox", "regression"): _model_jobs(samples, groupings, settings),
        ("added", "does AI-ENE add anything?"): _comparison_jobs(samples, groupings, settings),
        ("sensitivity", "does the effect hold?"): _sensitivity_jobs(samples, whole, settings),
    }
    return tuple(
        Chapter(Section(f"{endpoint}-{name}", f"{LABELS[endpoint]}: {title}", ()), tuple(jobs))
        for (name, title), jobs in chapters.items()
    )


def _sensitivity_jobs(samples: Sequence[Sample], whole: Stratum, settings: AnalysisSettings) -> list[Job]:
    """Of all patients: subgroups, centres, other nodes, and the effect over time.

    Parameters
    ----------
    whole : all patients in the main grouping.
    """
    jobs = []
    for sample in (s for s in samples if s.name == "all"):
        label = sample.outcome.label
        jobs.append(_job(f"{label}: subgroups", subgroups_part, (sample, settings), 4))
        jobs.append(_job(f"{label}: more than one centre", centre_part, (sample, settings), 4))
        jobs.append(_job(f"{label}: AI-ENE, or just more nodes?", burden_part, (sample, settings), 3))
        jobs.append(_job(f"{label}: the effect over time", models_part, (sample, settings), 6))
        what = f"{label} by {whole.grouping.title}, hazards not proportional"
        jobs.append(_job(what, groups_part, (whole, settings), 2))
    return jobs


def _job(what: str, function: Callable[..., Any], arguments: tuple[Any, ...], weight: float) -> Job:
    """A job that ends in a part of the report, or in the reason why there is none."""
    return Job(what, guarded, (what, function, *arguments), weight)


def _curve_jobs(
    cohort: Cohort,
    populations: Sequence[Population],
    outcomes: Sequence[Outcome],
    groupings: Groupings,
    settings: AnalysisSettings,
) -> list[Job]:
    jobs = []
    for grouping in (*groupings.shown, *groupings.chapters):
        strata = [_stratum(cohort, p, o, grouping) for p, o in zip(populations, outcomes, strict=True)]
        strata = strata[:1] if grouping.chapter else strata  # a chapter of AJCC-8 is a stratum already
        what = f"{strata[0].outcome.label} by {grouping.title}"
        jobs.append(_job(what, survival_part, (strata, settings), 2))
        if strata[0].outcome.competes and grouping not in groupings.chapters:
            jobs.append(_job(f"{what}, death competing", competing_part, (strata, settings), 4))
    return jobs


def _stratum(cohort: Cohort, population: Population, outcome: Outcome, grouping: Grouping) -> Stratum:
    ranks = grouping.rank(cohort.table)[population.rows][outcome.rows]
    within = {"centres": "center"} | ({"HPV strata": "hpv"} if population.name == "all" else {})
    layers = {
        what: words(cohort.table, column)[population.rows][outcome.rows] for what, column in within.items()
    }
    return Stratum(population.name, population.label, outcome, ranks, grouping, layers)


def _model_jobs(samples: Sequence[Sample], groupings: Groupings, settings: AnalysisSettings) -> list[Job]:
    jobs = []
    for sample in samples:
        what = f"{sample.outcome.label}, {sample.label}"
        jobs.append(_job(f"Cox, {what}", cox_part, (sample, settings), 3))
        if sample.outcome.competes:
            jobs.append(_job(f"Fine-Gray, {what}", fine_gray_part, (sample, settings), 6))
        forms = (sample, settings, _cutoffs(groupings))
        jobs.append(_job(f"Forms of the count, {what}", forms_part, forms, 3))
        if settings.impute and sample.outcome.n_events:
            weight = 10.0 * settings.imputations
            jobs.append(_job(f"Imputation, {what}", imputed_part, (sample, settings), weight))
        jobs.append(_job(f"Proportional hazards, {what}", hazards_part, (sample, settings), 3))
    return jobs


def _comparison_jobs(
    samples: Sequence[Sample], groupings: Groupings, settings: AnalysisSettings
) -> list[Job]:
    jobs = []
    for sample in samples:
        for comparison in model_comparisons(sample, groupings, settings.marker_cap):
            of = f"{comparison.outcome.label}, {comparison.population}, {comparison.title}"
            size = max(0.2, comparison.outcome.n / 1000) * len(comparison.models) / 2
            weight = 5 + settings.bootstraps * size
            jobs.append(_job(f"{of} with and without AI-ENE", assess, (comparison, settings), weight))
    return jobs


def _cutoffs(groupings: Groupings) -> tuple[int, ...]:
    """Lower bounds of the marker classes above the first."""
    return tuple(int(re.findall(r"\d+", label)[0]) for label in groupings.marker.order[1:])


def finish(chapter: Chapter, results: Sequence[Any], settings: AnalysisSettings) -> tuple[Section, Part]:
    """The chapter with its items; the comparisons of an endpoint come together in common tables."""
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
    rows = []
    for endpoint in endpoints:
        sample = sample_of_all(cohort, endpoint, settings)
        if sample.outcome.n:
            rows += interaction_row(sample, settings, _cutoffs(groupings))
    return Section("interaction", "Does the effect differ by HPV?", (interaction_table(rows),))


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
    make_folder(out)  # before the work, so that a place that cannot be written to is told at once
    _take(out)
    usable, skipped = _usable(cohort, wanted)
    if settings.derive_endpoint is None:
        settings = replace(settings, derive_endpoint=chosen_endpoint(settings, usable))
    sections, parts = _chapters(cohort, groupings, usable, settings, on_progress)
    if usable:
        sections.append(interaction_chapter(cohort, groupings, usable, settings))
        named = [(p.name, p.label) for p in cohort.populations(strata=settings.hpv_strata)]
        sections.append(multiplicity_section(sections, usable, named))
    for section, part in _extras(cohort, groupings, scheme, usable, settings, nodes, out, on_progress):
        sections.append(section)
        parts.append(part)
    sections.insert(0, key_results(sections, usable, settings))
    skipped += [s for p in parts for s in p.skipped]
    warnings = [*_warnings(cohort), *(w for p in parts for w in p.warnings)]
    analysis = _analysis(cohort, scheme, usable, settings, sections, skipped, warnings)
    left = cohort.left_out
    left += [
        {"patient_id": who, "step": f"endpoint {endpoint}", "reason": why}
        for endpoint in usable
        for who, why in outcome_of(cohort.table, endpoint)[1]
    ]
    write_analysis(analysis, out, excluded=left, workers=settings.jobs, on_progress=on_progress)
    return analysis


def _take(out: Path) -> None:
    """Make sure of our places in a folder, without what an earlier analysis left: old and new never mix.

    Raises
    ------
    UsageError : files of the user's are in the way.
    """
    owned = Owned(out)
    owned.check("analysis.json", "report.html", "methods.txt", "excluded.csv", *_SCHEMES)
    for folder in ("tables", "figures", MODELS):
        owned.clear(out / folder)
        owned.claim(folder)
    for name in _SCHEMES:
        owned.remove(out / name)


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


def _chapters(
    cohort: Cohort,
    groupings: Groupings,
    endpoints: Sequence[Endpoint],
    settings: AnalysisSettings,
    on_progress: OnProgress | None,
) -> tuple[list[Section], list[Part]]:
    chapters = [c for e in endpoints for c in endpoint_chapters(cohort, groupings, e, settings)]
    jobs = [job for chapter in chapters for job in chapter.jobs]
    results = iter(run_jobs(jobs, workers=settings.jobs, on_progress=on_progress))
    sections, parts = [_cohort_section(cohort, groupings, endpoints, settings)], []
    for chapter in chapters:
        section, part = finish(chapter, [next(results) for _ in chapter.jobs], settings)
        if section.items:
            sections.append(section)
        parts.append(part)
    return sections, parts


def _cohort_section(
    cohort: Cohort, groupings: Groupings, endpoints: Sequence[Endpoint], settings: AnalysisSettings
) -> Section:
    items: list[Item | None] = [
        flow_figure(cohort),
        migration_figure(cohort, groupings),
        count_figure(cohort, cap=settings.marker_cap),
        flow_table(cohort, groupings),
        table_one(cohort, groupings.main),
        table_one_hpv(cohort),
        missing_table(cohort, settings.covariates),
    ]
    followed: list[tuple[str, Any]] = []
    for endpoint in endpoints:
        for population in cohort.populations(strata=settings.hpv_strata):
            own = cohort.table.iloc[population.rows].reset_index(drop=True)
            followed.append((f"{LABELS[endpoint]}, {population.label}", outcome_of(own, endpoint)[0]))
    if followed:
        items.append(follow_up_table(followed))
    return Section("cohort", "The cohort", tuple(i for i in items if i is not None))


def _extras(
    cohort: Cohort,
    groupings: Groupings,
    scheme: Scheme,
    endpoints: Sequence[Endpoint],
    settings: AnalysisSettings,
    nodes: pd.DataFrame | None,
    out: Path,
    on_progress: OnProgress | None,
) -> list[tuple[Section, Part]]:
    found: list[tuple[Section, Part]] = []
    if endpoints:
        found.append(locked_chapter(cohort, scheme, endpoints, settings, out))
    if settings.derive != "no":
        found.append(derive_chapter(cohort, groupings, scheme, endpoints, settings, out, on_progress))
    if nodes is not None:
        found.append(threshold_chapter(cohort, groupings, scheme, nodes, endpoints, settings))
    return found


def _warnings(cohort: Cohort) -> list[str]:
    warnings = []
    hpv = cohort.table["hpv"].isna().sum()
    if hpv:
        warnings.append(
            f"HPV is unknown in {int(hpv)} of {len(cohort.table)} analysed patients; they are in the "
            "overall curves, and in no HPV stratum."
        )
    n = len(cohort.table)
    if n < 50:
        warnings.append(
            f"Only {n} patient{'s' * (n > 1)}: intervals are wide and tests rest on large-sample "
            "theory that does not hold here."
        )
    warnings += edition_warnings(cohort.table)
    if cohort.table["site"].isna().all():
        warnings.append("No primary site is given, so every patient was taken as if it were eligible.")
    return warnings


def _analysis(
    cohort: Cohort,
    scheme: Scheme,
    endpoints: Sequence[Endpoint],
    settings: AnalysisSettings,
    sections: list[Section],
    skipped: list[Skipped],
    warnings: list[str],
) -> Analysis:
    facts = fields_of(scheme, "name", "sha256", "base", "cutoffs", "groups")
    head = {
        **head_of(settings),
        "scheme": facts | {"source": scheme.source.kind},
        "endpoints": list(endpoints),
        "summary": _summary(cohort, scheme, endpoints, settings),
    }
    return Analysis(
        head=head,
        sections=tuple(sections),
        skipped=tuple(skipped),
        warnings=tuple(dict.fromkeys(warnings)),
        simulated=cohort.simulated,
        methods=methods_text(cohort, scheme, endpoints, settings),
        checklists=checklists(sections, endpoints, settings),
    )


def _summary(
    cohort: Cohort, scheme: Scheme, endpoints: Sequence[Endpoint], settings: AnalysisSettings
) -> list[dict[str, str]]:
    rows = [("Patients", f"{cohort.n_input} in the table, {len(cohort.table)} analysed")]
    for endpoint in endpoints:
        outcome, _ = outcome_of(cohort.table, endpoint)
        rows.append((LABELS[endpoint], f"{outcome.n_events} events in {outcome.n} patients"))
    sources = sorted({str(s) for s in cohort.table["ai_ene_source"].dropna()}) or ["not stated"]
    rows += [
        ("AI-ENE count", ", ".join(s.upper() if s == "simulated" else s for s in sources)),
        ("Scheme", f"{scheme.name} ({scheme.source.kind}), SHA-256 {scheme.sha256[:12]}"),
        ("Resampling", f"{settings.bootstraps} bootstraps, seed {settings.seed}"),
    ]
    return [{"name": name, "value": value} for name, value in rows]
