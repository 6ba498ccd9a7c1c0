"""Cohorts that the tests of the statistics share. Nothing here is stored in the repository."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiene.report.formatting import plain

# Eight patients, small enough for every figure to be worked out by hand.
#   time   1  2  2  3  4  5  6  8
#   state  1  2  1  0  1  0  2  0      1 event, 2 competing event, 0 censored
#   group  a  a  b  a  b  a  b  b
EIGHT = pd.DataFrame(
    {
        "time": [1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
        "state": [1, 2, 1, 0, 1, 0, 2, 0],
        "group": list("aabababb"),
        "x": [2.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0],
    }
)
EIGHT["any"] = (EIGHT.state > 0).astype(int)
EIGHT["event"] = (EIGHT.state == 1).astype(int)


def by_group(estimate: Callable[[Any, Any], Any], time: Any, code: Any, group: Any) -> dict[str, Any]:
    """A curve of each group that occurs: the group to what `estimate` makes of its patients."""
    time, code, group = (np.asarray(values) for values in (time, code, group))
    return {str(name): estimate(time[group == name], code[group == name]) for name in np.unique(group)}


def lung(*columns: str) -> pd.DataFrame:
    """The lung cancer trial of R's survival; `status` 1 is death."""
    from lifelines.datasets import load_lung

    table = load_lung()
    return table[["time", "status", *columns]].dropna().astype(float).reset_index(drop=True)


def rossi() -> pd.DataFrame:
    """Re-arrest of 432 released prisoners."""
    from lifelines.datasets import load_rossi

    return load_rossi()


def rossi_columns() -> list[str]:
    return ["fin", "age", "race", "wexp", "mar", "paro", "prio"]


def sksurv_data(name: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Covariates, times and event codes of a data set of scikit-survival."""
    from sksurv import datasets  # type: ignore[import-untyped]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X, y = getattr(datasets, f"load_{name}")()
    event, time = (y[field] for field in y.dtype.names)
    return X, time.astype(float), event.astype(int)


def bmtcrr(shared: Path) -> pd.DataFrame:
    """177 transplant patients with competing risks, factors as R numbers them."""
    table = pd.read_csv(shared / "data" / "clinical" / "bmtcrr.csv")
    numbers = {
        "Sex": {"F": 1, "M": 2},
        "D": {"ALL": 1, "AML": 2},
        "Phase": {"CR1": 1, "CR2": 2, "CR3": 3, "Relapse": 4},
        "Source": {"BM+PB": 1, "PB": 2},
    }
    return table.assign(
        **{f"{name}_": table[name].map(codes).astype(float) for name, codes in numbers.items()}
    )


def simulated(n: int, seed: int, *, effect: float = 0.7, competing: bool = False) -> pd.DataFrame:
    """Patients with one true covariate `x` and one without effect `z`; about half are censored."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=n), rng.normal(size=n)
    event_time = rng.exponential(1.0 / (0.3 * np.exp(effect * x)))
    other = rng.exponential(1.0 / 0.15, n) if competing else np.full(n, np.inf)
    censored = rng.uniform(0.5, 6.0, n)
    time = np.minimum(np.minimum(event_time, other), censored)
    state = np.where(time == event_time, 1, np.where(time == other, 2, 0))
    return pd.DataFrame({"time": time, "state": state, "x": x, "z": z})


def as_json(result: Any) -> Any:
    """The result of an analysis as JSON values; what is not finite becomes None."""
    return plain(asdict(result) if is_dataclass(result) and not isinstance(result, type) else result)


def first(state: Any, cause: int) -> Any:
    """The codes with this cause as the event and the other as its competing event."""
    codes = np.asarray(state)
    return codes if cause == 1 else np.where(codes == 2, 1, np.where(codes == 1, 2, codes))
