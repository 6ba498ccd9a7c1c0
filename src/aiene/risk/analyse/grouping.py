"""The ways in which patients are put into ordered groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from aiene.risk.analyse.cohort import words

if TYPE_CHECKING:
    from aiene.risk.schemes.scheme import Scheme

STAGES = ("0", "I", "II", "III", "IV", "IVA", "IVB", "IVC")
SYSTEMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "rtog0129": ("RTOG-0129", ("low", "intermediate", "high")),
    "ajcc8_stage": ("AJCC-8 stage", STAGES),
    "ajcc7_stage": ("AJCC-7 stage", STAGES),
    "v9_stage": ("Version 9 stage", STAGES),
}
"""Columns of staging systems: what they are called, their groups from best to worst."""
_BASES = {
    "rtog0129": "rtog0129",
    "ajcc7": "ajcc7_stage",
    "ajcc8": "ajcc8_stage",
    "ajcc8_p16_positive": "ajcc8_stage",
    "ajcc8_p16_negative": "ajcc8_stage",
    "ajcc9": "v9_stage",
}


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
    """

    name: str
    title: str
    column: str
    order: tuple[str, ...]
    labels: tuple[str, ...]

    def rank(self, table: pd.DataFrame) -> np.ndarray:
        """Place of each patient's group, 0 the best, -1 in none; int (n,)."""
        place = {group: number for number, group in enumerate(self.order)}
        return np.array([place.get(g, -1) for g in words(table, self.column)], dtype=int)

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
    combined : old groups and count together; None where it is the same as `marker`.
    others : further staging systems to set beside.
    """

    marker: Grouping
    base: Grouping | None
    combined: Grouping | None
    others: tuple[Grouping, ...]

    @property
    def shown(self) -> tuple[Grouping, ...]:
        """Those that get curves."""
        return tuple(g for g in (self.marker, self.base, self.combined) if g is not None)

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
    own = _BASES.get(scheme.base, scheme.base)
    others = tuple(
        g
        for column in ("rtog0129", "ajcc8_stage")
        if column != own and (g := _system(table, column)) is not None
    )
    if scheme.base == "none":
        return Groupings(marker, None, None, others)
    title = SYSTEMS[own][0] if own in SYSTEMS else scheme.base
    seen = set(words(table, "base_group"))
    base_groups = tuple(g for g in scheme.base_groups if g in seen) or tuple(scheme.base_groups)
    base = Grouping("base", title, "base_group", base_groups, base_groups)
    combined = Grouping(
        "combined", f"{title} with AI-ENE", "combined_group", tuple(scheme.groups), tuple(scheme.groups)
    )
    return Groupings(marker, base, combined, others)


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
