"""Staging a whole table: each distinct combination of inputs is decided once and mapped back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from aiene.risk.staging.decision import Decision
from aiene.risk.staging.patient import (
    Edition,
    Inputs,
    StagingOptions,
    editions,
    stage_patient,
    staging_columns,
)

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
