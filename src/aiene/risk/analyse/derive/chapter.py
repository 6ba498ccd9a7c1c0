"""The chapter of derived cut-offs: search, validation, permutation control, and the scheme as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from aiene.parallel import Job, OnProgress, run_jobs
from aiene.report.document import Figure, Item, Section, Table, Text
from aiene.results.ownership import Owned
from aiene.risk.analyse.cohort import LABELS, Cohort, Outcome, numeric, outcome_of, words
from aiene.risk.analyse.derive.search import FEWEST_EVENTS, FEWEST_IN_GROUP, SMALLEST_SHARE, Derived
from aiene.risk.analyse.derive.validate import (
    Data,
    bootstrap_rows,
    centre_rows,
    cross_validated,
    fold_ranks,
    permuted,
    split_mask,
    split_rows,
    tree_table,
)
from aiene.risk.analyse.grouping import CHAPTERS, Grouping, Groupings, Stratum
from aiene.risk.analyse.records import AnalysisSettings, Endpoint, Part, Skipped, table_of
from aiene.risk.analyse.survival import survival_part
from aiene.risk.schemes.scheme import BASE_GROUPS, Base, Scheme, SchemeSource, scheme_bytes
from aiene.risk.table.endpoints import ALIASES
from aiene.stats.records import NotEstimableError
from aiene.stats.sample_size import information
from aiene.stats.tests import log_rank

_NAMES = {
    1: ("all",),
    2: ("low", "high"),
    3: ("low", "intermediate", "high"),
    4: ("low", "intermediate", "high", "very high"),
}
TITLE = "Cut-offs derived from the data"


@dataclass(frozen=True)
class _Material:
    endpoint: Endpoint
    outcome: Outcome
    base: np.ndarray
    count: np.ndarray
    center: np.ndarray
    bases: tuple[str, ...]
    base_name: Base
    chapter: str


def derive_chapter(
    cohort: Cohort,
    groupings: Groupings,
    scheme: Scheme,
    endpoints: Sequence[Endpoint],
    settings: AnalysisSettings,
    out: Path,
    on_progress: OnProgress | None,
) -> tuple[Section, Part]:
    """Derive and validate; the scheme found is written to `scheme_derived.toml`.

    With AJCC-8 as base each of its chapters has a search, tables and a scheme file of its own: a stage of the
    one is not that of the other.

    Parameters
    ----------
    out : folder of the results.
    """
    endpoint = settings.derive_endpoint or "dc"
    if endpoint not in endpoints:
        whole = _failed(f"{LABELS[endpoint]} cannot be analysed, so no cut-off can be derived for it.")
        return Section("derived", TITLE, whole.items), whole
    whole = Part()
    for base in groupings.bases or (None,):
        material = _material(cohort, base, scheme, endpoint)
        where = f", {CHAPTERS[material.chapter][0]}" if material.chapter else ""
        try:
            part = _derived(material, scheme, settings, out, on_progress)
        except NotEstimableError as error:
            part = _failed(f"No cut-off can be derived for {LABELS[endpoint].lower()}{where}: {error}")
        whole += replace(part, items=tuple(_of_chapter(i, material.chapter, where) for i in part.items))
    return Section("derived", TITLE, whole.items), whole


def _of_chapter(item: Item, chapter: str, where: str) -> Item:
    """The item with names and words that tell it from that of the other chapter; as it is without one."""
    if not chapter:
        return item
    if isinstance(item, Text):
        return replace(item, words=f"AJCC-8{where}. {item.words}")
    if isinstance(item, Table | Figure):
        return replace(item, name=f"{item.name}_{chapter}", title=f"{item.title} (AJCC-8{where})")
    return item


def scheme_file(chapter: str = "") -> str:
    """Name of the file of a derived scheme, of a chapter of AJCC-8 where one is named."""
    return f"scheme_derived_{chapter}.toml" if chapter else "scheme_derived.toml"


def _failed(reason: str) -> Part:
    return Part((Text(reason, kind="warning"),), (Skipped("Derived cut-offs", reason, asked=True),))


def _material(cohort: Cohort, grouping: Grouping | None, scheme: Scheme, endpoint: Endpoint) -> _Material:
    outcome, _ = outcome_of(cohort.table, endpoint)
    bases: tuple[str, ...] = ("all",)
    base, chapter = np.zeros(len(cohort.table), dtype=int), ""
    if grouping is not None:
        base, bases, chapter = grouping.rank(cohort.table), grouping.order, grouping.chapter
    base_name = scheme.base
    if chapter and base_name == "ajcc8":
        base_name = "ajcc8_p16_positive" if chapter == "p16_positive" else "ajcc8_p16_negative"
    else:
        chapter = ""
    count, center = numeric(cohort.table, "n_ai_ene").astype(int), words(cohort.table, "center")
    outcome = outcome.take(base[outcome.rows] >= 0)
    base, count, center = (part[outcome.rows] for part in (base, count, center))
    return _Material(endpoint, outcome, base, count, center, bases, base_name, chapter)


def _derived(
    material: _Material, scheme: Scheme, settings: AnalysisSettings, out: Path, on_progress: OnProgress | None
) -> Part:
    outcome = material.outcome
    data = Data(outcome.time, outcome.event, material.base, material.count, len(material.bases))
    split, of = settings.derive == "split", (data, settings)
    train = split_mask(outcome.event, settings) if split else np.ones(outcome.n, dtype=bool)
    found = data.derive(np.flatnonzero(train))
    jobs = [Job("Permutation control of the derived groups", permuted, of, settings.permutations)]
    if not split:
        folds, resamples = 2.0 * settings.folds * settings.repeats, min(settings.bootstraps, 500)
        jobs.append(Job("Nested cross-validation", cross_validated, of, folds))
        jobs.append(Job("Optimism of the derived groups", bootstrap_rows, of, resamples))
    results = run_jobs(jobs, workers=settings.jobs, on_progress=on_progress)
    if split:
        rows = split_rows(data, found, ~train, settings)
        ranks = found.assign(data.base, data.count)
        judged = _Judged("test part", outcome.take(~train), ranks[~train], data.base[~train])
    else:
        rows = [*results[1], *results[2]]
        judged = _Judged("left-out folds", outcome, fold_ranks(data, settings), data.base)
    rows += centre_rows(data, material.center, settings)
    curves = _curves(found, judged, settings)
    path = _write_scheme(found, material, train, scheme, settings, out)
    items: tuple[Item, ...] = (
        Text(_said(found, material, train, settings, path)),
        *_order(found, material),
        table_of("derived_worth", rows, settings=settings),
        *results[0],
        *curves.items,
        *((_mapping(found, material),) if found.cutoffs else ()),
        _space(found),
        tree_table(data, train, found, material.bases),
    )
    return Part(items, curves.skipped, _unstable(found, data, train))


@dataclass(frozen=True)
class _Judged:
    """Patients that took no part in the choice of their groups: derived ranks and old ones, (n,)."""

    where: str
    outcome: Outcome
    ranks: np.ndarray
    base: np.ndarray


def _curves(found: Derived, judged: _Judged, settings: AnalysisSettings) -> Part:
    """Curves and tests of the derived groups, and whether they tell patients of one old group apart."""
    if not found.cutoffs:
        return Part((Text("No cut-off was found, so there are no derived groups to draw or to test."),))
    names = _labels(max(found.n_groups, int(judged.ranks.max()) + 1))
    grouping = Grouping("derived", "derived groups", "", names, names)
    stratum = Stratum("test", f"All patients, {judged.where}", judged.outcome, judged.ranks, grouping)
    curves = survival_part([stratum], settings)
    row: dict[str, Any] = {"test": "Log-rank of the derived groups within old groups (stratified)"}
    try:
        test = log_rank(judged.outcome.time, judged.outcome.event, judged.ranks, strata=judged.base)
        row |= {"statistic": test.statistic, "df": test.df, "p": test.p}
    except NotEstimableError as error:
        row["reason"] = str(error)
    return curves + Part((table_of("derived_within", [row], where=judged.where),))


def _order(found: Derived, material: _Material) -> tuple[Text, ...]:
    """Says where the order of the old groups was contradicted; nothing where it held."""
    if not found.cutoffs or found.order_held:
        return ()
    levels = [
        " with ".join(b for b, place in zip(material.bases, found.old, strict=True) if place == level)
        for level in range(int(found.old.max()) + 1)
    ]
    joined = "; ".join(text for text in levels if " with " in text)
    told = (
        "The patients that chose the cut-offs contradict the order of the old groups, so neighbours were "
        f"taken together ({joined}), both in the derived groups and in the old ones that they are compared "
        "with: none of that gain is credited to the count."
    )
    return (Text(told, kind="warning"),)


def _labels(n: int) -> tuple[str, ...]:
    return _NAMES.get(n, tuple(f"group {i + 1}" for i in range(n)))


def _unstable(found: Derived, data: Data, train: np.ndarray) -> tuple[str, ...]:
    """The count of candidate parameters is that of the whole search, not of the winner."""
    events = data.event[train]
    own = np.bincount(found.assign(data.base, data.count)[train], weights=events)
    fewest = int(own[own > 0].min()) if own.size else 0
    told = information(int(events.sum()), len(found.trials), smallest_group_events=fewest)
    return tuple(
        f"Derived cut-offs, unstable: {r} (each candidate of the search counted)." for r in told.reasons
    )


def _said(
    found: Derived, material: _Material, train: np.ndarray, settings: AnalysisSettings, path: str
) -> str:
    outcome = material.outcome
    cut = " and ".join(f"≥ {c}" for c in found.cutoffs)
    result = (
        f"cut-offs {cut} AI-ENE nodes and {found.n_groups} ordered groups"
        if cut
        else "no cut-off better than the old groups alone, which stay unchanged"
    )
    chose, judge = (f"{o.n} patients ({o.n_events} events)" for o in map(outcome.take, (train, ~train)))
    where = f"a training part of {chose}, and is reported on the other {judge} only"
    if settings.derive == "nested":
        where = (
            f"all {chose}; its worth is that of the whole procedure, repeated in {settings.repeats} x "
            f"{settings.folds} folds and in bootstrap resamples; curves show each patient in the group that "
            "the other folds chose"
        )
    kept = f" The scheme is in {path}." if path else ""
    return (
        f"For {outcome.label.lower()} the search found {result}, on {where}. {len(found.trials)} "
        f"candidates were tried, all of them listed below.{kept}"
    )


def _mapping(found: Derived, material: _Material) -> Table:
    names = _labels(found.n_groups)
    classes = _class_words(found.cutoffs)
    rows = [
        {"base": base, **{f"class{c}": names[found.group[b, c]] for c in range(len(classes))}}
        for b, base in enumerate(material.bases)
    ]
    return table_of("derived_mapping", rows, part=tuple(enumerate(classes)))


def _class_words(cutoffs: Sequence[int]) -> tuple[str, ...]:
    edges = (0, *cutoffs)
    words = [str(a) if b == a + 1 else f"{a} to {b - 1}" for a, b in pairwise(edges)]
    return (*words, f"≥ {edges[-1]}" if cutoffs else "any number of")


def _space(found: Derived) -> Table:
    least = {"fewest": FEWEST_EVENTS, "fewest_in_group": FEWEST_IN_GROUP, "share": SMALLEST_SHARE}
    return table_of("derived_search", [t._asdict() for t in found.trials], **least)


def _write_scheme(
    found: Derived,
    material: _Material,
    train: np.ndarray,
    scheme: Scheme,
    settings: AnalysisSettings,
    out: Path,
) -> str:
    """The scheme as a file that `aiene risk stratify` reads; nothing where no cut-off was found."""
    if not found.cutoffs:
        return ""
    names = _labels(found.n_groups)
    mapping = {}
    for group in BASE_GROUPS[material.base_name]:
        place = _nearest(group, BASE_GROUPS[material.base_name], material.bases)
        mapping[group] = tuple(names[g] for g in found.group[place])
    used = {n for row in mapping.values() for n in row}
    chose, outcome = int(train.sum()), material.outcome
    others = f" (the training part of {outcome.n} patients)" if chose < outcome.n else ""
    source = SchemeSource(
        kind="derived",
        by="aiene risk analyse --derive",
        cohort=f"{chose} patients, {int(outcome.event[train].sum())} events{others}",
        seed=settings.seed,
        method=f"{settings.derive}; exhaustive search of {len(found.trials)} candidates",
        note="Report it only with its validation on other patients.",
    )
    derived = Scheme(
        name=f"{scheme.name}-derived{f'-{material.chapter}' if material.chapter else ''}".replace("_", "-"),
        base=material.base_name,
        base_definition=scheme.base_definition,
        cutoffs=found.cutoffs,
        mapping=mapping,
        groups=tuple(n for n in names if n in used),
        source=source,
        endpoint=ALIASES[material.endpoint],
        monotone=False,
    )
    name = scheme_file(material.chapter)
    Owned(out).write(out / name, scheme_bytes(derived))
    return name


def _nearest(group: str, every: Sequence[str], present: Sequence[str]) -> int:
    """Place of the group among those with patients, or of the nearest better one, or of the best."""
    order = list(every)
    better = [p for p in present if order.index(p) <= order.index(group)]
    return list(present).index(better[-1]) if better else 0
