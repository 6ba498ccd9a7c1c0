"""All systems for one patient: which inputs each takes, and in what order of trust.

A category that was given in the edition's own column is taken as it stands; else one of another edition is
converted where that loses nothing; else the node's measurements decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from aiene.risk.staging import ajcc7, ajcc8_negative, ajcc8_positive, version9
from aiene.risk.staging.decision import Decision, Tri, not_applicable, told, unknown
from aiene.risk.staging.nodes import (
    FROM_N7,
    FROM_N8_NEGATIVE,
    FROM_N8_POSITIVE,
    Contradiction,
    NodeFacts,
    measured,
    over_readings,
    readings,
)
from aiene.risk.staging.rtog import DEFINITIONS, Definition, rtog0129


@dataclass(frozen=True)
class StagingOptions:
    """What the user decides where the rules leave a choice.

    Parameters
    ----------
    assume_m0 : MX and a missing M count as M0, flagged.
    ene_unknown : for p16-negative disease: a clinical extension that is not known stays `unknown`, or counts
        as `negative`, flagged; archives staged by edition 7 need the latter.
    hpv_unknown : an untested oropharynx cancer is staged by the p16-negative tables, flagged (the manual's
        rule), or stays `unknown`.
    rtog : which reading of RTOG-0129 the column `rtog0129` carries.
    iene_from_ai : where no reader graded the imaging extension, one AI-ENE node or more counts as extension
        for version 9, flagged `exploratory`: AI-ENE was trained on pathological extension, another quantity.
    """

    assume_m0: bool = False
    ene_unknown: Literal["unknown", "negative"] = "unknown"
    hpv_unknown: Literal["p16_negative", "unknown"] = "p16_negative"
    rtog: Definition = "fakhry2019"
    iene_from_ai: bool = False


class Inputs(NamedTuple):
    """What the rules look at, one patient; None is missing."""

    site: str | None
    hpv: str | None
    t7: str | None
    t8: str | None
    n7: str | None
    n8: str | None
    n9: str | None
    m: str | None
    pack_years_class: str | None
    n_nodes: int | None
    node_laterality: str | None
    largest_node_cm: float | None
    clinical_ene: bool | None
    iene_grade: int | None
    n_ai_ene: int | None
    pt8: str | None
    pn8: str | None
    pn9: str | None
    n_positive_nodes: int | None
    p_node_laterality: str | None
    p_largest_node_cm: float | None
    pathological_ene: bool | None


class Staged(NamedTuple):
    """Every decision of one patient."""

    ajcc7_n: Decision
    ajcc7_stage: Decision
    ajcc8_chapter: Decision
    ajcc8_t: Decision
    ajcc8_n: Decision
    ajcc8_stage: Decision
    ajcc8_pn: Decision
    ajcc8_p_stage: Decision
    v9_n: Decision
    v9_stage: Decision
    v9_pn: Decision
    v9_p_stage: Decision
    rtog0129_fakhry2019: Decision
    rtog0129_ang2010: Decision
    rtog0129: Decision


POSITIVE, NEGATIVE, ASSUMED = "p16_positive", "p16_negative", "p16_assumed_negative"


def stage_patient(inputs: Inputs, options: StagingOptions) -> Staged:
    """Every decision of one patient."""
    outside = _outside(inputs)
    if outside is not None:
        return Staged._make([outside] * len(Staged._fields))
    inputs = _without_primary(inputs) if inputs.site == "unknown_primary" else inputs
    chapter = _chapter(inputs, options)
    m = _m(inputs, options)
    n7 = _n7(inputs, chapter.value)
    t = Decision(inputs.t7 or inputs.t8, "given") if inputs.t7 or inputs.t8 else unknown("missing: T")
    ajcc8 = _ajcc8(inputs, chapter, m, options)
    nine = _version9(inputs, chapter, m, options)
    groups = {d: rtog0129(inputs.hpv, inputs.pack_years_class, _word(n7), t.value, definition=d)
              for d in DEFINITIONS}  # fmt: skip
    stage7 = _over(ajcc7.stage7, inputs.t7 or inputs.t8, n7, m)
    both = (groups["fakhry2019"], groups["ang2010"], groups[options.rtog])
    return Staged._make([n7, stage7, chapter, *ajcc8, *nine, *both])


def _outside(inputs: Inputs) -> Decision | None:
    """Why a patient is none for these rules, if so."""
    if inputs.site is None:
        return unknown("missing: site")
    if inputs.site == "oropharynx":
        return None
    if inputs.site == "unknown_primary":
        if inputs.hpv == "positive":
            return None
        if inputs.hpv is None:
            return unknown("missing: hpv (an unknown primary belongs here only if p16-positive)")
        return not_applicable("an unknown primary without HPV has its own chapter")
    return not_applicable(f"the rules are for the oropharynx, not for {inputs.site}")


def _without_primary(inputs: Inputs) -> Inputs:
    """An unknown primary with HPV is T0, also where T is missing or TX; pathologically too, if operated."""
    if told(inputs.t8 or inputs.t7) is None:
        inputs = inputs._replace(t8="T0")
    operated = inputs.pt8 or inputs.pn8 or inputs.pn9 or inputs.n_positive_nodes is not None
    return inputs._replace(pt8="T0") if operated and told(inputs.pt8) is None else inputs


def _chapter(inputs: Inputs, options: StagingOptions) -> Decision:
    if inputs.hpv == "positive":
        return Decision(POSITIVE, "given")
    if inputs.hpv == "negative":
        return Decision(NEGATIVE, "given")
    if options.hpv_unknown == "unknown":
        return unknown("missing: hpv")
    return Decision(ASSUMED, "untested", flags=(ASSUMED,))


def _m(inputs: Inputs, options: StagingOptions) -> Decision:
    if inputs.m in ("M0", "M1"):
        return Decision(inputs.m, "given")
    if options.assume_m0:
        return Decision("M0", "assumed", flags=("assumed_m0",))
    return unknown("missing: M")


def _n7(inputs: Inputs, chapter: str | None) -> Decision:
    if inputs.n7 is not None:
        return Decision(inputs.n7, "given")
    facts = _facts(inputs, chapter, own="")
    return facts if isinstance(facts, Decision) else over_readings(facts, ajcc7.n7)


def _facts(inputs: Inputs, chapter: str | None, *, own: str) -> tuple[NodeFacts, ...] | Decision:
    """What is known of the nodes, from a category of another edition (see `readings`) or from measurements.

    Parameters
    ----------
    own : `n8` to leave edition 8 aside, since it was looked at before.
    """
    if inputs.n7 is not None:
        return readings(inputs.n7, FROM_N7)
    if inputs.n8 is not None and own != "n8":
        if chapter is None:
            return unknown("missing: hpv (N of edition 8 means another thing with it than without)")
        known = FROM_N8_POSITIVE if chapter == POSITIVE else FROM_N8_NEGATIVE
        return readings(inputs.n8, known) or unknown(
            f"{inputs.n8} does not exist in edition 8 for p16-positive disease; is it edition 7?"
        )
    try:
        return (measured(inputs.n_nodes, inputs.node_laterality, inputs.largest_node_cm),)
    except Contradiction as error:
        return unknown(f"contradiction: {error}")


def _ajcc8(inputs: Inputs, chapter: Decision, m: Decision, options: StagingOptions) -> list[Decision]:
    """T, clinical N and stage, pathological N and stage of edition 8."""
    if chapter.value is None:
        return [chapter] * 5
    given = inputs.t8 or inputs.t7
    if chapter.value == POSITIVE:
        t, n = ajcc8_positive.t8(given), _n8_positive(inputs)
        pn = _pn8_positive(inputs)
        stage = _over_positive(ajcc8_positive.clinical_stage, given, n, m)
        p_stage = _over_positive(ajcc8_positive.pathological_stage, inputs.pt8, pn, m)
    else:
        t, n = ajcc8_negative.t8(given), _n8_negative(inputs, options)
        pn = _pn8_negative(inputs)
        stage = _over(ajcc8_negative.stage8, given, n, m)
        p_stage = _over(ajcc8_negative.stage8, inputs.pt8, pn, m)
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
        facts = _facts(inputs._replace(n7=None), POSITIVE, own="")
        return facts if isinstance(facts, Decision) else Decision(inputs.n8, "given")
    facts = _facts(inputs, POSITIVE, own="n8")
    return facts if isinstance(facts, Decision) else over_readings(facts, ajcc8_positive.clinical_n)


def _n8_negative(inputs: Inputs, options: StagingOptions) -> Decision:
    if inputs.n8 is not None:
        return Decision(inputs.n8, "given")
    facts = _facts(inputs, NEGATIVE, own="n8")
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


def _version9(inputs: Inputs, chapter: Decision, m: Decision, options: StagingOptions) -> list[Decision]:
    """Clinical N and stage, pathological N and stage of version 9."""
    if chapter.value != POSITIVE:
        known = inputs.hpv is not None
        outside = not_applicable("version 9 is for HPV-associated disease; p16-negative stays on edition 8")
        return [outside if known else unknown("missing: hpv")] * 4
    ene, flags = _iene(inputs, options)
    if inputs.n9 is not None:
        n = Decision(inputs.n9, "given")
    else:
        facts = _facts(inputs, POSITIVE, own="")
        if isinstance(facts, Decision):
            n = facts
        else:
            n = over_readings([one.with_ene(ene) for one in facts], version9.clinical_n).flagged(*flags)
    stage = _over_positive(version9.clinical_stage, inputs.t8 or inputs.t7, n, m)
    if inputs.pt8 is None and inputs.pn9 is None and inputs.n_positive_nodes is None:
        return [n, stage, *[not_applicable("no pathological T, N or number of positive nodes")] * 2]
    own = inputs.pn9 is not None
    pn = (
        Decision(inputs.pn9, "given")
        if own
        else version9.pathological_n(inputs.n_positive_nodes, inputs.pathological_ene)
    )
    return [n, stage, pn, _over_positive(version9.pathological_stage, inputs.pt8, pn, m)]


def _iene(inputs: Inputs, options: StagingOptions) -> tuple[Tri, tuple[str, ...]]:
    if inputs.iene_grade is not None:
        return inputs.iene_grade >= 1, ()
    if options.iene_from_ai and inputs.n_ai_ene is not None:
        return inputs.n_ai_ene >= 1, ("exploratory_iene_from_ai",)
    return None, ()


def _word(decision: Decision) -> str | None:
    """N for RTOG-0129: where several are possible on one side of its cut, one of them stands for all."""
    if decision.value is not None or not decision.possible:
        return decision.value
    for group in (("N0", "N1", "N2a"), ("N2b", "N2c", "N3")):
        if set(decision.possible) <= set(group):
            return decision.possible[0]
    return None


def _over_positive(
    stage: Callable[[str | None, str | None, str | None], Decision], t: str | None, n: Decision, m: Decision
) -> Decision:
    """`_over` of HPV-associated disease: a T that it does not have has no stage but that of M1."""
    own = ajcc8_positive.t8(t)
    made = _over(stage, own.value, n, m)
    return made if t is None or own.value is not None or m.value == "M1" else unknown(own.reason)


def _over(
    stage: Callable[[str | None, str | None, str | None], Decision], t: str | None, n: Decision, m: Decision
) -> Decision:
    """A stage over every N that is possible: known only if all give the same."""
    flags = (*n.flags, *m.flags)
    if n.value is not None or len(n.possible) == 0:
        made = stage(t, n.value, m.value)
        if made.value is None and n.value is None:
            made = unknown(f"{made.reason}; N: {n.reason}", made.possible)
        return made.flagged(*flags)
    each = [stage(t, word, m.value) for word in n.possible]
    values = {one.value for one in each}
    if len(values) == 1 and None not in values:
        return Decision(each[0].value, each[0].row).flagged(*flags, "n_open_but_same_stage")
    possible = dict.fromkeys(v for one in each for v in ((one.value,) if one.value else one.possible))
    parts = [f"N: {n.reason}", *dict.fromkeys(one.reason for one in each if one.value is None and one.reason)]
    return unknown("; ".join(parts[:2]), tuple(possible))
