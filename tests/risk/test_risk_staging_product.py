"""Brute force over the whole product of inputs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from aiene.risk.staging.decision import Contradiction, measured
from aiene.risk.staging.editions import ajcc7, ajcc8, version9
from aiene.risk.staging.editions.rtog0129 import DEFINITIONS, GROUPS, rtog0129

COUNTS = (None, 0, 1, 2, 3, 4, 5, 9)
SIDES = (None, "none", "ipsilateral", "contralateral", "bilateral")
SIZES = (None, 0.0, 0.5, 3.0, 3.01, 6.0, 6.01, 12.0)
ENES = (None, False, True)
T = (None, "TX", "T0", "Tis", "T1", "T2", "T3", "T4", "T4a", "T4b")
M = (None, "MX", "M0", "M1")
N7_ORDER = ("N0", "N1", "N2a", "N2b", "N2c", "N3")
POSITIVE_N_ORDER = ("N0", "N1", "N2", "N3")
NEGATIVE_N_ORDER = ("N0", "N1", "N2a", "N2b", "N2c", "N3a", "N3b")
POSITIVE_STAGES = ("I", "II", "III", "IV")
NEGATIVE_STAGES = ("0", "I", "II", "III", "IVA", "IVB", "IVC")

RULES = {
    "ajcc7": (ajcc7.n7, N7_ORDER),
    "positive": (ajcc8.positive_n, POSITIVE_N_ORDER),
    "negative": (ajcc8.negative_n, NEGATIVE_N_ORDER),
    "pathological": (ajcc8.negative_pn, NEGATIVE_N_ORDER),
    "version9": (version9.clinical_n, POSITIVE_N_ORDER),
}
STAGES = {
    "ajcc7": (ajcc7.stage7, ("N0", "N1", "N2", "N2a", "N2b", "N2c", "N3", "NX", None), NEGATIVE_STAGES),
    "positive": (
        ajcc8.positive_stage,
        ("N0", "N1", "N2", "N3", "NX", None),
        POSITIVE_STAGES,
    ),
    "p-positive": (
        ajcc8.positive_p_stage,
        ("N0", "N1", "N2", "NX", None),
        POSITIVE_STAGES,
    ),
    "negative": (
        ajcc8.negative_stage,
        ("N0", "N1", "N2", "N2a", "N2b", "N2c", "N3", "N3a", "N3b", "NX", None),
        NEGATIVE_STAGES,
    ),
    "version9": (version9.clinical_stage, ("N0", "N1", "N2", "N3", "NX", None), POSITIVE_STAGES),
    "p-version9": (
        version9.pathological_stage,
        ("N0", "N1", "N1a", "N1b", "N2", "N3", "NX", None),
        POSITIVE_STAGES,
    ),
}
SIDE_ORDER = ("ipsilateral", "contralateral", "bilateral")


def node_facts() -> Iterator[Any]:
    """Every combination that does not contradict itself."""
    for count, side, cm, ene in product(COUNTS, SIDES, SIZES, ENES):
        try:
            yield (count, side, cm, ene), measured(count, side, cm).with_ene(ene)
        except Contradiction:
            continue


def decided(rule: Any, count: Any, side: Any, cm: Any, ene: Any) -> Any:
    try:
        return rule(measured(count, side, cm).with_ene(ene))
    except Contradiction:
        return None


@pytest.mark.parametrize("name", RULES)
def test_each_combination_of_nodes_has_one_n_or_a_reason(name: Any) -> None:
    rule, order = RULES[name]
    seen = 0
    for _, nodes in node_facts():
        made = rule(nodes)
        seen += 1
        assert (made.value in order) != bool(made.reason)
        assert (made.value is None) != bool(made.row)
    assert seen > 300


@pytest.mark.parametrize("name", RULES)
def test_n_is_known_exactly_where_every_completion_of_the_inputs_agrees(name: Any) -> None:
    """An unknown is never a guess, and never more cautious than it must be."""
    rule, _ = RULES[name]
    for (count, side, cm, ene), nodes in node_facts():
        completions = product(
            COUNTS[1:] if count is None else (count,),
            SIDES[1:] if side is None else (side,),
            SIZES[1:] if cm is None else (cm,),
            (False,) if name == "version9" and ene is None else ENES[1:] if ene is None else (ene,),
        )
        results = {made.value for one in completions if (made := decided(rule, *one)) is not None}
        assert None not in results
        made = rule(nodes)
        if made.value is not None:
            assert results == {made.value}
        else:
            assert len(results) > 1
            assert results <= set(made.possible) | {"N0"}


@pytest.mark.parametrize("name", RULES)
def test_more_disease_never_lowers_n(name: Any) -> None:
    rule, order = RULES[name]
    rank = {word: place for place, word in enumerate(order)}

    def place(*facts: Any) -> Any:
        made = decided(rule, *facts)
        return None if made is None or made.value is None else rank[made.value]

    for count, side, cm, ene in product((1, 2, 5), SIDE_ORDER, SIZES[2:], (False, True)):
        here = place(count, side, cm, ene)
        if here is None:
            continue
        worse = [
            *((c, side, cm, ene) for c in (2, 5) if c > count),
            *((count, s, cm, ene) for s in SIDE_ORDER[SIDE_ORDER.index(side) + 1 :]),
            *((count, side, x, ene) for x in SIZES[2:] if x > cm),
            *([(count, side, cm, True)] if not ene else []),
        ]
        for facts in worse:
            there = place(*facts)
            assert there is None or there >= here, (facts, (count, side, cm, ene))


@pytest.mark.parametrize("name", STAGES)
def test_each_combination_of_t_n_m_has_one_stage_or_a_reason(name: Any) -> None:
    rule, words, order = STAGES[name]
    for t, n, m in product(T, words, M):
        made = rule(t, n, m)
        assert (made.value in order) != bool(made.reason)
        assert (made.value is None) != bool(made.row)


@pytest.mark.parametrize("name", STAGES)
def test_more_disease_never_lowers_the_stage(name: Any) -> None:
    rule, words, order = STAGES[name]
    rank = {word: place for place, word in enumerate(order)}
    known_t = (
        ("T0", "T1", "T2", "T3", "T4a", "T4b")
        if name in ("ajcc7", "negative")
        else ("T0", "T1", "T2", "T3", "T4")
    )
    known_n = (
        [n for n in words if n not in (None, "NX", "N2", "N3")]
        if name in ("negative",)
        else [n for n in words if n not in (None, "NX") and not (name == "ajcc7" and n == "N2")]
    )
    for (i, t), (j, n), m in product(enumerate(known_t), enumerate(known_n), ("M0", "M1")):
        here = rule(t, n, m).value
        if here is None:
            continue
        for worse in [*((x, n, m) for x in known_t[i:]), *((t, x, m) for x in known_n[j:]), (t, n, "M1")]:
            there = rule(*worse).value
            assert there is None or rank[there] >= rank[here], (worse, (t, n, m))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_the_one_that_every_completion_gives(name: Any) -> None:
    rule, words, _ = STAGES[name]
    known_t = (
        ("Tis", "T1", "T2", "T3", "T4a", "T4b")
        if name in ("ajcc7", "negative")
        else ("T0", "T1", "T2", "T3", "T4")
    )
    known_n = [n for n in words if n not in (None, "NX")]
    for t, n, m in product(T, words, M):
        made = rule(t, n, m)
        if made.value is None:
            continue
        for one in product(
            known_t if t in (None, "TX") else (t,),
            known_n if n in (None, "NX") else (n,),
            ("M0", "M1") if m in (None, "MX") else (m,),
        ):
            assert rule(*one).value == made.value


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_rtog_0129_gives_one_group_or_a_reason_and_never_better_with_more(definition: Any) -> None:
    years, n_words = (None, "le10", "gt10"), (None, "NX", "N0", "N1", "N2", "N2a", "N2b", "N2c", "N3")
    rank = {word: place for place, word in enumerate(GROUPS)}
    for hpv, py, n, t in product((None, "positive", "negative"), years, n_words, T):
        made = rtog0129(hpv, py, n, t, definition=definition)
        assert (made.value in GROUPS) != bool(made.reason)
        assert made.row.startswith("rtog0129:")
        if made.value is not None and py == "le10":
            more = rtog0129(hpv, "gt10", n, t, definition=definition).value
            assert more is None or rank[more] >= rank[made.value]
        if made.value is not None and hpv == "positive":
            worse = rtog0129("negative", py, n, t, definition=definition).value
            assert worse is None or rank[worse] >= rank[made.value]


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_rtog_0129_is_open_exactly_where_the_missing_input_matters(definition: Any) -> None:
    for hpv, n, t in product(("positive", "negative"), ("N0", "N1", "N2a", "N2b", "N2c", "N3"), T[4:]):
        made = rtog0129(hpv, None, n, t, definition=definition).value
        both = {rtog0129(hpv, py, n, t, definition=definition).value for py in ("le10", "gt10")}
        assert both == {made} if made is not None else len(both) == 2


def test_the_two_readings_differ_in_one_cell_only() -> None:
    odd = {
        (hpv, py, t)
        for hpv, py, n, t in product((None, "positive", "negative"), (None, "le10", "gt10"), ("N0", "N3"), T)
        if len({rtog0129(hpv, py, n, t, definition=d).value for d in DEFINITIONS}) == 2
    }
    assert odd == {("negative", py, t) for py in (None, "le10") for t in ("T0", "Tis", "T1")}
