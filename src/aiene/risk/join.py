"""The count of a run joined to a clinical table, with both lists of those that found no partner."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiene.errors import InputError, UsageError, counted
from aiene.risk.table.files import read_raw
from aiene.risk.table.values import listed, number, understood, whole

_COUNTS = ("n_ai_ene", "n_ai_nodes")


@dataclass(frozen=True)
class Joined:
    """A table with its counts.

    Parameters
    ----------
    table : canonical; `ai_status` says what the run said, `no CT in the run` where it had none.
    matched : patients with a row in the run.
    only_table, only_ai : ids without a partner.
    warnings : what the user should look at.
    """

    table: pd.DataFrame
    matched: int
    only_table: tuple[str, ...]
    only_ai: tuple[str, ...]
    warnings: tuple[str, ...]


def join_ai_ene(table: pd.DataFrame, patients_csv: Path, *, id_pattern: str | None = None) -> Joined:
    """Join the counts of a run (its `patients.csv`) on the patient.

    Parameters
    ----------
    table : canonical.
    patients_csv : with `patient_id` or `case_id`, whichever more patients of the table are found in, and
        `n_ai_ene`; or the folder of the run.
    id_pattern : regular expression that finds the patient's id in a case id: its first group if it has one,
        else all that it matches.

    Raises
    ------
    InputError : the file cannot be used, or two cases are of one patient.
    UsageError : the pattern is none, or no id of one table is in the other.
    """
    path = patients_csv / "patients.csv" if patients_csv.is_dir() else patients_csv
    run = _run_table(path, table["patient_id"])
    ids = _patient_ids(run, path, id_pattern)
    _refuse_twice(ids, path)
    run = run.assign(patient_id=ids)
    place = pd.Index(run["patient_id"]).get_indexer(table["patient_id"])
    found = place >= 0
    if not found.any():
        raise UsageError(_no_partner(table["patient_id"], run["patient_id"], path))
    only_ai = tuple(sorted(set(run["patient_id"]) - set(table["patient_id"])))
    only_table = tuple(table["patient_id"].to_numpy()[~found].tolist())
    out, warnings = _with_columns(table, run, place)
    return Joined(out, int(found.sum()), only_table, only_ai, tuple(warnings))


def _run_table(path: Path, patients: pd.Series) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(path, "no such file", "name the results folder of aiene run, or its patients.csv")
    run = read_raw(path)
    names = [n for n in ("patient_id", "case_id") if n in run]
    name = max(names, key=lambda n: run[n].isin(patients).to_numpy().sum(), default=None)
    if name is None or "n_ai_ene" not in run:
        raise InputError(path, "it has no case_id and n_ai_ene", "name the patients.csv of aiene run")
    if run[name].isna().any():
        raise InputError(path, f"{name} is missing in a row", "name every case")
    out = pd.DataFrame({"case_id": run[name]})
    for column in _COUNTS:
        texts = run[column] if column in run else pd.Series(pd.array([None] * len(run), dtype="string"))
        values, bad = understood(texts, whole)
        bad |= (values.astype("float64") < 0).to_numpy()
        if bad.any():
            raise InputError(
                path, f'{column} holds "{texts[bad].iloc[0]}"', "a count is a whole number from 0 on"
            )
        out[column] = pd.array(values.to_numpy(), dtype="Int64")
    for column in ("status", "ai_model", "ai_ene_source"):
        out[column] = run.get(column, pd.NA)
    threshold = run.get("ai_threshold")
    volume = run.get("total_node_mm3")
    in_mm3 = np.nan if volume is None else understood(volume, number)[0].astype("float64")
    out["ai_node_volume_ml"] = in_mm3 / 1000
    out["ai_threshold"] = np.nan if threshold is None else understood(threshold, number)[0].astype("float64")
    return out


def _patient_ids(run: pd.DataFrame, path: Path, pattern: str | None) -> pd.Series:
    if pattern is None:
        return run["case_id"].rename("patient_id")
    try:
        finder = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--id-pattern is not a regular expression ({error}).") from error

    def found(text: str) -> str | None:
        match = finder.search(text)
        if match is None:
            return None
        return str(match.group(1) or "") if finder.groups else match.group(0)

    ids, bad = understood(run["case_id"], found)
    if bad.any():
        shown = listed(run["case_id"][bad].tolist())
        raise InputError(path, f"--id-pattern finds nothing in {shown}", "correct the pattern")
    return pd.Series(pd.array(ids.to_numpy(), dtype="string"))


def _refuse_twice(ids: pd.Series, path: Path) -> None:
    twice = pd.unique(ids[ids.duplicated()]).tolist()
    if twice:
        problem = f"{len(twice)} patient{'s have' if len(twice) > 1 else ' has'} more than one case"
        raise InputError(path, f"{problem} ({listed(twice)})", "keep one CT for each patient")


def _with_columns(
    table: pd.DataFrame, run: pd.DataFrame, place: np.ndarray
) -> tuple[pd.DataFrame, list[str]]:
    out, warnings = table.copy(), []
    had = int(table["n_ai_ene"].notna().sum()) if "n_ai_ene" in table else 0
    if had:
        warnings.append(f"the table's own n_ai_ene ({counted(had, 'patient')}) is replaced by the run's")
    for column in (*_COUNTS, "ai_model", "ai_threshold", "ai_node_volume_ml"):
        out[column] = run[column].array.take(place, allow_fill=True)
    status = run["status"].astype("string").array.take(place, allow_fill=True)
    out["ai_status"] = pd.Series(status, index=out.index).mask(place < 0, "no CT in the run")
    source = run["ai_ene_source"].astype("string").fillna("measured").array.take(place, allow_fill=True)
    out["ai_ene_source"] = pd.Series(source, index=out.index).where(out["n_ai_ene"].notna())
    failed = int((out["n_ai_ene"].isna().to_numpy() & (place >= 0)).sum())
    if failed:
        warnings.append(
            f"{counted(failed, 'patient')} without a count, which is not 0: the run of the CT failed"
        )
    models = out["ai_model"].dropna().nunique()
    if models > 1 or out["ai_threshold"].dropna().nunique() > 1:
        warnings.append("the counts come from more than one model or ENE threshold")
    return out, warnings


def _no_partner(ours: pd.Series, theirs: pd.Series, path: Path) -> str:
    hint = "use --id-pattern to find the patient id in each case id"
    if set(map(_bare, ours)) & set(map(_bare, theirs)):
        hint = "they differ only in case, zeros or punctuation: make them identical"
    return (
        f"{path.name}: no patient of the table is in it; the table has {listed(ours.tolist(), shown=3)}, "
        f"the run {listed(theirs.tolist(), shown=3)}; {hint}."
    )


def _bare(text: object) -> str:
    """An id without case, punctuation and leading zeros."""
    parts = re.findall(r"[a-z]+|\d+", str(text).casefold())
    return "".join(part.lstrip("0") or "0" for part in parts)


def run_nodes(patients_csv: Path, *, id_pattern: str | None = None) -> pd.DataFrame | None:
    """The nodes of a run (`patient_id`, `ene`, `counts` where it has it) beside its patients.csv, or None.

    The table is rounded for people, so `ene` is that of the cases' records where these are there.

    Raises
    ------
    InputError, UsageError : see `join_ai_ene`.
    """
    folder = patients_csv if patients_csv.is_dir() else patients_csv.parent
    path = folder / "nodes.csv"
    if not path.is_file():
        return None
    nodes = read_raw(path)
    if "case_id" not in nodes or "ene" not in nodes:
        return None
    ene = understood(nodes["ene"], number)[0].astype("float64")
    if "name" in nodes:
        ene = _exact(ene, nodes, folder)
    ids = _patient_ids(nodes, path, id_pattern)
    out = pd.DataFrame({"patient_id": ids, "ene": ene})
    if "counts" in nodes:
        out["counts"] = understood(nodes["counts"], number)[0].astype("float64").fillna(1).astype("int64")
    return out.dropna().reset_index(drop=True)


_ROUNDED = 1e-4
"""How far a probability of the table may be from that of the record."""


def _exact(shown: pd.Series, nodes: pd.DataFrame, folder: Path) -> pd.Series:
    """The probabilities of a table of nodes with every digit that the records of its run have."""
    exact = {
        (case_id, node.get("name")): node.get("ene")
        for case_id in nodes["case_id"].dropna().unique()
        for node in _nodes_of(folder, str(case_id))
    }
    keys = zip(nodes["case_id"], nodes["name"], strict=True)
    full = pd.Series([exact.get(key) for key in keys], index=shown.index, dtype="float64")
    return shown.mask((full - shown).abs() <= _ROUNDED, full)


def _nodes_of(folder: Path, case_id: str) -> list[dict[str, Any]]:
    """The nodes of a case's record, if it has one; tables of `aiene retable` lie one folder below the run."""
    if Path(case_id).name != case_id:
        return []
    for root in (folder, folder.parent):
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            content = json.loads((root / "cases" / case_id / "case.json").read_text(encoding="utf-8"))
            return [node for node in content["nodes"] if isinstance(node.get("ene"), float)]
    return []
