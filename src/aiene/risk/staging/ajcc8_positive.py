"""AJCC/UICC edition 8, chapter 10: oropharynx, p16-positive (HPV-mediated).

Lydiatt et al., CA Cancer J Clin 2017; the licensed text of the manual is the final authority. Extranodal
extension plays no part here.
"""

from __future__ import annotations

from collections.abc import Callable

from aiene.risk.staging.decision import Decision, Row, among, decide, every, lacking, negated, told, unknown
from aiene.risk.staging.nodes import NodeFacts, needed
from aiene.risk.staging.stage import over_n

N_ORDER = ("N0", "N1", "N2", "N3")
STAGE_ORDER = ("I", "II", "III", "IV")


def t8(t: str | None) -> Decision:
    """T of this chapter: T4a and T4b are T4; there is no Tis."""
    if t is None:
        return unknown("missing: T")
    if t == "Tis":
        return unknown("Tis does not exist in the p16-positive chapter")
    return Decision("T4" if t in ("T4a", "T4b") else t, "ajcc8pos-T:given")


def clinical_n(nodes: NodeFacts) -> Decision:
    """Clinical N (table `ajcc8pos-cN`)."""
    missing = needed(nodes, _n_rows)
    return decide("ajcc8pos-cN", _n_rows(nodes), missing=missing, complete=True)


def _n_rows(nodes: NodeFacts) -> list[Row]:
    here, small = nodes.present, negated(nodes.over6)
    return [
        Row(1, not nodes.assessable, "NX"),
        Row(2, negated(here), "N0"),
        Row(3, every(here, nodes.over6), "N3"),
        Row(4, every(here, nodes.lies("contralateral", "bilateral"), small), "N2"),
        Row(5, every(here, nodes.lies("ipsilateral"), small), "N1"),
    ]


def pathological_n(positive_nodes: int | None, *, assessable: bool = True) -> Decision:
    """Pathological N by the number of positive nodes (table `ajcc8pos-pN`)."""
    if not assessable:
        return Decision("NX", "ajcc8pos-pN:1")
    if positive_nodes is None:
        return unknown("missing: n_positive_nodes")
    if positive_nodes == 0:
        return Decision("N0", "ajcc8pos-pN:2")
    return Decision("N1", "ajcc8pos-pN:3") if positive_nodes <= 4 else Decision("N2", "ajcc8pos-pN:4")


def clinical_stage(t: str | None, n: str | None, m: str | None, *, table: str = "ajcc8pos-stage") -> Decision:
    """Clinical stage (table `ajcc8pos-stage`; version 9 shares it).

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
    return decide(
        table, rows, missing=lacking(t, n, m), otherwise=f"the chapter has no group for {t} {n} {m}"
    )


def pathological_stage(t: str | None, n: str | None, m: str | None) -> Decision:
    """Pathological stage (table `ajcc8pos-pstage`)."""
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


def stage_over_n(
    stage: Callable[[str | None, str | None, str | None], Decision], t: str | None, n: Decision, m: Decision
) -> Decision:
    """`patient.over_n` of HPV-associated disease: a T that it does not have has no stage but that of M1."""
    own = t8(t)
    made = over_n(stage, own.value, n, m)
    return made if t is None or own.value is not None or m.value == "M1" else unknown(own.reason)
