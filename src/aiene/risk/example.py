"""A clinical table to try the commands on, as people keep one, and what goes with it; no patient is real."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from aiene.results.ownership import Owned
from aiene.risk.simulate.cohort import simulate_cohort
from aiene.risk.table.files import table_bytes

COHORTS = {"cohort.csv": (300, 0), "other_hospital.csv": (250, 1)}
"""Simulated cohorts: how many patients, and the random seed."""

_OWN_PATIENTS = 40
_FILES = ("mapping.toml", "demo_patients.csv", "README.txt")


def write_example(out: Path) -> tuple[str, ...]:
    """Write the tables of the example; what is there of an earlier example is replaced.

    Returns
    -------
    The names of the files.

    Raises
    ------
    UsageError : something that is not ours lies in the way.
    OutputError : nothing can be written there.
    """
    cohorts = {name: simulate_cohort(n, seed=seed) for name, (n, seed) in COHORTS.items()}
    files = {name: table_bytes(table, Path(name)) for name, table in cohorts.items()}
    files["own_table.csv"] = table_bytes(own_table(cohorts["cohort.csv"].head(_OWN_PATIENTS)), Path("t.csv"))
    own = resources.files("aiene.risk") / "example_files"
    files |= {name: (own / name).read_bytes() for name in _FILES}
    owned = Owned(out)
    owned.check(*files)
    for name, content in files.items():
        owned.write(out / name, content)
    return tuple(files)


def own_table(table: pd.DataFrame) -> pd.DataFrame:
    """Some patients of a canonical table in a form of its own: other headers, codes, and months."""
    return pd.DataFrame(
        {
            "Patient": table["patient_id"].str.replace("SIM", "H"),
            "p16": table["hpv"].map({"positive": "p16 pos", "negative": "p16 neg"}).fillna("not tested"),
            "cT": table["t7"],
            "cN": table["n7"].where(table["n7"].str.len() < 3, "N1"),
            "cM": table["m"],
            "PY": table["pack_years"].round().astype("Int64"),
            "Age": np.floor(table["age"]).astype("Int64"),
            "Sex": table["sex"].str[0].str.upper(),
            "FU (months)": (12 * table["os_time"]).round(1),
            "Status": table["os_event"] + 1,
        }
    )
