"""The tasks of benchmark, training and risk on the workers of a scheduler: the same results, none lost."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from aiene import cluster, parallel
from aiene.cluster import crews_of
from aiene.errors import UsageError
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.models.bundle import default_folder, read_bundle
from aiene.parallel import Job, run_jobs, work_through
from aiene.preprocess.preprocess import load_preparation
from aiene.risk.analyse.cohort import make_cohort, outcome_of
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.validate.measures import Predictor, measured
from aiene.training.dataset import Pair, prepared_crops
from builders.risk_cohorts import drawn as drawn_cohort

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers do not see the tests


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler with two workers."""
    with cluster.connected("local", 2) as client:
        yield client.scheduler.address


def drawn(seed: int) -> float:
    return float(np.random.default_rng(seed).normal())


def once_deadly(folder: Path, name: str) -> str:
    """Ends its process at `deadly`, and at `once` the first time."""
    if name == "deadly" or (name == "once" and not (folder / "tried").exists()):
        (folder / "tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return name.upper()


def lost(name: str) -> str:
    return f"{name} is lost"


@pytest.mark.slow
def test_jobs_have_the_results_of_this_machine(address: str) -> None:
    jobs = [Job(f"job {n}", drawn, (n,), weight=100.0) for n in range(12)]
    here = run_jobs(jobs, workers=1)
    told: list[str] = []
    with crews_of(address, None):
        there = run_jobs(jobs, workers=1, on_progress=lambda step: told.append(step.what))
    assert there == here
    assert sorted(told) == sorted(job.name for job in jobs)


@pytest.mark.slow
def test_a_validation_measures_the_same_on_the_workers_as_here(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "WORTH_A_PROCESS", 0.0)
    settings = AnalysisSettings(bootstraps=10, jobs=1)
    table = make_cohort(drawn_cohort(200), settings).table
    outcome, _ = outcome_of(table, "os")
    count = table["n_ai_ene"].to_numpy(dtype=float)[outcome.rows]
    risk = np.column_stack([0.1 + 0.1 * np.minimum(count, 5), 0.2 + 0.1 * np.minimum(count, 5)])
    predictors = [Predictor("count", count, risk), Predictor("nothing", 0 * count + 1)]
    center = np.where(np.arange(outcome.n) % 2, "A", "B")
    here = measured(outcome, predictors, (2.0, 5.0), center, settings)
    told: list[str] = []
    with crews_of(address, None):
        there = measured(outcome, predictors, (2.0, 5.0), center, settings, lambda now: told.append(now.what))
    assert sorted(told) == ["Brier score", "calibration", "centres", "concordance", "decision curve"]
    assert all((here.discrimination, here.brier, here.centres))
    for rows in ("discrimination", "calibration", "brier", "centres", "skipped"):
        assert repr(getattr(there, rows)) == repr(getattr(here, rows)), rows
    assert pickle.dumps(there.decision) == pickle.dumps(here.decision)


@pytest.mark.slow
def test_a_task_that_ends_its_worker_is_tried_again_and_then_lost_alone(address: str, tmp_path: Path) -> None:
    names = ["a", "once", "b", "deadly", *(f"c{n}" for n in range(6))]
    with crews_of(address, 2):
        done = dict(work_through(partial(once_deadly, tmp_path), names, jobs=1, threads=1, lost=lost))
    assert list(done) == names
    assert done.pop("deadly") == "deadly is lost"
    assert done == {name: name.upper() for name in done}


@pytest.mark.slow
def test_a_local_cluster_that_lost_all_its_workers_for_good_gets_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "WATCH_S", 0.2)
    monkeypatch.setattr(cluster, "EMPTY_S", 1.0)
    with cluster.connected("local", 1) as client:
        client.wait_for_workers(1)
        client.retire_workers(close_workers=True, remove=True)  # with its keeper: nobody would start another
        assert client.submit(len, "four").result(timeout=120) == 4


@pytest.mark.slow
def test_crops_for_a_training_have_the_bytes_of_this_process(
    address: str, cts: Path, masks: Path, tmp_path: Path
) -> None:
    base, found = read_bundle(default_folder()), find_cases(cts)[0]
    names = [case.case_id for case in found]
    pairs = [
        Pair(name, name, case, masks / f"{name}.nii.gz")
        for name, case in zip(names, found, strict=True)
        if isinstance(case, Case)
    ]
    here, _ = prepared_crops(pairs, load_preparation(base), tmp_path / "here", "x")
    steps: list[tuple[int, int]] = []
    with crews_of(address, None, sees=(cts,)):
        there, left_out = prepared_crops(
            pairs, base, tmp_path / "there", "x", lambda done, of: steps.append((done, of))
        )
    assert not left_out
    assert [f.read_bytes() for f in there] == [f.read_bytes() for f in here]
    assert steps == [(1, 2), (2, 2)]


@pytest.mark.slow
def test_folders_and_versions_are_looked_at_first(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with crews_of(address, None, writes=tmp_path / "new" / "out"):
        assert (tmp_path / "new" / "out").is_dir()
    monkeypatch.setattr(cluster, "_sees", not_seen)
    with pytest.raises(UsageError, match="a worker does not see the folder out"):
        crews_of(address, None, sees=(tmp_path / "out",)).__enter__()
    with pytest.raises(UsageError, match=r"a worker has aiene 9\.9 instead of 0\.1; install the same"):
        cluster.refuse_versions((("aiene", "0.1"),), (("aiene", "9.9"),))


def not_seen(_folder: str, _names: list[str]) -> bool:
    return False


@pytest.mark.slow
def test_a_scheduler_without_workers_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    monkeypatch.setattr(cluster, "WORKER_S", 0.5)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as empty,
        pytest.raises(UsageError, match="has no workers, and none came"),
        crews_of(empty.scheduler_address, None),
    ):
        raise AssertionError("ready")
