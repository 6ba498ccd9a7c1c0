"""REMARK and TRIPOD+AI: which item the report answers, where, and which the authors must fill.

Item titles are our own short words for those of Altman et al. 2012 (REMARK, doi 10.1371/journal.pmed.1001216)
and Collins et al. 2024 (TRIPOD+AI, doi 10.1136/bmj-2023-078378).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiene.risk.analyse.record import Section
from aiene.risk.analyse.settings import AnalysisSettings, Endpoint

_Item = tuple[str, str, str, str]
"""Number, topic, where it is found (empty: the authors), anchor."""


def checklists(
    sections: Sequence[Section], endpoints: Sequence[Endpoint], settings: AnalysisSettings
) -> dict[str, list[dict[str, Any]]]:
    """Both lists; an item whose chapter is not in the report is left to the authors."""
    there = {s.name for s in sections} | {"methods", "made-with"}
    first = endpoints[0] if endpoints else ""
    return {
        "REMARK": [_row(i, there) for i in _remark(first, settings)],
        "TRIPOD+AI": [_row(i, there) for i in _tripod(first, settings)],
    }


def _row(item: _Item, there: set[str]) -> dict[str, Any]:
    number, topic, found, anchor = item
    if anchor and anchor not in there:
        found, anchor = "", ""
    return {"item": number, "topic": topic, "found": found, "anchor": anchor}


def _remark(first: str, settings: AnalysisSettings) -> tuple[_Item, ...]:
    cut = "Cut-offs derived from the data" if settings.derive != "no" else "Methods: scheme and its source"
    cut_anchor = "derived" if settings.derive != "no" else "methods"
    return (
        ("1", "Marker, aims, hypotheses", "", ""),
        (
            "2",
            "Patients: source, inclusion, exclusion",
            "Flow of patients and exclusions; the source is for the authors",
            "cohort",
        ),
        ("3", "Treatments and how they were chosen", "", ""),
        ("4", "Material: the CTs (scanner, contrast, slice thickness)", "", ""),
        (
            "5",
            "Assay: model, threshold, how nodes are split",
            "Methods: model and threshold of the count",
            "methods",
        ),
        (
            "6",
            "Design, period, follow-up",
            "Follow-up by reverse Kaplan-Meier; design and period are for the authors",
            "cohort",
        ),
        ("7", "Endpoints", "Methods: endpoints and their events", "methods"),
        ("8", "Candidate variables", "Methods: covariates and their coding", "methods"),
        ("9", "Sample size", "Events per parameter, below each adjusted model", f"{first}-cox"),
        ("10", "Statistical methods, assumptions, missing data", "Methods", "methods"),
        ("11", "How cut-points were chosen", cut, cut_anchor),
        ("12", "Flow of patients, events", "Flow of patients", "cohort"),
        ("13", "Demographics and marker distribution", "Table 1, AI-ENE nodes per patient", "cohort"),
        ("14", "Marker against standard factors", "Table 1 by group and by HPV", "cohort"),
        (
            "15",
            "Univariable effect with interval, curves",
            "Curves and tests; hazard ratios alone",
            f"{first}-curves",
        ),
        ("16", "Multivariable effect with interval", "Regression: adjusted hazard ratios", f"{first}-cox"),
        (
            "17",
            "With standard factors regardless of significance",
            "Regression: all factors stay in the model",
            f"{first}-cox",
        ),
        (
            "18",
            "Further: assumptions, sensitivity, validation",
            "Does AI-ENE add anything; proportional hazards",
            f"{first}-added",
        ),
        ("19", "Interpretation and limits", "", ""),
        ("20", "Outlook and clinical value", "", ""),
    )


def _tripod(first: str, settings: AnalysisSettings) -> tuple[_Item, ...]:
    derived = "Cut-offs derived from the data" if settings.derive != "no" else "Methods: pre-specified scheme"
    derived_anchor = "derived" if settings.derive != "no" else "methods"
    return (
        ("1", "Title", "", ""),
        ("2", "Abstract", "", ""),
        ("3", "Background, context, health inequalities", "", ""),
        ("4", "Objectives", "", ""),
        ("5", "Data: sources and dates", "", ""),
        (
            "6",
            "Participants: setting, eligibility, treatment",
            "Flow of patients; setting is for the authors",
            "cohort",
        ),
        ("7", "Data preparation", "Methods: coding, units, exclusions", "methods"),
        ("8", "Outcome and horizon", "Methods: endpoints; horizons in the settings", "methods"),
        ("9", "Predictors", "Methods: covariates and their coding", "methods"),
        ("10", "Sample size", "Events per parameter, below each adjusted model", f"{first}-cox"),
        ("11", "Missing data", "Missing covariates; complete cases and imputation", "cohort"),
        ("12", "Analytical methods", "Methods", "methods"),
        ("13", "Class imbalance", "Events and patients of each model", f"{first}-cox"),
        ("14", "Fairness", "HPV strata and interaction; other groups are for the authors", "interaction"),
        ("15", "Model output", "Scheme and models", "made-with"),
        ("16", "Training against evaluation", derived, derived_anchor),
        ("17", "Ethical approval", "", ""),
        (
            "18",
            "Open science: funding, conflicts, protocol, registration, data, code",
            "Code and versions: made with; the rest is for the authors",
            "made-with",
        ),
        ("19", "Patient and public involvement", "", ""),
        ("20", "Participants: flow and characteristics", "Flow, table 1, follow-up", "cohort"),
        ("21", "Model development: participants and events", "n and events of each model", f"{first}-cox"),
        ("22", "Model specification", "Hazard ratios of each model", f"{first}-cox"),
        ("23", "Model performance", "Does AI-ENE add anything", f"{first}-added"),
        ("24", "Model updating", "", ""),
        ("25", "Interpretation", "", ""),
        ("26", "Limitations", "", ""),
        ("27", "Usability in current care", "", ""),
    )
