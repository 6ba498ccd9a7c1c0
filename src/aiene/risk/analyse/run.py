"""All of the analysis in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiene.results.atomic import make_folder
from aiene.results.ownership import Owned
from aiene.risk.analyse.cohort import Cohort, make_cohort
from aiene.risk.analyse.describe import (
    count_figure,
    flow_figure,
    flow_table,
    migration_figure,
    missing_table,
    table_one,
    table_one_hpv,
)
from aiene.risk.analyse.grouping import Groupings, make_groupings
from aiene.risk.analyse.outcome import LABELS, missing_reason, outcome_of
from aiene.risk.analyse.plan import Chapter, endpoint_chapters, finish, interaction_chapter
from aiene.risk.analyse.pool import OnProgress, run_jobs
from aiene.risk.analyse.record import Analysis, Item, Part, Section, Skipped
from aiene.risk.analyse.settings import AnalysisSettings, Endpoint, chosen_endpoint, parse_endpoints
from aiene.risk.analyse.survival import follow_up_table

if TYPE_CHECKING:
    import pandas as pd

    from aiene.risk.schemes import Scheme

_SCHEME = "scheme_derived.toml"
RESEARCH_ONLY = "Research software, not a medical device."


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
    endpoints : out of os, dc, lrc, dfs.
    scheme : classes of the count and how they make combined groups.
    out : folder for analysis.json, report.html, tables/, figures/, methods.txt, excluded.csv.
    settings : see there.
    nodes : nodes of a run (`patient_id`, `ene`) for the sensitivity to the ENE threshold.
    on_progress : told after each job.

    Raises
    ------
    UsageError : an endpoint is unknown or, chosen for --derive, not analysed; or no patient is left.
    OutputError : the results cannot be written.
    MissingExtraError : the extra `risk` is not installed.
    """
    from aiene.risk.analyse.report import write_analysis

    settings = settings or AnalysisSettings()
    wanted = parse_endpoints(list(endpoints))
    chosen_endpoint(settings, wanted)
    if "combined_group" not in table or "marker_class" not in table:
        from aiene.risk.stratify import stratify

        table = stratify(table, scheme)
    cohort = make_cohort(table, settings)
    groupings = make_groupings(cohort.table, scheme)
    make_folder(out)  # before the work, so that a place that cannot be written to is told at once
    _take(out)
    usable, skipped = _usable(cohort, wanted)
    if settings.derive_endpoint is None:
        settings = replace(settings, derive_endpoint=chosen_endpoint(settings, usable))
    sections, parts = _chapters(cohort, groupings, usable, settings, on_progress)
    if usable:
        sections.append(interaction_chapter(cohort, groupings, usable, settings))
    for section, part in _extras(cohort, groupings, scheme, usable, settings, nodes, out, on_progress):
        sections.append(section)
        parts.append(part)
    skipped += [s for p in parts for s in p.skipped]
    warnings = [*_warnings(cohort), *(w for p in parts for w in p.warnings)]
    analysis = _analysis(cohort, scheme, usable, settings, sections, skipped, warnings)
    left = [
        {"patient_id": who, "step": step.name, "reason": why}
        for step in cohort.steps
        for who, why in step.left
    ]
    left += _left_per_endpoint(cohort, usable)
    write_analysis(analysis, out, excluded=left, workers=settings.jobs, on_progress=on_progress)
    return analysis


def _take(out: Path) -> None:
    """Make sure of our places in a folder, without what an earlier analysis left: old and new never mix.

    Raises
    ------
    UsageError : files of the user's are in the way.
    """
    owned = Owned(out)
    owned.check("analysis.json", "report.html", "methods.txt", "excluded.csv", _SCHEME)
    for folder in ("tables", "figures"):
        owned.clear(out / folder)
        owned.claim(folder)
    owned.remove(out / _SCHEME)


def _usable(cohort: Cohort, wanted: Sequence[Endpoint]) -> tuple[tuple[Endpoint, ...], list[Skipped]]:
    usable, skipped = [], []
    for name in wanted:
        reason = missing_reason(cohort.table, name)
        if not reason:
            outcome, _ = outcome_of(cohort.table, name)
            reason = "" if outcome.n else "no analysed patient has both its time and its event"
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
    chapters: list[Chapter] = [
        c for e in endpoints for c in endpoint_chapters(cohort, groupings, e, settings)
    ]
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
    if settings.derive != "no":
        from aiene.risk.analyse.derive import derive_chapter

        found.append(derive_chapter(cohort, groupings, scheme, endpoints, settings, out, on_progress))
    if nodes is not None:
        from aiene.risk.analyse.thresholds import threshold_chapter

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
    if cohort.table["site"].isna().all():
        warnings.append("No primary site is given, so every patient was taken as if it were eligible.")
    return warnings


def _left_per_endpoint(cohort: Cohort, endpoints: Sequence[Endpoint]) -> list[dict[str, Any]]:
    return [
        {"patient_id": who, "step": f"endpoint {endpoint}", "reason": why}
        for endpoint in endpoints
        for who, why in outcome_of(cohort.table, endpoint)[1]
    ]


def _analysis(
    cohort: Cohort,
    scheme: Scheme,
    endpoints: Sequence[Endpoint],
    settings: AnalysisSettings,
    sections: list[Section],
    skipped: list[Skipped],
    warnings: list[str],
) -> Analysis:
    from aiene.risk.analyse.report.checklists import checklists
    from aiene.risk.analyse.report.methods import methods_text, software

    # The number of processes changes no result, and so has no place in files that are the same on each run.
    kept = {k: v for k, v in asdict(settings).items() if k != "jobs"}
    facts = {
        "name": scheme.name,
        "sha256": scheme.sha256,
        "base": scheme.base,
        "cutoffs": list(scheme.cutoffs),
        "groups": list(scheme.groups),
        "source": scheme.source.kind,
    }
    head = {
        "title": settings.title,
        "date": settings.date,
        "notice": RESEARCH_ONLY,
        "software": software(),
        "settings": kept,
        "scheme": facts,
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
