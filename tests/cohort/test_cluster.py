"""Cases on the workers of a Dask scheduler: the same bytes, and every fault of a cluster told."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import pytest

from aiene import case_worker, cluster
from aiene.case_worker import Made, Order
from aiene.cohort import run_cohort
from aiene.errors import CaseError, InputError, ModelError, UsageError
from aiene.ingest.case import Case
from aiene.models.bundle import find_bundle
from aiene.pipeline import Settings
from aiene.results.records import CaseResult

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers do not see the tests


@pytest.fixture(scope="module")
def order() -> Order:
    bundle = find_bundle("default")
    return Order(str(bundle.path), bundle.sha256, Settings(0.5), "cpu", False, case_worker.versions())


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with cluster.connected("local", 2) as client:
        yield client


def fake_work(case: Case, order: Order, sent: bytes | None) -> Made:
    """A road without networks; one CT ends whoever looks at it, another cannot be read."""
    if case.case_id == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    if case.case_id == "broken":
        raise InputError(case.files[0], "it is broken", "correct it")
    return Made(CaseResult(case.case_id, "no_nodes"), {"labels.nii.gz": case.case_id.encode()})


def cases(*names: str) -> list[Case]:
    return [Case(name, "nifti", (Path(__file__),)) for name in names]


@pytest.mark.slow
def test_a_case_that_ends_its_worker_is_a_reason_and_all_others_are_done(
    client: Any, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_worker, "work", fake_work)
    every = cases("a", "deadly", "b", "broken", *(f"c{n}" for n in range(20)))
    workers = case_worker.ClusterWork(client, find_bundle("default"), order)
    assert workers.check(every) == 2
    done, failed = {}, {}
    for case, get in workers.each(every):
        try:
            made = get()
            done[case.case_id] = made.files["labels.nii.gz"].decode()
            assert made.result.case_id == case.case_id
        except (CaseError, InputError) as error:
            failed[case.case_id] = str(error)
    assert done == {name: name for name in ("a", "b", *(f"c{n}" for n in range(20)))}
    assert set(failed) == {"deadly", "broken"}
    assert "2 workers ended while processing this CT" in failed["deadly"]
    assert failed["broken"].endswith("it is broken; correct it.")


@pytest.mark.slow
def test_workers_of_other_versions_or_without_the_input_are_told_before_the_first_case(
    client: Any, order: Order
) -> None:
    bundle = find_bundle("default")
    other = replace(order, versions=(("aiene", "0.0.1"), *order.versions[1:]))
    with pytest.raises(UsageError, match=r"a worker has aiene .* instead of 0\.0\.1; install the same"):
        case_worker.ClusterWork(client, bundle, other).check(cases("a"))
    away = [replace(cases("a")[0], files=(Path("/nowhere/ct.nii"),))]
    with pytest.raises(UsageError, match="a worker does not see the input"):
        case_worker.ClusterWork(client, bundle, order).check(away)


def test_a_worker_without_the_bundle_gets_it_to_the_last_byte(order: Order, tmp_path: Path) -> None:
    bundle = find_bundle("default")
    apart = replace(order, bundle_folder=str(tmp_path / "gone"))
    assert case_worker._bundle(apart, case_worker._zipped(bundle)).sha256 == bundle.sha256
    with pytest.raises(ModelError, match="this worker does not see the bundle"):
        case_worker._bundle(apart, None)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cluster.txt", "x", "use local, slurm, an address"),
        ("cluster.yaml", "- 1\n", "it holds no options"),
        ("cluster.yaml", "cluster: [", "it cannot be read as YAML"),
        ("cluster.yaml", "cluster: NoCluster\n", "names no class of dask_jobqueue"),
        ("gone.yaml", None, "it cannot be read as YAML"),
    ],
)
@pytest.mark.slow
def test_words_that_name_no_scheduler(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises((UsageError, InputError), match=said), cluster.connected(str(tmp_path / name), 1):
        raise AssertionError("connected")


def test_a_scheduler_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.2)
    with (
        pytest.raises(UsageError, match="no scheduler answers there"),
        cluster.connected("tcp://127.0.0.1:9", 1),
    ):
        raise AssertionError("connected")


@pytest.mark.slow
def test_workers_and_a_cluster_give_the_bytes_of_one_process(
    cts: Path, segmented_run: Path, tmp_path: Path
) -> None:
    here, beside, there = segmented_run, tmp_path / "beside", tmp_path / "there"
    assert run_cohort(cts, beside, device="cpu", jobs=2).exit_code == 0
    summary = run_cohort(cts, there, device="cpu", jobs=2, scheduler="local")
    assert summary.exit_code == 0
    names = [
        "nodes.csv",
        "patients.csv",
        *(f"cases/{c}/{m}.nii.gz" for c in ("one", "two") for m in ("labels", "nodes")),
    ]
    for name in names:
        assert (here / name).read_bytes() == (beside / name).read_bytes(), name
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    for out in (beside, there):
        record = json.loads((out / "run.json").read_text())
        assert record["engine"] == "torch float32"
        assert sum(row["cases"] for row in record["by_worker"].values()) == 2
        assert all(row["seconds"] > 0 and row["peak_mb"] > 100 for row in record["by_worker"].values())
