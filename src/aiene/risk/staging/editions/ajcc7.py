"""AJCC/UICC edition 7, oropharynx, whatever the HPV status.

The classes are those of the seventh edition as the specification of this project states them; the licensed
text of the manual is the final authority.
"""

from __future__ import annotations

from aiene.risk.staging.decision import (
    Decision,
    NodeFacts,
    Row,
    among,
    decide,
    decide_n,
    every,
    lacking,
    negated,
    some,
    told,
)
from aiene.risk.staging.stage import Edition, Patient, n_of_facts, over_n


def n7(nodes: NodeFacts) -> Decision:
    """N of edition 7 (table `ajcc7-N`); exactly 3.0 cm is N1, exactly 6.0 cm is not N3."""
    return decide_n("ajcc7-N", _n_rows, nodes)


def _n_rows(nodes: NodeFacts) -> list[Row]:
    here, small = nodes.present, negated(nodes.over6)
    return [
        Row(1, not nodes.assessable, "NX"),
        Row(2, negated(here), "N0"),
        Row(3, every(here, nodes.over6), "N3"),
        Row(4, every(here, nodes.lies("contralateral", "bilateral"), small), "N2c"),
        Row(5, every(here, nodes.several, nodes.lies("ipsilateral"), small), "N2b"),
        Row(6, every(here, nodes.single, nodes.lies("ipsilateral"), nodes.over3, small), "N2a"),
        Row(7, every(here, nodes.single, nodes.lies("ipsilateral"), negated(nodes.over3)), "N1"),
    ]


def stage7(t: str | None, n: str | None, m: str | None) -> Decision:
    """Stage of edition 7 (table `ajcc7-stage`).

    Parameters
    ----------
    t, n, m : categories; TX, NX, MX and None are not known.
    """
    return four_stages("ajcc7-stage", t, n, m, n3=("N3",))


def four_stages(table: str, t: str | None, n: str | None, m: str | None, *, n3: tuple[str, ...]) -> Decision:
    """The stage table that edition 7 and the p16-negative chapter of edition 8 share."""
    t, n, m = told(t), told(n), told(m)
    t4a, t4b = (None if t == "T4" else among(t, word) for word in ("T4a", "T4b"))
    m0, n0, n1 = among(m, "M0"), among(n, "N0"), among(n, "N1")
    up_to_3, n2 = among(t, "T1", "T2", "T3"), among(n, "N2", "N2a", "N2b", "N2c")
    rows = [
        Row(1, among(m, "M1"), "IVC"),
        Row(2, every(t4b, m0), "IVB"),
        Row(3, every(among(n, *n3), m0), "IVB"),
        Row(4, every(some(up_to_3, t4a), n2, m0), "IVA"),
        Row(5, every(t4a, among(n, "N0", "N1"), m0), "IVA"),
        Row(6, every(up_to_3, n1, m0), "III"),
        Row(7, every(among(t, "T3"), n0, m0), "III"),
        Row(8, every(among(t, "T2"), n0, m0), "II"),
        Row(9, every(among(t, "T1"), n0, m0), "I"),
        Row(10, every(among(t, "Tis"), n0, m0), "0"),
    ]
    missing = [*lacking(t, n, m), *(["the letter of T4"] if t == "T4" else [])]
    return decide(table, rows, missing=missing, otherwise=f"the chapter has no group for {t} {n} {m}")


def n_of(patient: Patient) -> Decision:
    """N of edition 7 of a patient."""
    inputs = patient.inputs
    if inputs.n7 is not None:
        return Decision(inputs.n7, "given")
    return n_of_facts(inputs, patient.chapter.value, n7)


def _decide(patient: Patient) -> tuple[Decision, ...]:
    n = n_of(patient)
    return n, over_n(stage7, patient.inputs.t7 or patient.inputs.t8, n, patient.m)


EDITION = Edition("ajcc7", ("ajcc7_n", "ajcc7_stage"), _decide, place=1)
