"""AJCC/UICC edition 8, oropharynx: its two chapters, which of them a patient belongs to, and what each takes.

Chapter 10 is p16-positive (HPV-mediated) disease, in which extranodal extension plays no part; chapter 11 is
p16-negative or untested disease. Lydiatt et al., CA Cancer J Clin 2017; the licensed text of the manual is
the final authority.
"""

from __future__ import annotations

from aiene.risk.staging.decision import (
    Contradiction,
    Decision,
    NodeFacts,
    Row,
    among,
    decide,
    decide_n,
    every,
    lacking,
    measured,
    negated,
    not_applicable,
    over_readings,
    told,
    unknown,
)
from aiene.risk.staging.editions.ajcc7 import four_stages
from aiene.risk.staging.stage import (
    NEGATIVE,
    NO_SURGERY,
    POSITIVE,
    Edition,
    Inputs,
    Patient,
    StageRule,
    StagingOptions,
    n_of_facts,
    node_facts,
    over_n,
)

# Chapter 10, p16-positive


def positive_t(t: str | None) -> Decision:
    """T of p16-positive disease: T4a and T4b are T4; there is no Tis."""
    if t is None:
        return unknown("missing: T")
    if t == "Tis":
        return unknown("Tis does not exist in the p16-positive chapter")
    return Decision("T4" if t in ("T4a", "T4b") else t, "ajcc8pos-T:given")


def positive_n(nodes: NodeFacts) -> Decision:
    """Clinical N of p16-positive disease (table `ajcc8pos-cN`)."""
    return decide_n("ajcc8pos-cN", _positive_rows, nodes)


def _positive_rows(nodes: NodeFacts) -> list[Row]:
    here, small = nodes.present, negated(nodes.over6)
    return [
        Row(1, not nodes.assessable, "NX"),
        Row(2, negated(here), "N0"),
        Row(3, every(here, nodes.over6), "N3"),
        Row(4, every(here, nodes.lies("contralateral", "bilateral"), small), "N2"),
        Row(5, every(here, nodes.lies("ipsilateral"), small), "N1"),
    ]


def positive_pn(positive_nodes: int | None, *, assessable: bool = True) -> Decision:
    """Pathological N of p16-positive disease by the number of positive nodes (table `ajcc8pos-pN`)."""
    if not assessable:
        return Decision("NX", "ajcc8pos-pN:1")
    if positive_nodes is None:
        return unknown("missing: n_positive_nodes")
    if positive_nodes == 0:
        return Decision("N0", "ajcc8pos-pN:2")
    return Decision("N1", "ajcc8pos-pN:3") if positive_nodes <= 4 else Decision("N2", "ajcc8pos-pN:4")


def positive_stage(t: str | None, n: str | None, m: str | None, *, table: str = "ajcc8pos-stage") -> Decision:
    """Clinical stage of p16-positive disease (table `ajcc8pos-stage`; version 9 shares it).

    Parameters
    ----------
    t : T0-T4 or TX; n : N0-N3 or NX; m : M0, M1 or MX; None and X are not known.
    """
    t, n, m = told(t), told(n), told(m)
    m0, early = among(m, "M0"), among(t, "T0", "T1", "T2")
    nothing = every(among(t, "T0"), among(n, "N0"))
    if nothing and m == "M0":
        return unknown("no_disease: neither a primary nor a node")
    rows = [
        Row(1, among(m, "M1"), "IV"),
        Row(2, every(among(t, "T4"), m0), "III"),
        Row(3, every(among(n, "N3"), m0), "III"),
        Row(4, every(among(t, "T3"), among(n, "N0", "N1", "N2"), m0), "II"),
        Row(5, every(early, among(n, "N2"), m0), "II"),
        Row(6, every(early, among(n, "N0", "N1"), m0, negated(nothing)), "I"),
    ]
    otherwise = f"the chapter has no group for {t} {n} {m}"
    return decide(table, rows, missing=lacking(t, n, m), otherwise=otherwise)


def positive_p_stage(t: str | None, n: str | None, m: str | None) -> Decision:
    """Pathological stage of p16-positive disease (table `ajcc8pos-pstage`)."""
    t, n, m = told(t), told(n), told(m)
    m0, early, late = among(m, "M0"), among(t, "T0", "T1", "T2"), among(t, "T3", "T4")
    few, many = among(n, "N0", "N1"), among(n, "N2")
    rows = [
        Row(1, among(m, "M1"), "IV"),
        Row(2, every(late, many, m0), "III"),
        Row(3, every(late, few, m0), "II"),
        Row(4, every(early, many, m0), "II"),
        Row(5, every(early, few, m0), "I"),
    ]
    otherwise = f"the chapter has no group for {t} {n} {m}"
    return decide("ajcc8pos-pstage", rows, missing=lacking(t, n, m), otherwise=otherwise)


def positive_over_n(stage: StageRule, t: str | None, n: Decision, m: Decision) -> Decision:
    """`over_n` of HPV-associated disease: a T that it does not have has no stage but that of M1."""
    own = positive_t(t)
    made = over_n(stage, own.value, n, m)
    return made if t is None or own.value is not None or m.value == "M1" else unknown(own.reason)


# Chapter 11, p16-negative or not tested


def negative_t(t: str | None) -> Decision:
    """T of p16-negative disease, as given; there is no T0."""
    if t is None:
        return unknown("missing: T")
    if t == "T0":
        return unknown("T0 does not exist in the p16-negative chapter")
    return Decision(t, "ajcc8neg-T:given")


def negative_n(nodes: NodeFacts) -> Decision:
    """Clinical N of p16-negative disease (table `ajcc8neg-cN`); `nodes.ene` is clinically overt extension."""
    return decide_n("ajcc8neg-cN", _negative_rows, nodes, ene="clinical_ene")


def _negative_rows(nodes: NodeFacts) -> list[Row]:
    here = nodes.present
    return [
        Row(1, not nodes.assessable, "NX"),
        Row(2, negated(here), "N0"),
        Row(3, every(here, nodes.ene), "N3b"),
        *_without_extension(nodes, first=4),
    ]


def negative_pn(nodes: NodeFacts) -> Decision:
    """Pathological N of p16-negative disease (table `ajcc8neg-pN`); `nodes.ene` is pathological extension."""
    return decide_n("ajcc8neg-pN", _negative_p_rows, nodes, ene="pathological_ene")


def _negative_p_rows(nodes: NodeFacts) -> list[Row]:
    here = nodes.present
    lone = every(here, nodes.single, nodes.lies("ipsilateral"), negated(nodes.over3))
    return [
        Row(1, not nodes.assessable, "NX"),
        Row(2, negated(here), "N0"),
        Row(3, every(lone, nodes.ene), "N2a"),
        Row(4, every(here, nodes.ene, negated(lone)), "N3b"),
        *_without_extension(nodes, first=5),
    ]


def _without_extension(nodes: NodeFacts, *, first: int) -> list[Row]:
    here, small, bound = nodes.present, negated(nodes.over6), negated(nodes.ene)
    single, ipsilateral = nodes.single, nodes.lies("ipsilateral")
    return [
        Row(first, every(here, nodes.over6, bound), "N3a"),
        Row(first + 1, every(here, nodes.lies("contralateral", "bilateral"), small, bound), "N2c"),
        Row(first + 2, every(here, nodes.several, ipsilateral, small, bound), "N2b"),
        Row(first + 3, every(here, single, ipsilateral, nodes.over3, small, bound), "N2a"),
        Row(first + 4, every(here, single, ipsilateral, negated(nodes.over3), bound), "N1"),
    ]


def negative_stage(t: str | None, n: str | None, m: str | None) -> Decision:
    """Stage of p16-negative disease, clinical and pathological (table `ajcc8neg-stage`).

    Parameters
    ----------
    t, n, m : categories; TX, NX, MX and None are not known.
    """
    return four_stages("ajcc8neg-stage", t, n, m, n3=("N3", "N3a", "N3b"))


# One patient


def _decide(patient: Patient) -> tuple[Decision, ...]:
    return patient.chapter, *_ajcc8(patient.inputs, patient.chapter, patient.m, patient.options)


def _ajcc8(inputs: Inputs, chapter: Decision, m: Decision, options: StagingOptions) -> list[Decision]:
    """T, clinical N and stage, pathological N and stage of edition 8."""
    if chapter.value is None:
        return [chapter] * 5
    given = inputs.t8 or inputs.t7
    if chapter.value == POSITIVE:
        t, n, pn = positive_t(given), _positive_n_of(inputs), _positive_pn_of(inputs)
        stage = positive_over_n(positive_stage, given, n, m)
        p_stage = positive_over_n(positive_p_stage, inputs.pt8, pn, m)
    else:
        t, n, pn = negative_t(given), _negative_n_of(inputs, options), _negative_pn_of(inputs)
        stage = _because_of_t(over_n(negative_stage, given, n, m), t)
        p_stage = over_n(negative_stage, inputs.pt8, pn, m)
    operated = inputs.pt8 or inputs.pn8 or inputs.n_positive_nodes is not None
    path = [pn, p_stage] if operated else [not_applicable(NO_SURGERY)] * 2
    return [d if not d.applicable else d.flagged(*chapter.flags) for d in (t, n, stage, *path)]


def _because_of_t(stage: Decision, t: Decision) -> Decision:
    """The stage's reason, with T's own where T is what is wrong."""
    if stage.value is not None or t.value is not None or t.reason == "missing: T":
        return stage
    return unknown(f"{t.reason}; {stage.reason}", stage.possible)


def _positive_n_of(inputs: Inputs) -> Decision:
    if inputs.n8 is None:
        return n_of_facts(inputs, POSITIVE, positive_n, own="n8")
    facts = node_facts(inputs._replace(n7=None), POSITIVE)
    return facts if isinstance(facts, Decision) else Decision(inputs.n8, "given")


def _negative_n_of(inputs: Inputs, options: StagingOptions) -> Decision:
    if inputs.n8 is not None:
        return Decision(inputs.n8, "given")
    facts = node_facts(inputs, NEGATIVE, own="n8")
    if isinstance(facts, Decision):
        return facts
    assumed = inputs.clinical_ene is None and options.ene_unknown == "negative"
    ene = False if assumed else inputs.clinical_ene
    made = over_readings([one.with_ene(ene) for one in facts], negative_n)
    with_nodes = made.value not in (None, "N0", "NX") or len(facts) > 1
    return made.flagged("ene_assumed_negative") if assumed and with_nodes else made


def _positive_pn_of(inputs: Inputs) -> Decision:
    if inputs.pn8 is None:
        return positive_pn(inputs.n_positive_nodes)
    if inputs.pn8 not in ("N0", "N1", "N2", "NX"):
        return unknown(f"p{inputs.pn8} does not exist in edition 8 for p16-positive disease")
    return Decision(inputs.pn8, "given")


def _negative_pn_of(inputs: Inputs) -> Decision:
    if inputs.pn8 is not None:
        return Decision(inputs.pn8, "given")
    try:
        facts = measured(inputs.n_positive_nodes, inputs.p_node_laterality, inputs.p_largest_node_cm)
    except Contradiction as error:
        return unknown(f"contradiction: {error}")
    return negative_pn(facts.with_ene(inputs.pathological_ene))


EDITION = Edition(
    "ajcc8",
    ("ajcc8_chapter", "ajcc8_t", "ajcc8_n", "ajcc8_stage", "ajcc8_pn", "ajcc8_p_stage"),
    _decide,
    place=2,
)
