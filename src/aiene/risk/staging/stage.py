"""What the rules of staging look at, one patient, what an edition of them is, and a whole table staged.

Each module of `editions` declares one `EDITION`; the columns of a staged table, their order and their words
follow from it, so that a further edition is one further file, of code there or of a user's own
(`own_edition`).

A category that was given in the edition's own column is taken as it stands; else one of another edition is
converted where that loses nothing; else the node's measurements decide.

In a table, each distinct combination of inputs is decided once and mapped back.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from aiene.risk.staging import editions as own_package
from aiene.risk.staging.decision import (
    FROM_N7,
    FROM_N8_NEGATIVE,
    FROM_N8_POSITIVE,
    Contradiction,
    Decision,
    NodeFacts,
    Tri,
    measured,
    not_applicable,
    over_readings,
    readings,
    told,
    unknown,
)

Definition = Literal["fakhry2019", "ang2010"]
"""Reading of RTOG-0129."""


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


StageRule = Callable[[str | None, str | None, str | None], Decision]
"""A stage from T, N and M."""

POSITIVE, NEGATIVE, ASSUMED = "p16_positive", "p16_negative", "p16_assumed_negative"
CHAPTERS = {POSITIVE: (POSITIVE,), NEGATIVE: (NEGATIVE, ASSUMED)}
"""Chapters of edition 8, and the values of `ajcc8_chapter` whose patients are staged by each."""
NO_SURGERY = "no pathological T, N or number of positive nodes"


@dataclass(frozen=True)
class Patient:
    """One patient of the oropharynx, with what all editions ask first.

    Parameters
    ----------
    inputs : an unknown primary is T0.
    chapter : `p16_positive`, `p16_negative` or `p16_assumed_negative`.
    m : M0 or M1.
    """

    inputs: Inputs
    options: StagingOptions
    chapter: Decision
    m: Decision


@dataclass(frozen=True)
class Edition:
    """One set of rules.

    Parameters
    ----------
    name : for messages and files.
    columns : what it decides, in order; each has its `_row` and `_reason` in a staged table.
    decide : from a patient to a decision for each column.
    place : among the editions of a table; those of a user come last.
    no_value : the word of a column without a value.
    """

    name: str
    columns: tuple[str, ...]
    decide: Callable[[Patient], Sequence[Decision]]
    place: int = 100
    no_value: str = "unknown"


@cache
def editions() -> tuple[Edition, ...]:
    """Every edition of the package, in the order of a table's columns."""
    found: list[Edition] = [
        import_module(f"{own_package.__name__}.{module.name}").EDITION
        for module in pkgutil.iter_modules(own_package.__path__)
    ]
    return tuple(sorted(found, key=lambda edition: edition.place))


def staging_columns(own: Sequence[Edition] = ()) -> tuple[str, ...]:
    """What staging adds to a table behind `patient_id` and `row`.

    Parameters
    ----------
    own : editions of the user, beside those of the package.
    """
    named = [name for edition in (*editions(), *own) for name in edition.columns]
    return (*(f"{name}{part}" for name in named for part in ("", "_row", "_reason")), "staging_flags")


def stage_patient(
    inputs: Inputs, options: StagingOptions, own: Sequence[Edition] = ()
) -> Mapping[str, Decision]:
    """Every decision of one patient, by its column."""
    every = (*editions(), *own)
    outside = _outside(inputs)
    if outside is not None:
        return {name: outside for edition in every for name in edition.columns}
    inputs = _without_primary(inputs) if inputs.site == "unknown_primary" else inputs
    patient = Patient(inputs, options, _chapter(inputs, options), _m(inputs, options))
    return {
        name: decision
        for edition in every
        for name, decision in zip(edition.columns, edition.decide(patient), strict=True)
    }


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


def node_facts(inputs: Inputs, chapter: str | None, *, own: str = "") -> tuple[NodeFacts, ...] | Decision:
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


def n_of_facts(
    inputs: Inputs,
    chapter: str | None,
    rule: Callable[[NodeFacts], Decision],
    *,
    own: str = "",
    ene: Tri = None,
) -> Decision:
    """N by a rule for what is known of the nodes (see `node_facts`), with this extension."""
    facts = node_facts(inputs, chapter, own=own)
    return facts if isinstance(facts, Decision) else over_readings([f.with_ene(ene) for f in facts], rule)


def over_n(stage: StageRule, t: str | None, n: Decision, m: Decision) -> Decision:
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


NOT_APPLICABLE = "not_applicable"


def stage_table(
    table: pd.DataFrame, *, options: StagingOptions | None = None, own: Sequence[Edition] = ()
) -> pd.DataFrame:
    """Every stage and risk group of every patient, with the row that decided and the reason where none did.

    Parameters
    ----------
    table : canonical, see `aiene.risk.table`.
    options : what the user decides where the rules leave a choice.
    own : editions of the user, beside those of the package.

    Returns
    -------
    One row per patient in the table's order: `patient_id`, `row` (from 1), then `staging_columns`. A value is
    `unknown` (`unclassifiable` for RTOG-0129) or `not_applicable` only with a reason.
    """
    chosen = options or StagingOptions()
    keys = _keys(table)
    codes, first = _distinct(keys)
    rows = keys.iloc[first]
    decided = [
        _cells(stage_patient(_inputs(values), chosen, own), own) for values in rows.itertuples(index=False)
    ]
    cells = {
        name: pd.array([one[place] for one in decided], dtype="string").take(codes)
        for place, name in enumerate(staging_columns(own))
    }
    ids = table["patient_id"].reset_index(drop=True)
    return pd.DataFrame({"patient_id": ids, "row": np.arange(1, len(table) + 1), **cells})


def _keys(table: pd.DataFrame) -> pd.DataFrame:
    """The inputs of the rules, numbers coarsened to the classes that the rules can tell apart."""
    out = {
        name: table[name].reset_index(drop=True)
        if name in table
        else pd.Series([None] * len(table), dtype=object)
        for name in Inputs._fields
    }
    for name in ("n_nodes", "n_positive_nodes"):
        out[name] = _capped(out[name], 5)
    for name in ("iene_grade", "n_ai_ene"):
        out[name] = _capped(out[name], 1)
    for name in ("largest_node_cm", "p_largest_node_cm"):
        out[name] = _size_class(out[name])
    return pd.DataFrame(out)


def _capped(values: pd.Series, most: int) -> pd.Series:
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    return pd.Series(np.minimum(numbers, most))


def _size_class(values: pd.Series) -> pd.Series:
    """The upper end of the class of a size in cm: 0, 3, 6, or 7 for all that is more than 6."""
    cm = values.to_numpy(dtype=float, na_value=np.nan)
    classes = np.select([np.isnan(cm), cm <= 0, cm <= 3, cm <= 6], [np.nan, 0.0, 3.0, 6.0], 7.0)
    return pd.Series(classes)


def _distinct(keys: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """For each row the number of its combination, and the first row of each combination."""
    combined = np.zeros(len(keys), dtype=np.int64)
    for name in keys:
        codes, words = pd.factorize(keys[name], use_na_sentinel=True)
        combined, _ = pd.factorize(combined * (len(words) + 1) + codes + 1)
    _, first, inverse = np.unique(combined, return_index=True, return_inverse=True)
    return inverse, first


def _inputs(values: tuple[Any, ...]) -> Inputs:
    known = {
        name: None if pd.isna(value) else value for name, value in zip(Inputs._fields, values, strict=True)
    }
    for name in ("n_nodes", "n_positive_nodes", "iene_grade", "n_ai_ene"):
        number = known[name]
        known[name] = None if number is None else int(number)
    for name in ("clinical_ene", "pathological_ene"):
        known[name] = None if known[name] is None else bool(known[name])
    return Inputs(**known)


def _cells(staged: Mapping[str, Decision], own: Sequence[Edition]) -> list[str]:
    cells: list[str] = []
    for edition in (*editions(), *own):
        for decision in (staged[name] for name in edition.columns):
            without = edition.no_value if decision.applicable else NOT_APPLICABLE
            cells += [decision.value or without, decision.row, decision.reason]
    flags = dict.fromkeys(flag for decision in staged.values() for flag in decision.flags)
    return [*cells, " | ".join(flags)]
