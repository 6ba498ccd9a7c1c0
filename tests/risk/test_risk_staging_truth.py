"""Every T x N x M x p16 x ENE against tables typed from the rules, apart from those of the program."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from aiene.risk.staging.stage import Inputs, StagingOptions, stage_patient

T = (None, "TX", "T0", "Tis", "T1", "T2", "T3", "T4", "T4a", "T4b")
M = (None, "MX", "M0", "M1")
N7 = (None, "NX", "N0", "N1", "N2", "N2a", "N2b", "N2c", "N3")
N8_NEGATIVE = ("N0", "N1", "N2", "N2a", "N2b", "N2c", "N3", "N3a", "N3b", "NX")
N8_POSITIVE = ("N0", "N1", "N2", "N3", "NX")
ENES = (None, False, True)

#                     N0     N1     N2     N3
POSITIVE = {
    "T0": {"N0": None, "N1": "I", "N2": "II", "N3": "III"},
    "T1": {"N0": "I", "N1": "I", "N2": "II", "N3": "III"},
    "T2": {"N0": "I", "N1": "I", "N2": "II", "N3": "III"},
    "T3": {"N0": "II", "N1": "II", "N2": "II", "N3": "III"},
    "T4": {"N0": "III", "N1": "III", "N2": "III", "N3": "III"},
}  # fmt: skip
PATHOLOGICAL = {
    "T0": {"N0": "I", "N1": "I", "N2": "II"},
    "T1": {"N0": "I", "N1": "I", "N2": "II"},
    "T2": {"N0": "I", "N1": "I", "N2": "II"},
    "T3": {"N0": "II", "N1": "II", "N2": "III"},
    "T4": {"N0": "II", "N1": "II", "N2": "III"},
}  # fmt: skip
#                     N0     N1     N2a-c  N3, N3a, N3b
NEGATIVE = {
    "T0": (None, None, None, "IVB"),
    "Tis": ("0", None, None, "IVB"),
    "T1": ("I", "III", "IVA", "IVB"),
    "T2": ("II", "III", "IVA", "IVB"),
    "T3": ("III", "III", "IVA", "IVB"),
    "T4a": ("IVA", "IVA", "IVA", "IVB"),
    "T4b": ("IVB", "IVB", "IVB", "IVB"),
}
TO_POSITIVE = {"N0": "N0", "N1": "N1", "N2a": "N1", "N2b": "N1", "N2c": "N2", "N3": "N3"}
SUB = {"N2": ("N2a", "N2b", "N2c"), "N3": ("N3a", "N3b")}
SEVEN = ("N0", "N1", "N2a", "N2b", "N2c", "N3")
EIGHT_NEGATIVE = ("N0", "N1", "N2a", "N2b", "N2c", "N3a", "N3b")


def patient(**known: Any) -> Inputs:
    return Inputs(**dict.fromkeys(Inputs._fields) | {"site": "oropharynx"} | known)


def of_negative(t: str, n: str, m: str) -> str | None:
    column = 0 if n == "N0" else 1 if n == "N1" else 2 if n in SUB["N2"] else 3
    return "IVC" if m == "M1" else NEGATIVE[t][column]


def of_positive(t: str, n: str, m: str, table: Any = POSITIVE) -> str | None:
    if m == "M1":
        return "IV"
    return None if t == "Tis" else table["T4" if t[:2] == "T4" else t][n]


def completed(word: str | None, every: tuple[str, ...], parts: Any = ()) -> tuple[str, ...]:
    if word is None or word.endswith("X"):
        return every
    return dict(parts).get(word, (word,))


def agreed(results: set[str | None]) -> tuple[str | None, set[str]]:
    """The value if all completions agree, and what is open if they do not."""
    if len(results) == 1 and None not in results:
        return next(iter(results)), set()
    return None, {r for r in results if r is not None}


def check(made: Any, results: set[str | None], what: tuple[Any, ...]) -> None:
    value, open_ones = agreed(results)
    assert made.value == value, what
    assert bool(made.reason) == (value is None), what
    if value is None:
        assert set(made.possible) == open_ones, what


@pytest.mark.parametrize("t", T)
def test_clinical_stages_of_p16_positive_disease_by_edition_7_and_8(t: Any) -> None:
    for (seven, eight), m, ene in product(
        [*((n, None) for n in N7), *((None, n) for n in N8_POSITIVE)], M, ENES
    ):
        made = stage_patient(patient(hpv="positive", t7=t, n7=seven, n8=eight, m=m, clinical_ene=ene),
                             StagingOptions())["ajcc8_stage"]  # fmt: skip
        ns = (
            completed(seven, SEVEN, {"N2": SUB["N2"]})
            if eight is None
            else completed(eight, ("N0", "N1", "N2", "N3"))
        )
        ns = {TO_POSITIVE[n] for n in ns} if eight is None else set(ns)  # type: ignore[assignment]
        ts = completed(t, tuple(POSITIVE))
        results = {of_positive(*one) for one in product(ts, ns, completed(m, ("M0", "M1")))}
        if t == "Tis" and m != "M1":
            results = set()  # no Tis in this chapter, so no stage, and none is offered
        check(made, results, (t, seven, eight, m, ene))


@pytest.mark.parametrize("t", T)
@pytest.mark.parametrize("hpv", ["negative", None])
def test_clinical_stages_of_p16_negative_and_untested_disease_by_edition_7_and_8(
    t: Any, hpv: str | None
) -> None:
    for (seven, eight), m, ene, assume in product(
        [*((n, None) for n in N7), *((None, n) for n in N8_NEGATIVE)], M, ENES, (False, True)
    ):
        options = StagingOptions(ene_unknown="negative" if assume else "unknown")
        made = stage_patient(patient(hpv=hpv, t7=t, n7=seven, n8=eight, m=m, clinical_ene=ene), options)
        if eight is not None:
            ns = set(completed(eight, EIGHT_NEGATIVE, SUB))
        else:
            known = None if seven == "NX" else False if assume and ene is None else ene
            ns = {
                "N0" if n == "N0" else "N3b" if extends else "N3a" if n == "N3" else n
                for n in completed(seven, SEVEN, {"N2": SUB["N2"]})
                for extends in ((False, True) if known is None else (known,))
            }
        ts = completed(t, ("Tis", "T1", "T2", "T3", "T4a", "T4b"), {"T4": ("T4a", "T4b")})
        results = {of_negative(*one) for one in product(ts, ns, completed(m, ("M0", "M1")))}
        check(made["ajcc8_stage"], results, (t, hpv, seven, eight, m, ene, assume))


@pytest.mark.parametrize("t", T)
def test_pathological_stages_of_p16_positive_disease(t: Any) -> None:
    for nodes, m in product((None, 0, 1, 4, 5, 9), M):
        if t is None and nodes is None:
            continue  # not operated
        made = stage_patient(patient(hpv="positive", pt8=t, n_positive_nodes=nodes, m=m), StagingOptions())
        ns = ("N0", "N1", "N2") if nodes is None else ("N0" if not nodes else "N1" if nodes < 5 else "N2",)
        every = product(completed(t, tuple(PATHOLOGICAL)), ns, completed(m, ("M0", "M1")))
        results = {of_positive(*one, PATHOLOGICAL) for one in every}
        check(made["ajcc8_p_stage"], set() if t == "Tis" and m != "M1" else results, (t, nodes, m))


def test_a_bare_n2_without_extension_is_iva_whatever_its_letter() -> None:
    made = stage_patient(
        patient(hpv="negative", t7="T2", n7="N2", m="M0", clinical_ene=False), StagingOptions()
    )
    assert made["ajcc8_stage"].value == "IVA"
    assert made["ajcc8_n"].reason == "missing: the letter of N (could be N2a or N2b or N2c)"


@pytest.mark.parametrize("t", [None, "TX", "T0"])
def test_an_unknown_primary_with_hpv_is_t0(t: str | None) -> None:
    for n, stage in (("N1", "I"), ("N2c", "II"), ("N3", "III"), ("N2", None)):
        made = stage_patient(
            patient(site="unknown_primary", hpv="positive", t7=t, n7=n, m="M0"), StagingOptions()
        )
        assert (made["ajcc8_t"].value, made["ajcc8_stage"].value, made["v9_stage"].value) == (
            "T0",
            stage,
            stage,
        )
    operated = patient(site="unknown_primary", hpv="positive", t7=t, n_positive_nodes=6, m="M0")
    assert stage_patient(operated, StagingOptions())["ajcc8_p_stage"].value == "II"


def test_a_pathological_n_offers_only_what_can_be() -> None:
    known = patient(hpv="negative", pt8="T1", n_positive_nodes=1, p_node_laterality="ipsilateral",
                    p_largest_node_cm=2.0, m="M0")  # fmt: skip
    made = stage_patient(known, StagingOptions())["ajcc8_pn"]
    assert made.possible == ("N2a", "N1")
    assert made.reason == "missing: pathological_ene (could be N2a or N1)"


def test_tis_of_p16_positive_disease_is_no_missing_t() -> None:
    made = stage_patient(patient(hpv="positive", t8="Tis", n8="N3", m="M0"), StagingOptions())
    for decision in (made["ajcc8_stage"], made["v9_stage"]):
        assert (decision.value, decision.possible) == (None, ())
        assert decision.reason == "Tis does not exist in the p16-positive chapter"
