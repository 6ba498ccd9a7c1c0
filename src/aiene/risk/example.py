"""A clinical table to try the commands on, as people keep one, and what goes with it; no patient is real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from aiene.results.ownership import Owned
from aiene.risk.simulate.cohort import simulate_cohort
from aiene.risk.table.files import table_bytes

COHORTS = {"cohort.csv": (300, 0), "other_hospital.csv": (250, 1)}
"""Simulated cohorts: how many patients, and the random seed."""

_OWN_PATIENTS = 40

MAPPING = """\
# Which column of own_table.csv is which, and what its codes mean.
# aiene risk import own_table.csv --map mapping.toml -o imported.csv
unit = "months"
origin = "rt_start"

[columns]
patient_id = "Patient"
hpv = "p16"
t8 = "cT"
n8 = "cN"
m = "cM"
pack_years = "PY"
age = "Age"
sex = "Sex"
os_time = "FU (months)"
os_event = "Status"

[constants]
site = "oropharynx"
edition_t = "8"
edition_n = "8"

[values.os_event]
"1" = 0
"2" = 1
"""

DEMO = """\
patient_id,site,hpv,T,N,M,edition,pack_years,age,sex,os_time,os_event
phantom-dicom,oropharynx,positive,T2,N1,M0,8,5,61,female,3.2,0
phantom-nifti,oropharynx,unknown,T4a,N2b,M0,8,40,57,male,1.1,1
"""

README = """\
Tables to try `aiene risk` on. All patients are simulated: no result says anything about patients.

cohort.csv           300 patients in the canonical form: the columns that every command reads
other_hospital.csv   250 more, for validation
own_table.csv        the same kind of table as a hospital might keep it, with mapping.toml to read it
demo_patients.csv    the two phantoms of `aiene demo`, to be joined with their AI-ENE node numbers

In this folder:

    aiene risk import own_table.csv --map mapping.toml -o imported.csv
    aiene risk stage cohort.csv -o staged.csv
    aiene risk stratify cohort.csv --scheme count-0-1-2plus -o groups.csv
    aiene risk analyse cohort.csv --endpoint os -o report
    aiene risk validate report/models/os_clinical_count.json other_hospital.csv -o validation
    aiene risk simulate --onto cohort.csv -o planted.csv

After `aiene demo`, with its folder in place of DEMO:

    aiene risk stratify demo_patients.csv --ai-ene DEMO/results -o demo_groups.csv

What the columns mean: docs/risk.md.
"""


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
    files |= {name: text.encode() for name, text in
              {"mapping.toml": MAPPING, "demo_patients.csv": DEMO, "README.txt": README}.items()}  # fmt: skip
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
