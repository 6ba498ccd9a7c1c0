"""Who is analysed, who is not, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aiene.errors import UsageError
from aiene.risk.analyse.outcome import words
from aiene.risk.analyse.settings import AnalysisSettings


@dataclass(frozen=True)
class Step:
    """One exclusion: how many came, who left, how many went on.

    Parameters
    ----------
    name : in one word, for machines.
    reason : why the patients left, in words.
    before, after : patients before and after.
    left : (patient_id, detail) of those who left.
    """

    name: str
    reason: str
    before: int
    after: int
    left: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Population:
    """Patients that are analysed together.

    Parameters
    ----------
    name : `all`, `hpv_positive` or `hpv_negative`.
    label : in words.
    rows : positions in the cohort's table.
    """

    name: str
    label: str
    rows: np.ndarray


@dataclass(frozen=True)
class Cohort:
    """The analysed patients and the way to them.

    Parameters
    ----------
    table : one row per analysed patient, plain index.
    steps : exclusions in their order; counts add up from the first `before` to the length of the table.
    simulated : the AI-ENE count of at least one patient is simulated.
    """

    table: pd.DataFrame
    steps: tuple[Step, ...]
    simulated: bool

    @property
    def n_input(self) -> int:
        """Rows of the table that came in."""
        return self.steps[0].before if self.steps else len(self.table)

    def populations(self, *, strata: bool) -> tuple[Population, ...]:
        """All patients, and those with a known HPV status by status where `strata`."""
        every = Population("all", "All patients", np.arange(len(self.table)))
        if not strata:
            return (every,)
        hpv = words(self.table, "hpv")
        found = [
            Population(f"hpv_{status}", f"HPV-{status}", np.flatnonzero(hpv == status))
            for status in ("positive", "negative")
        ]
        return (every, *(p for p in found if 0 < p.rows.size < len(self.table)))


def make_cohort(table: pd.DataFrame, settings: AnalysisSettings) -> Cohort:
    """Take the exclusions one after the other.

    Parameters
    ----------
    table : the stratified canonical table.

    Raises
    ------
    UsageError : the table is empty, or nobody is left.
    """
    if not len(table):
        raise UsageError("the table has no patient.")
    simulated = bool((words(table, "ai_ene_source") == "simulated").any())
    at = table.reset_index(drop=True)
    steps = []
    for name, reason, detail in _rules(settings):
        details = detail(at)
        gone = details != ""
        left = tuple(zip(words(at, "patient_id")[gone], details[gone], strict=True))
        steps.append(Step(name, reason, len(at), int((~gone).sum()), left))
        at = at.loc[~gone].reset_index(drop=True)
    if not len(at):
        worst = max(steps, key=lambda s: len(s.left))
        raise UsageError(
            f"no patient is left to analyse: {len(worst.left)} of {len(table)} were left out because of "
            f"'{worst.reason}'."
        )
    return Cohort(at, tuple(steps), simulated)


_Rule = tuple[str, str, Callable[[pd.DataFrame], np.ndarray]]


def _rules(settings: AnalysisSettings) -> list[_Rule]:
    """Name, words and the reason of each patient (empty: goes on), in their order."""
    sites = settings.sites
    named = " or ".join(s.replace("_", " ") for s in sites)
    rules: list[_Rule] = []
    if sites:
        rules.append(("site", f"primary site is not {named}", lambda t: _site(t, sites)))
    rules += [
        ("metastatic", "distant metastasis at diagnosis (M1)", _metastatic),
        ("no_count", "no AI-ENE count", _without_count),
        ("no_follow_up", "no follow-up of any endpoint", _without_follow_up),
    ]
    return rules


def _site(table: pd.DataFrame, sites: tuple[str, ...]) -> np.ndarray:
    site = words(table, "site")
    if not (site != "").any():
        return np.full(len(table), "", dtype=object)
    return np.asarray(
        ["" if s in sites else (s.replace("_", " ") or "site unknown") for s in site], dtype=object
    )


def _metastatic(table: pd.DataFrame) -> np.ndarray:
    return np.where(words(table, "m") == "M1", "M1", "").astype(object)


def _without_count(table: pd.DataFrame) -> np.ndarray:
    return np.where(table["n_ai_ene"].isna().to_numpy(), "n_ai_ene is empty", "").astype(object)


def _without_follow_up(table: pd.DataFrame) -> np.ndarray:
    known = np.zeros(len(table), dtype=bool)
    for name in ("os", "dm", "lrf", "dfs"):
        known |= (table[f"{name}_time"].notna() & table[f"{name}_event"].notna()).to_numpy(dtype=bool)
    return np.where(known, "", "no time and event").astype(object)
