"""Text of the report: the methods paragraph, and the REMARK and TRIPOD+AI checklists.

The checklists say which item the report answers, where, and which ones the authors must fill in. Item titles
are our own short wording of Altman et al. 2012 (REMARK, doi 10.1371/journal.pmed.1001216) and Collins et al.
2024 (TRIPOD+AI, doi 10.1136/bmj-2023-078378).
"""

from __future__ import annotations

import csv
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

from aiene.report.document import RESEARCH_ONLY, Section
from aiene.risk.analyse.cohort import COMPETING, EVENTS, LABELS, Cohort
from aiene.risk.analyse.design import make_design
from aiene.risk.analyse.records import AnalysisSettings, Endpoint

if TYPE_CHECKING:
    from aiene.risk.schemes.scheme import Scheme


_PACKAGES = ("aiene", "lifelines", "comprisk", "numpy", "scipy", "pandas", "matplotlib")


def software() -> dict[str, str]:
    """Versions of what computes and draws."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def head_of(settings: AnalysisSettings) -> dict[str, Any]:
    """What a report was made with, for the head of `analysis.json`."""
    # The number of processes changes no result, and so has no place in files that are the same on each run.
    kept = {k: v for k, v in asdict(settings).items() if k != "jobs"}
    head = {"title": settings.title, "date": settings.date, "notice": RESEARCH_ONLY}
    return head | {"software": software(), "settings": kept}


def methods_text(
    cohort: Cohort, scheme: Scheme, endpoints: Sequence[Endpoint], settings: AnalysisSettings
) -> str:
    """Paragraphs, parted by an empty line."""
    paragraphs = [
        _patients(cohort, settings),
        _marker(cohort, scheme, settings),
        _survival(endpoints, settings),
        _regression(cohort, settings),
        _added(settings),
        _robust(settings),
    ]
    if settings.derive != "no":
        paragraphs.append(_derived(settings))
    versions = software()
    named = ", ".join(f"{name} {versions[name]}" for name in ("lifelines", "comprisk", "numpy", "scipy"))
    paragraphs.append(
        f"Analyses were run with aiene {versions['aiene']} (Python {versions['python']}, {named}). Every "
        f"random step used seed {settings.seed}; the same table and settings give the same results. All "
        f"tests are two-sided; intervals are at {settings.confidence:.0%}; p-values are not adjusted for the "
        "number of analyses except where Holm's correction is named. Research software, not a medical device."
    )
    return "\n\n".join(paragraphs)


def _patients(cohort: Cohort, settings: AnalysisSettings) -> str:
    origins = sorted({str(o).replace("_", " ") for o in cohort.table["time_origin"].dropna()})
    origin = f"Times run from {' or '.join(origins)}" if origins else "The origin of the times was not stated"
    out = "; ".join(f"{s.reason} (n = {len(s.left)})" for s in cohort.steps if s.left) or "none"
    return (
        f"Of {cohort.n_input} patients in the table, {len(cohort.table)} were analysed; left out, in this "
        f"order: {out}. {origin}, in years of 365.25 days. Follow-up was estimated by the reverse "
        "Kaplan-Meier method, every event (and death before it) censoring it."
    )


def _marker(cohort: Cohort, scheme: Scheme, settings: AnalysisSettings) -> str:
    table = cohort.table
    models = sorted({str(m) for m in table["ai_model"].dropna()})
    thresholds = sorted({float(t) for t in table["ai_threshold"].dropna()})
    by = f" by model {', '.join(models)}" if models else ""
    at = f" at a threshold of {', '.join(f'{t:g}' for t in thresholds)}" if thresholds else ""
    source = "pre-specified" if scheme.source.kind == "prespecified" else "derived"
    count = "The marker was the number of nodes per patient that were called ENE" + by + at + "."
    if cohort.simulated:
        count = "THE MARKER WAS SIMULATED: no CT was read for it, and no result says anything about patients."
    base = "no base grouping" if scheme.base == "none" else f"base grouping {scheme.base}"
    return (
        f"{count} Groups followed scheme {scheme.name} ({base}; count classes {', '.join(scheme.classes)}; "
        f"cut-offs {source}; SHA-256 {scheme.sha256[:12]}). As a continuous term the count was capped at "
        f"{settings.marker_cap} where this is said."
    )


_LATE_DEATH = {
    None: "when it happened unless the table says otherwise (dm_censor_at)",
    "last_followup": "when it happened",
    "last_imaging": "not at all, the patient being censored there",
}


def _survival(endpoints: Sequence[Endpoint], settings: AnalysisSettings) -> str:
    named = "; ".join(f"{LABELS[e].lower()} (event: {EVENTS[e]})" for e in endpoints) or "none"
    text = (
        f"Endpoints were {named}. Survival was estimated by Kaplan-Meier with log-log intervals (before the "
        "first event those of Clopper and Pearson, for the patients whose state was known) and compared by "
        "log-rank tests, overall, for trend over the ordered groups, and in pairs with Holm's correction."
    )
    if any(e in COMPETING for e in endpoints):
        text += (
            " For control endpoints death before the event competed, a death after the end of the endpoint's "
            f"own follow-up {_LATE_DEATH[settings.dm_censor_at]}: cumulative incidence was estimated by "
            "Aalen-Johansen and compared by Gray's test, with 1 - Kaplan-Meier shown beside it; Fine-Gray "
            "models with robust variance stand next to cause-specific Cox models."
        )
    return text


def _regression(cohort: Cohort, settings: AnalysisSettings) -> str:
    design = make_design(cohort.table, settings.covariates)
    coded = []
    for term in design.terms:
        levels = f" ({', '.join((term.reference, *term.levels))}; reference first)" if term.reference else ""
        coded.append(f"{term.label}{levels}")
    unused = "".join(f" {label} was not used: {why}." for label, why in design.dropped)
    missing = (
        "complete cases, and again after multiple imputation (chained equations, m = "
        f"{settings.imputations}, event and Nelson-Aalen "
        "hazard among the predictors, Rubin's rules; HPV, the count and outcomes are never imputed)"
        if settings.impute
        else "complete cases"
    )
    return (
        "Hazard ratios came from Cox models with Efron's ties, alone and adjusted for "
        f"{', '.join(coded) or 'nothing'}, on {missing}.{unused} The tables of hazard ratios were fitted by "
        "lifelines, the models that are compared and resampled by an own Newton fit of the same likelihood, "
        "which agrees with it to eight digits. Where an estimate ran to infinity, Firth's penalised "
        "likelihood took its place, and the table says so. Proportional hazards were checked by scaled "
        "Schoenfeld residuals. The count was modelled as continuous, capped, logarithmic, in classes and as "
        "a restricted cubic spline. Differences of its effect between HPV strata were tested by the "
        "likelihood ratio of product terms."
    )


def _added(settings: AnalysisSettings) -> str:
    years = ", ".join(f"{y:g}" for y in settings.horizons)
    calibrated = " and ".join(f"{y:g}" for y in settings.calibration_years)
    return (
        "Whether AI-ENE adds to an old system was judged on the same patients by the likelihood-ratio test "
        "of nested Cox models, Harrell's and Uno's C with paired differences (of ordered groups by the order "
        f"they were given), cumulative/dynamic AUC at {years} years, the integrated Brier score, calibration "
        f"at {calibrated} years, a decision curve and a reclassification table at "
        f"{settings.decision_years:g} years. Intervals are percentiles of {settings.bootstraps} bootstrap "
        "resamples of patients; C, its difference and the calibration slope were corrected for optimism by "
        "fitting the models anew in each resample (Harrell). Weights for censoring were 1 / G(T-) at an "
        "event or competing event at T and 1 / G(t) beyond a horizon t, G being the Kaplan-Meier curve of "
        "censoring; absolute risks came from the cumulative hazard of the Cox fit with Efron's ties, with "
        "death competing from Fine and Gray's model (Breslow's ties)."
    )


def _robust(settings: AnalysisSettings) -> str:
    also = f" and {', '.join(settings.also)}" if settings.also else ""
    return (
        "Whether the adjusted effect of the count holds was examined in all patients: in subgroups, with one "
        "likelihood-ratio test of interaction each; with centres as covariate, as strata, as clusters (Lin "
        "and Wei) and as a normal frailty (penalised partial likelihood), and pooled over the centres by "
        f"random effects; beside number and volume of nodes{also}; by period (0 to 1, 1 to 3 years, later) "
        "and from landmarks at 6 and 12 months on; with splines of age and pack-years. Groups were also "
        "compared by restricted means and weighted log-rank tests. E-values are those of VanderWeele and "
        "Ding. The count's adjusted effect over all endpoints was corrected by Holm's method, in all "
        "patients and in the HPV strata as two families."
    )


def _derived(settings: AnalysisSettings) -> str:
    how = (
        f"on a random {settings.train_fraction:.0%} of the patients, stratified by event, and reported "
        "on the others only"
        if settings.derive == "split"
        else f"anew in every training part of {settings.repeats} times repeated {settings.folds}-fold "
        "cross-validation, and judged on the left-out folds"
    )
    return (
        f"Cut-offs and groups were derived for {LABELS[settings.derive_endpoint or 'dc'].lower()} {how}; the "
        "whole search space is reported, with a "
        f"permutation control of {settings.permutations} shuffles of the count within base groups."
    )


# Checklists


def checklists(
    sections: Sequence[Section], endpoints: Sequence[Endpoint], settings: AnalysisSettings
) -> dict[str, list[dict[str, Any]]]:
    """Both lists, from `checklists.csv`; an item whose chapter is not in the report is left to the authors.

    `places` of the file is the anchor of a chapter, then those of its tables and figures; `derived` marks an
    item that the chapter of derived cut-offs answers where there is one.
    """
    there = {s.name for s in sections} | {"methods", "made-with"}
    first = endpoints[0] if endpoints else ""
    found: dict[str, list[dict[str, Any]]] = {}
    text = (resources.files("aiene.risk.analyse") / "checklists.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        told, (anchor, *shows) = row["found"], row["places"].format(first=first).split() or [""]
        if row["derived"] and settings.derive != "no":
            told, anchor = "Cut-offs derived from the data", "derived"
        if anchor and anchor not in there:
            told, anchor, shows = "", "", []
        item = {"item": row["item"], "topic": row["topic"], "found": told, "anchor": anchor, "shows": shows}
        found.setdefault(row["checklist"], []).append(item)
    return found
