"""AJCC/UICC edition 8, chapter 11: oropharynx, p16-negative or not tested.

Lydiatt et al., CA Cancer J Clin 2017; the licensed text of the manual is the final authority.
"""

from __future__ import annotations

from aiene.risk.staging.decision import Decision, Row, decide, every, negated, unknown
from aiene.risk.staging.editions.ajcc7 import four_stages
from aiene.risk.staging.nodes import NodeFacts, needed

N_ORDER = ("N0", "N1", "N2a", "N2b", "N2c", "N3a", "N3b")
STAGE_ORDER = ("0", "I", "II", "III", "IVA", "IVB", "IVC")


def t8(t: str | None) -> Decision:
    """T of this chapter, as given; there is no T0."""
    if t is None:
        return unknown("missing: T")
    if t == "T0":
        return unknown("T0 does not exist in the p16-negative chapter")
    return Decision(t, "ajcc8neg-T:given")


def clinical_n(nodes: NodeFacts) -> Decision:
    """Clinical N (table `ajcc8neg-cN`); `nodes.ene` is clinically overt extension."""
    missing = needed(nodes, _clinical_rows, ene="clinical_ene")
    rows = _clinical_rows(nodes)
    return decide("ajcc8neg-cN", rows, missing=missing, complete=True)


def _clinical_rows(nodes: NodeFacts) -> list[Row]:
    here, bound = nodes.present, negated(nodes.ene)
    return [
        Row(1, not nodes.assessable, "NX"),
        Row(2, negated(here), "N0"),
        Row(3, every(here, nodes.ene), "N3b"),
        *_without_extension(nodes, bound, first=4),
    ]


def pathological_n(nodes: NodeFacts) -> Decision:
    """Pathological N (table `ajcc8neg-pN`); `nodes.ene` is pathological extension."""
    missing = needed(nodes, _pathological_rows, ene="pathological_ene")
    rows = _pathological_rows(nodes)
    return decide("ajcc8neg-pN", rows, missing=missing, complete=True)


def _pathological_rows(nodes: NodeFacts) -> list[Row]:
    here, bound = nodes.present, negated(nodes.ene)
    lone = every(here, nodes.single, nodes.lies("ipsilateral"), negated(nodes.over3))
    return [
        Row(1, not nodes.assessable, "NX"),
        Row(2, negated(here), "N0"),
        Row(3, every(lone, nodes.ene), "N2a"),
        Row(4, every(here, nodes.ene, negated(lone)), "N3b"),
        *_without_extension(nodes, bound, first=5),
    ]


def stage8(t: str | None, n: str | None, m: str | None) -> Decision:
    """Stage, clinical and pathological (table `ajcc8neg-stage`).

    Parameters
    ----------
    t, n, m : categories; TX, NX, MX and None are not known.
    """
    return four_stages("ajcc8neg-stage", t, n, m, n3=("N3", "N3a", "N3b"))


def _without_extension(nodes: NodeFacts, bound: bool | None, *, first: int) -> list[Row]:
    here, small = nodes.present, negated(nodes.over6)
    single, ipsilateral = nodes.single, nodes.lies("ipsilateral")
    return [
        Row(first, every(here, nodes.over6, bound), "N3a"),
        Row(first + 1, every(here, nodes.lies("contralateral", "bilateral"), small, bound), "N2c"),
        Row(first + 2, every(here, nodes.several, ipsilateral, small, bound), "N2b"),
        Row(first + 3, every(here, single, ipsilateral, nodes.over3, small, bound), "N2a"),
        Row(first + 4, every(here, single, ipsilateral, negated(nodes.over3), bound), "N1"),
    ]
