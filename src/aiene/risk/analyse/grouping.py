"""The ways in which patients are put into ordered groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aiene.risk.analyse.cohort import Outcome, words
from aiene.risk.schemes.scheme import BASE_GROUPS, Scheme
from aiene.risk.staging import stage
from aiene.risk.stratify import BASE_COLUMNS

CHAPTERS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    chapter: (title, stage.CHAPTERS[chapter], BASE_GROUPS[f"ajcc8_{chapter}"])
    for chapter, title in ((stage.POSITIVE, "p16-positive"), (stage.NEGATIVE, "p16-negative or untested"))
}
"""Chapters of AJCC-8, which have stages of their own: title, values of `ajcc8_chapter`, stages."""

STAGES = BASE_GROUPS["ajcc8"]
SYSTEMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "rtog0129": ("RTOG-0129", ("low", "intermediate", "high")),
    "ajcc8_stage": ("AJCC-8 stage", STAGES),
    "ajcc7_stage": ("AJCC-7 stage", STAGES),
    "v9_stage": ("Version 9 stage", STAGES),
}
"""Columns of staging systems: what they are called, their groups from best to worst."""


@dataclass(frozen=True)
class Grouping:
    """A column of ordered groups.

    Parameters
    ----------
    name : for files and machines.
    title : in words.
    column : of the table.
    order : groups, best first; other values are no group.
    labels : how the groups are shown.
    chapter : key of `CHAPTERS` where it is for the patients of that one only.
    """

    name: str
    title: str
    column: str
    order: tuple[str, ...]
    labels: tuple[str, ...]
    chapter: str = ""

    def rank(self, table: pd.DataFrame) -> np.ndarray:
        """Place of each patient's group, 0 the best, -1 in none; int (n,)."""
        place = {group: number for number, group in enumerate(self.order)}
        ranks = np.array([place.get(g, -1) for g in words(table, self.column)], dtype=int)
        if self.chapter:
            ranks[~np.isin(words(table, "ajcc8_chapter"), CHAPTERS[self.chapter][1])] = -1
        return ranks

    def present(self, ranks: np.ndarray) -> tuple[int, ...]:
        """Places of the groups that hold a patient."""
        return tuple(int(r) for r in np.unique(ranks[ranks >= 0]))


@dataclass(frozen=True)
class Groupings:
    """What a scheme gives, and what else the table holds.

    Parameters
    ----------
    marker : classes of the count.
    base : the old groups; None where the scheme starts from nothing.
    bases : the same, but AJCC-8 of both chapters as a grouping for each: their stages are not the same ones.
    combined : old groups and count together; None where it is the same as `marker`.
    others : further staging systems to set beside.
    """

    marker: Grouping
    base: Grouping | None
    combined: Grouping | None
    others: tuple[Grouping, ...]
    bases: tuple[Grouping, ...] = ()

    @property
    def shown(self) -> tuple[Grouping, ...]:
        """Those that get curves."""
        return tuple(g for g in (self.marker, *self.bases, self.combined) if g is not None)

    @property
    def chapters(self) -> tuple[Grouping, ...]:
        """AJCC-8 of each chapter, where it is no base."""
        return tuple(g for g in self.others if g.chapter)

    @property
    def main(self) -> Grouping:
        """The one that table 1 is made by."""
        return self.combined or self.marker


def make_groupings(table: pd.DataFrame, scheme: Scheme) -> Groupings:
    """The groupings of a stratified table."""
    classes = tuple(scheme.classes)
    marker = Grouping(
        "marker", "Number of AI-ENE nodes", "marker_class", classes, tuple(_class_label(c) for c in classes)
    )
    own = BASE_COLUMNS.get(scheme.base, scheme.base)
    bases = _chapters(table, "base_group", "base") if scheme.base == "ajcc8" else ()
    chapter = scheme.base.removeprefix("ajcc8_")
    staged = () if bases else _chapters(table, "ajcc8_stage", "ajcc8_stage")
    rtog = _system(table, "rtog0129") if own != "rtog0129" else None
    others = tuple(g for g in (rtog, *staged) if g is not None and g.chapter != chapter)
    if scheme.base == "none":
        return Groupings(marker, None, None, others)
    title = SYSTEMS[own][0] if own in SYSTEMS else scheme.base
    if chapter in CHAPTERS:
        title = f"{title}, {CHAPTERS[chapter][0]}"
    seen = set(words(table, "base_group"))
    base_groups = tuple(g for g in scheme.base_groups if g in seen) or tuple(scheme.base_groups)
    base = Grouping("base", title, "base_group", base_groups, base_groups)
    combined = Grouping(
        "combined", f"{title} with AI-ENE", "combined_group", tuple(scheme.groups), tuple(scheme.groups)
    )
    return Groupings(marker, base, combined, others, bases or (base,))


def _chapters(table: pd.DataFrame, column: str, name: str) -> tuple[Grouping, ...]:
    """AJCC-8 as one grouping for each chapter with two stages or more."""
    found = []
    for chapter, (words_of, values, stages) in CHAPTERS.items():
        seen = set(words(table, column)[np.isin(words(table, "ajcc8_chapter"), values)])
        groups = tuple(g for g in stages if g in seen)
        if len(groups) > 1:
            found.append(
                Grouping(f"{name}_{chapter}", f"AJCC-8 stage, {words_of}", column, groups, groups, chapter)
            )
    return tuple(found)


def _system(table: pd.DataFrame, column: str) -> Grouping | None:
    if column not in table:
        return None
    title, order = SYSTEMS[column]
    seen = set(words(table, column))
    groups = tuple(g for g in order if g in seen)
    return Grouping(column, title, column, groups, groups) if len(groups) > 1 else None


def _class_label(text: str) -> str:
    shown = text.replace(">=", "≥ ")
    return f"{shown} AI-ENE node{'' if shown == '1' else 's'}"


class Stratum:
    """Patients of one population in one grouping, for one endpoint.

    Parameters
    ----------
    layers : labels of the patients (n,) by name, within which groups are compared too; empty where not known.
    """

    def __init__(
        self,
        name: str,
        label: str,
        outcome: Outcome,
        ranks: np.ndarray,
        grouping: Grouping,
        layers: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        inside = ranks >= 0
        self.layers = {what: labels[inside] for what, labels in (layers or {}).items()}
        self.name, self.label, self.grouping = name, label, grouping
        self.outcome = outcome.take(inside)
        self.ranks = ranks[inside]

    @property
    def present(self) -> tuple[int, ...]:
        """Groups that hold a patient."""
        return self.grouping.present(self.ranks)

    def of(self, rank: int) -> Outcome:
        """The patients of one group."""
        return self.outcome.take(self.ranks == rank)

    @property
    def layered(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Name, patients (bool) and labels of each way to compare within strata that has two of them."""
        found = []
        for what, labels in self.layers.items():
            known = labels != ""
            if len(set(labels[known])) > 1 and len(set(self.ranks[known])) == len(self.present):
                found.append((what, known, labels[known]))
        return found

    @property
    def order(self) -> list[str]:
        """Names of the groups that hold a patient, best first."""
        return [self.grouping.order[r] for r in self.present]

    @property
    def labels(self) -> np.ndarray:
        """Name of each patient's group."""
        return np.array([self.grouping.order[r] for r in self.ranks], dtype=object)
