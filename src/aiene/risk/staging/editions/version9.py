"""AJCC/UICC version 9, HPV-associated oropharynx (in force 1 January 2026).

Ho et al. 2025 and the consensus of the Head and Neck Cancer International Group; the licensed text of the
manual is the final authority. T as edition 8. iENE is a reader's imaging grade of 1 or more; where it is not
known, or not unequivocal, the lower category is assigned and flagged.
"""

from __future__ import annotations

from aiene.risk.staging.decision import (
    Decision,
    NodeFacts,
    Row,
    Tri,
    among,
    decide,
    decide_n,
    every,
    lacking,
    negated,
    not_applicable,
    over_readings,
    told,
    unknown,
)
from aiene.risk.staging.editions.ajcc8 import positive_over_n, positive_stage
from aiene.risk.staging.stage import (
    NO_SURGERY,
    POSITIVE,
    Edition,
    Inputs,
    Patient,
    StagingOptions,
    node_facts,
)


def clinical_n(nodes: NodeFacts) -> Decision:
    """Clinical N (table `v9-cN`); `nodes.ene` is imaging extension."""
    if not nodes.assessable:
        return Decision("NX", "v9-cN:given")
    made = decide_n("v9-cN", _n_rows, nodes)
    flags = []
    if made.row == "v9-cN:8":
        flags.append("unspecified_permutation")
    if nodes.ene is None and made.value not in (None, "N0") and made.row != "v9-cN:2":
        flags.append("iene_unknown_lower_category")  # row 9 of the table
    return made.flagged(*flags)


def _n_rows(nodes: NodeFacts) -> list[Row]:
    here, small = nodes.present, negated(nodes.over6)
    extends = nodes.ene is True
    bilateral, contralateral, ipsilateral = map(nodes.lies, ("bilateral", "contralateral", "ipsilateral"))
    rows = [
        Row(1, negated(here), "N0"),
        Row(2, every(here, nodes.over6), "N3"),
        Row(3, every(here, bilateral, small, extends), "N3"),
        Row(4, every(here, bilateral, small, not extends), "N2"),
        Row(5, every(here, ipsilateral, small, extends), "N2"),
        Row(6, every(here, ipsilateral, small, not extends), "N1"),
        Row(7, every(here, contralateral, small, not extends), "N2"),
        Row(8, every(here, contralateral, small, extends), "N2"),
    ]
    if nodes.side == "other" and not extends:
        rows.append(Row(7, every(here, small), "N2"))  # bilateral or contralateral: rows 4 and 7 agree
    return rows


def pathological_n(positive_nodes: int | None, ene: bool | None) -> Decision:
    """Pathological N by number of positive nodes and pathological extension (table `v9-pN`)."""
    if positive_nodes is None:
        return unknown("missing: n_positive_nodes")
    bound, many = negated(ene), positive_nodes > 4
    rows = [
        Row(1, positive_nodes == 0, "N0"),
        Row(2, every(positive_nodes == 1, bound), "N1a"),
        Row(3, every(2 <= positive_nodes <= 4, bound), "N1b"),
        Row(4, every(1 <= positive_nodes <= 4, ene), "N2"),
        Row(5, every(many, bound), "N2"),
        Row(6, every(many, ene), "N3"),
    ]
    return decide("v9-pN", rows, missing=("pathological_ene",), complete=True)


def clinical_stage(t: str | None, n: str | None, m: str | None) -> Decision:
    """Clinical stage: the groups of edition 8 over the new N (table `v9-stage`)."""
    return positive_stage(t, n, m, table="v9-stage")


def pathological_stage(t: str | None, n: str | None, m: str | None) -> Decision:
    """Pathological stage (table `v9-pstage`)."""
    t, n, m = told(t), told(n), told(m)
    m0, early, third = among(m, "M0"), among(t, "T0", "T1", "T2"), among(t, "T3")
    rows = [
        Row(1, among(m, "M1"), "IV"),
        Row(2, every(among(t, "T4"), m0), "III"),
        Row(3, every(third, among(n, "N3"), m0), "III"),
        Row(4, every(third, among(n, "N0", "N1", "N1a", "N1b", "N2"), m0), "II"),
        Row(5, every(early, among(n, "N2", "N3"), m0), "II"),
        Row(6, every(early, among(n, "N0", "N1", "N1a", "N1b"), m0), "I"),
    ]
    otherwise = f"the version has no group for {t} {n} {m}"
    return decide("v9-pstage", rows, missing=lacking(t, n, m), otherwise=otherwise)


def _decide(patient: Patient) -> list[Decision]:
    """Clinical N and stage, pathological N and stage."""
    inputs, chapter, m = patient.inputs, patient.chapter, patient.m
    if chapter.value != POSITIVE:
        outside = not_applicable("version 9 is for HPV-associated disease; p16-negative stays on edition 8")
        return [outside if inputs.hpv is not None else unknown("missing: hpv")] * 4
    ene, flags = imaging_extension(inputs, patient.options)
    if inputs.n9 is not None:
        n = Decision(inputs.n9, "given")
    else:
        facts = node_facts(inputs, POSITIVE)
        if isinstance(facts, Decision):
            n = facts
        else:
            n = over_readings([one.with_ene(ene) for one in facts], clinical_n).flagged(*flags)
    stage = positive_over_n(clinical_stage, inputs.t8 or inputs.t7, n, m)
    if inputs.pt8 is None and inputs.pn9 is None and inputs.n_positive_nodes is None:
        return [n, stage, *[not_applicable(NO_SURGERY)] * 2]
    by_number = pathological_n(inputs.n_positive_nodes, inputs.pathological_ene)
    pn = by_number if inputs.pn9 is None else Decision(inputs.pn9, "given")
    return [n, stage, pn, positive_over_n(pathological_stage, inputs.pt8, pn, m)]


def imaging_extension(inputs: Inputs, options: StagingOptions) -> tuple[Tri, tuple[str, ...]]:
    """Whether a reader saw extension, or AI-ENE did where the options say so, with its flag."""
    if inputs.iene_grade is not None:
        return inputs.iene_grade >= 1, ()
    if options.iene_from_ai and inputs.n_ai_ene is not None:
        return inputs.n_ai_ene >= 1, ("exploratory_iene_from_ai",)
    return None, ()


EDITION = Edition("version9", ("v9_n", "v9_stage", "v9_pn", "v9_p_stage"), _decide, place=3)
