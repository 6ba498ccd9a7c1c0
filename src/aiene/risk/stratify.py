"""From the canonical table and a scheme to one combined group per patient, with every step on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from aiene.errors import UsageError
from aiene.risk.schemes.scheme import Scheme
from aiene.risk.staging.stage import CHAPTERS, StagingOptions, stage_table, staging_columns

UNCLASSIFIABLE = "unclassifiable"
BASE_COLUMNS = {
    "rtog0129": "rtog0129",
    "ajcc7": "ajcc7_stage",
    "ajcc9": "v9_stage",
    **dict.fromkeys(("ajcc8", *(f"ajcc8_{chapter}" for chapter in CHAPTERS)), "ajcc8_stage"),
}
"""The column of a staged table that holds the groups of a base."""


def stratify(table: pd.DataFrame, scheme: Scheme, *, options: StagingOptions | None = None) -> pd.DataFrame:
    """The combined group of every patient.

    Parameters
    ----------
    table : canonical, with the scheme's marker (`n_ai_ene`).
    scheme : which base, cut-offs and mapping.
    options : for the staging; the scheme's reading of RTOG-0129 takes the place of theirs.

    Returns
    -------
    The table, `row` and the staging columns, then `base_group`, `base_reason`, `marker_class`,
    `combined_group`, `combined_reason`, `scheme`, `scheme_sha256`. Where base group or count is missing,
    `combined_group` is `unclassifiable` and `combined_reason` says why.

    Raises
    ------
    UsageError : the table has no marker.
    """
    if scheme.marker not in table or table[scheme.marker].notna().sum() == 0:
        raise UsageError(
            f"the table has no {scheme.marker}; name the patients.csv of a run with --ai-ene, or plant a "
            "count with aiene risk simulate --onto."
        )
    wanted = replace(options or StagingOptions(), rtog=scheme.base_definition)
    again = [name for name in ("row", *staging_columns(), *_ADDED) if name in table]
    plain = table.drop(columns=again).reset_index(drop=True)
    staged = stage_table(plain, options=wanted).drop(columns="patient_id")
    out = pd.concat([plain, staged], axis=1)
    out.attrs = dict(table.attrs)
    base, base_reason = _base(out, scheme)
    place = _class_number(out, scheme)
    out["base_group"], out["base_reason"] = base, base_reason
    out["marker_class"] = pd.array([*scheme.classes, None], dtype="string").take(place)
    out["combined_group"] = _combined(base, place, scheme)
    out["combined_reason"] = _reasons(out, scheme)
    out["scheme"], out["scheme_sha256"] = scheme.name, scheme.sha256
    return out


_GROUPS = ("base_group", "base_reason", "marker_class", "combined_group", "combined_reason")
_ADDED = (*_GROUPS, "scheme", "scheme_sha256")


def _base(table: pd.DataFrame, scheme: Scheme) -> tuple[pd.Series, pd.Series]:
    """The base group, NA where there is none, and why."""
    if scheme.base == "none":
        everyone = pd.Series("all", index=table.index, dtype="string")
        return everyone, pd.Series("", index=table.index, dtype="string")
    column = BASE_COLUMNS[scheme.base]
    words, reasons = table[column], table[f"{column}_reason"]
    chapter = scheme.base.removeprefix("ajcc8_")
    if chapter in CHAPTERS:
        others = [word for name, values in CHAPTERS.items() if name != chapter for word in values]
        outside = table["ajcc8_chapter"].isin(others)
        words = words.mask(outside, pd.NA)
        reasons = reasons.mask(outside, f"not of the {chapter} chapter")
    known = words.isin(scheme.base_groups)
    return words.where(known), reasons.where(~known, "")


def _class_number(table: pd.DataFrame, scheme: Scheme) -> np.ndarray:
    """Number of the marker's class, -1 where it is missing."""
    counts = table[scheme.marker].to_numpy(dtype=float, na_value=np.nan)
    place = np.searchsorted(np.array(scheme.cutoffs), counts, side="right")
    return np.where(np.isnan(counts), -1, place)


def _combined(base: pd.Series, place: np.ndarray, scheme: Scheme) -> pd.Series:
    groups = np.array([list(scheme.mapping[group]) for group in scheme.base_groups], dtype=object)
    row = pd.Categorical(base, categories=list(scheme.base_groups)).codes
    known = (row >= 0) & (place >= 0)
    words = np.where(known, groups[np.maximum(row, 0), np.maximum(place, 0)], UNCLASSIFIABLE)
    return pd.Series(pd.array(words, dtype="string"), index=base.index)


def _reasons(table: pd.DataFrame, scheme: Scheme) -> pd.Series:
    no_base, no_count = table["base_group"].isna(), table[scheme.marker].isna()
    base = ("base: " + table["base_reason"]).where(no_base, "")
    count = pd.Series(f"missing: {scheme.marker}", index=table.index, dtype="string")
    if "ai_status" in table:
        count = count + (" (" + table["ai_status"] + ")").fillna("")
    count = count.where(no_count, "")
    both = (no_base & no_count).map({True: "; ", False: ""}).astype("string")
    return base + both + count
