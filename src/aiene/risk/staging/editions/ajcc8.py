"""AJCC/UICC edition 8, oropharynx: which chapter, and what each takes."""

from __future__ import annotations

from aiene.risk.staging import ajcc8_negative, ajcc8_positive
from aiene.risk.staging.decision import Decision, not_applicable, unknown
from aiene.risk.staging.nodes import Contradiction, measured, over_readings
from aiene.risk.staging.stage import (
    NEGATIVE,
    POSITIVE,
    Edition,
    Inputs,
    Patient,
    StagingOptions,
    node_facts,
    over_n,
)


def _decide(patient: Patient) -> tuple[Decision, ...]:
    return patient.chapter, *_ajcc8(patient.inputs, patient.chapter, patient.m, patient.options)


def _ajcc8(inputs: Inputs, chapter: Decision, m: Decision, options: StagingOptions) -> list[Decision]:
    """T, clinical N and stage, pathological N and stage of edition 8."""
    if chapter.value is None:
        return [chapter] * 5
    given = inputs.t8 or inputs.t7
    if chapter.value == POSITIVE:
        t, n = ajcc8_positive.t8(given), _n8_positive(inputs)
        pn = _pn8_positive(inputs)
        stage = ajcc8_positive.stage_over_n(ajcc8_positive.clinical_stage, given, n, m)
        p_stage = ajcc8_positive.stage_over_n(ajcc8_positive.pathological_stage, inputs.pt8, pn, m)
    else:
        t, n = ajcc8_negative.t8(given), _n8_negative(inputs, options)
        pn = _pn8_negative(inputs)
        stage = over_n(ajcc8_negative.stage8, given, n, m)
        p_stage = over_n(ajcc8_negative.stage8, inputs.pt8, pn, m)
        stage = _because_of_t(stage, t)
    no_surgery = not_applicable("no pathological T, N or number of positive nodes")
    operated = inputs.pt8 or inputs.pn8 or inputs.n_positive_nodes is not None
    path = [pn, p_stage] if operated else [no_surgery] * 2
    return [d if not d.applicable else d.flagged(*chapter.flags) for d in (t, n, stage, *path)]


def _because_of_t(stage: Decision, t: Decision) -> Decision:
    """The stage's reason, with T's own where T is what is wrong."""
    if stage.value is not None or t.value is not None or t.reason == "missing: T":
        return stage
    return unknown(f"{t.reason}; {stage.reason}", stage.possible)


def _n8_positive(inputs: Inputs) -> Decision:
    if inputs.n8 is not None:
        facts = node_facts(inputs._replace(n7=None), POSITIVE, own="")
        return facts if isinstance(facts, Decision) else Decision(inputs.n8, "given")
    facts = node_facts(inputs, POSITIVE, own="n8")
    return facts if isinstance(facts, Decision) else over_readings(facts, ajcc8_positive.clinical_n)


def _n8_negative(inputs: Inputs, options: StagingOptions) -> Decision:
    if inputs.n8 is not None:
        return Decision(inputs.n8, "given")
    facts = node_facts(inputs, NEGATIVE, own="n8")
    if isinstance(facts, Decision):
        return facts
    assumed = inputs.clinical_ene is None and options.ene_unknown == "negative"
    ene = False if assumed else inputs.clinical_ene
    made = over_readings([one.with_ene(ene) for one in facts], ajcc8_negative.clinical_n)
    with_nodes = made.value not in (None, "N0", "NX") or len(facts) > 1
    return made.flagged("ene_assumed_negative") if assumed and with_nodes else made


def _pn8_positive(inputs: Inputs) -> Decision:
    if inputs.pn8 is not None:
        if inputs.pn8 not in ("N0", "N1", "N2", "NX"):
            return unknown(f"p{inputs.pn8} does not exist in edition 8 for p16-positive disease")
        return Decision(inputs.pn8, "given")
    return ajcc8_positive.pathological_n(inputs.n_positive_nodes)


def _pn8_negative(inputs: Inputs) -> Decision:
    if inputs.pn8 is not None:
        return Decision(inputs.pn8, "given")
    try:
        facts = measured(inputs.n_positive_nodes, inputs.p_node_laterality, inputs.p_largest_node_cm)
    except Contradiction as error:
        return unknown(f"contradiction: {error}")
    return ajcc8_negative.pathological_n(facts.with_ene(inputs.pathological_ene))


EDITION = Edition(
    "ajcc8",
    ("ajcc8_chapter", "ajcc8_t", "ajcc8_n", "ajcc8_stage", "ajcc8_pn", "ajcc8_p_stage"),
    _decide,
    place=2,
)
