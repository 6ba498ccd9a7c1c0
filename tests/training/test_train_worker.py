"""nnU-Net's process: one at a time, on the GPU that was named, gone with the process that started it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aiene.errors import ModelError, UsageError
from aiene.models.bundle import default_folder, read_bundle, write_card
from aiene.training.bundle import start_of
from aiene.training.nnunet import Job, _take_over_plan, run_worker, visible_gpu
from aiene.training.place import LOCK, locked

posix = pytest.mark.skipif(os.name != "posix", reason="processes are watched otherwise on Windows")

FAKE_NNUNET = """
import os, subprocess, sys, time
def extract_fingerprints(*_, **__):
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    with open(os.environ["PIDS"] + ".new", "w") as stream:
        stream.write(f"{os.getpid()} {helper.pid} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
    os.rename(os.environ["PIDS"] + ".new", os.environ["PIDS"])
    if os.environ.get("FAILS"):
        raise RuntimeError("out of luck")
    time.sleep(300)
def plan_experiments(*_, **__): ...
def preprocess(*_, **__): ...
"""

TRAINER = """
import sys
from pathlib import Path
from aiene.training.place import locked
from aiene.training.nnunet import Job
from aiene.training.nnunet import run_worker
work = Path(sys.argv[1])
with locked(work) as lock:
    for report in run_worker(Job(str(work), 0, 1, 1, "cpu", False, 0, 0, 8.0), work, "cpu", lock):
        print(report, flush=True)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder, and an nnU-Net that starts a helper and then sleeps."""
    package = tmp_path / "fake" / "nnunetv2" / "experiment_planning"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "plan_and_preprocess_api.py").write_text(FAKE_NNUNET)
    source = Path(sys.modules["aiene"].__file__ or "").parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'fake'}{os.pathsep}{source}")
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    work = tmp_path / "mine.training"
    work.mkdir()
    return work


def pids(work: Path, seconds: float = 120.0) -> list[str]:
    """Process ids of the worker and its helper, and the GPUs that they see."""
    until = time.monotonic() + seconds
    file = work.with_name("pids")
    while not file.exists():
        assert time.monotonic() < until, (work / "nnunet.log").read_text()
        time.sleep(0.05)
    return file.read_text().split()


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        if Path("/proc").is_dir():
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def all_gone(numbers: list[int], seconds: float = 120.0) -> bool:
    until = time.monotonic() + seconds
    while any(map(is_running, numbers)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(is_running, numbers))


@pytest.mark.slow
@posix
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_training_that_was_killed_and_the_folder_is_free(
    fake: Path, kind: signal.Signals
) -> None:
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER, str(fake)])
    try:
        worker, helper = (int(pid) for pid in pids(fake)[:2])
        with pytest.raises(
            UsageError, match=rf"another training runs in mine.training \(process {trainer.pid}\)"
        ):
            locked(fake).__enter__()
        os.kill(trainer.pid, kind)
        trainer.wait()
        with locked(fake):  # waits until the worker, which holds the lock too, has ended
            assert all_gone([worker])
        assert all_gone([helper])
    finally:
        trainer.kill()


@pytest.mark.slow
@posix
def test_a_worker_that_fails_leaves_no_helper_and_is_told_at_once(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "1")
    with (
        locked(fake) as lock,
        pytest.raises(ModelError, match=r"nnunet.log: nnU-Net ended with code 1; read the end of that log"),
    ):
        list(run_worker(job(fake), fake, "cpu", lock))
    assert "out of luck" in (fake / "nnunet.log").read_text()
    assert all_gone([int(pids(fake)[1])])


@pytest.mark.slow
@posix
def test_a_training_that_is_interrupted_ends_its_worker_on_the_gpu_that_was_named(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    with locked(fake) as lock:
        reports = run_worker(job(fake), fake, "cuda:1", lock)
        assert next(reports)["stage"] == "plan"
        worker, helper, seen = pids(fake)
        reports.close()
    assert seen == "GPU-b"
    assert all_gone([int(worker), int(helper)])


def job(work: Path) -> Job:
    return Job(str(work), 0, 1, 1, "cpu", False, 0, 0, 8.0)


@pytest.mark.parametrize(
    ("device", "seen", "expected"),
    [
        ("cpu", None, None),
        ("mps", None, None),
        ("cuda", "3", None),
        ("cuda:1", None, "1"),
        ("cuda:1", "", "1"),
        ("cuda:1", "4,7", "7"),
        ("cuda:0", "GPU-abc", "GPU-abc"),
    ],
)
def test_the_gpu_that_was_named_is_the_only_one_that_nnunet_sees(
    device: str, seen: str | None, expected: str | None
) -> None:
    environment = {} if seen is None else {"CUDA_VISIBLE_DEVICES": seen}
    assert visible_gpu(device, environment).get("CUDA_VISIBLE_DEVICES") == expected


def test_a_lock_that_was_left_behind_holds_nobody_up(tmp_path: Path) -> None:
    for left in ("", "{", json.dumps({"process": os.getpid(), "host": "here"}), '{"process": "x"}'):
        (tmp_path / LOCK).write_text(left)
        with locked(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
        assert (tmp_path / LOCK).read_text() == ""


@pytest.mark.parametrize(("alive", "host"), [(True, None), (False, None), (True, "elsewhere")])
def test_where_the_file_system_knows_no_locks_the_process_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool, host: str | None
) -> None:
    import socket

    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr("aiene.training.place._PATIENCE_S", 0.1)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    owner = {"process": os.getppid() if alive else ended.pid, "host": host or socket.gethostname()}
    (tmp_path / LOCK).write_text(json.dumps(owner))
    if alive:
        with pytest.raises(UsageError, match="another training runs"):
            locked(tmp_path).__enter__()
    else:
        with locked(tmp_path):
            pass


# ---- the plan of another model


def other_plan(folder: Path, change: Any, configuration: str) -> Path:
    """The default bundle with another plan, and a checkpoint that says whose it is."""
    shutil.copytree(default_folder(), folder)
    plans_file = folder / "segmenter" / "plans.json"
    plans = json.loads(plans_file.read_text())
    change(plans["configurations"])
    plans_file.write_text(json.dumps(plans))
    file = folder / "segmenter" / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    content["init_args"] = {**content["init_args"], "configuration": configuration}
    torch.save(content, file)
    card = json.loads((folder / "model.json").read_text())
    card.pop("files")
    write_card(folder, card)
    return folder


def test_a_plan_of_another_configuration_with_what_it_inherits_is_taken(tmp_path: Path) -> None:
    def change(configurations: dict[str, Any]) -> None:
        base = configurations.pop("3d_fullres")
        spacing = base.pop("spacing")
        configurations["base"] = base
        configurations["3d_lowres"] = {"inherits_from": "base", "spacing": [2 * mm for mm in spacing]}

    start = start_of(read_bundle(other_plan(tmp_path / "low", change, "3d_lowres")))
    plain = start_of(read_bundle(default_folder()))
    assert start.configuration["spacing"] == [2 * mm for mm in plain.configuration["spacing"]]
    assert start.configuration == {**plain.configuration, "spacing": start.configuration["spacing"]}
    assert start.same_labels == plain.same_labels


@pytest.mark.slow
def test_the_network_of_an_older_plan_is_what_nnunet_makes_of_it(tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2", reason="nnU-Net is not installed (the extra `train`)")
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    old: dict[str, Any] = {}

    def change(configurations: dict[str, Any]) -> None:
        chosen = configurations["3d_fullres"]
        arguments = chosen.pop("architecture")["arch_kwargs"]
        features = arguments["features_per_stage"]
        chosen.update(
            UNet_class_name="PlainConvUNet",
            UNet_base_num_features=features[0],
            unet_max_num_features=320,
            n_conv_per_stage_encoder=arguments["n_conv_per_stage"],
            n_conv_per_stage_decoder=arguments["n_conv_per_stage_decoder"],
            conv_kernel_sizes=arguments["kernel_sizes"],
            pool_op_kernel_sizes=arguments["strides"],
            num_pool_per_axis=[2, 4, 4],
        )
        old.update(chosen)

    folder = other_plan(tmp_path / "old", change, "3d_fullres")
    _fit_weights(folder / "segmenter")
    taken = start_of(read_bundle(folder)).configuration["architecture"]
    with pytest.warns(UserWarning, match="old nnU-Net plans format"):
        reference = ConfigurationManager(dict(old)).configuration["architecture"]
    assert taken == reference
    assert taken["arch_kwargs"]["features_per_stage"] == [8, 16, 32, 64, 128]
    plans_file = tmp_path / "nnUNetPlans.json"
    plans_file.write_text(
        json.dumps({"configurations": {"3d_fullres": {"batch_size": 2, "architecture": {}}}})
    )
    start = start_of(read_bundle(folder))
    whole = Job(str(tmp_path), 0, 1, 1, "cpu", False, 0, 0, 8.0, start.configuration, start.plan, "x", True)
    _take_over_plan(Job(**json.loads(whole.to_json())), plans_file)
    written = json.loads(plans_file.read_text())
    assert written["configurations"]["3d_fullres"]["architecture"] == taken
    assert written["configurations"]["3d_fullres"]["batch_size"] == 2
    assert written["transpose_forward"] == [0, 1, 2]


def _fit_weights(folder: Path) -> None:
    """Random weights of the network that the plan names."""
    from aiene.segment.network import empty_network
    from aiene.segment.plans import read_plan

    card_file = folder.parent / "model.json"
    file = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    torch.manual_seed(0)
    net = empty_network(read_plan(folder, "3d_fullres"))
    torch.save(
        {**content, "network_weights": {k: torch.rand(v.shape) for k, v in net.state_dict().items()}}, file
    )
    card = json.loads(card_file.read_text())
    card.pop("files")
    write_card(folder.parent, card)


def test_outputs_of_other_labels_are_no_start(tmp_path: Path) -> None:
    folder = tmp_path / "swapped"
    shutil.copytree(default_folder(), folder)
    file = folder / "segmenter" / "dataset.json"
    content = json.loads(file.read_text())
    weights = folder / "segmenter" / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(weights, weights_only=False)
    for name, tensor in checkpoint["network_weights"].items():
        if name.startswith(
            "decoder.seg_layers."
        ):  # without the organs that the default bundle was taught besides
            checkpoint["network_weights"][name] = tensor[:3].clone()
    torch.save(checkpoint, weights)
    file.write_text(json.dumps({**content, "labels": {"background": 0, "GTVn": 1, "GTVp": 2}}))
    assert not start_of(read_bundle(folder)).same_labels
    file.write_text(json.dumps({**content, "labels": {"background": 0, "primary": 1, "nodes": 2}}))
    assert start_of(read_bundle(folder)).same_labels  # the card says which is which
    card = read_bundle(folder).card.model_copy(update={"labels": {"GTVn": 1, "GTVp": 2}})
    assert not start_of(replace(read_bundle(folder), card=card)).same_labels


def test_a_segmenter_that_takes_hu_is_no_start_for_crops_from_0_to_1() -> None:
    card = SimpleNamespace(segmenter=SimpleNamespace(intensities="hu"))
    with pytest.raises(ModelError, match="takes HU, but a training feeds crops"):
        start_of(SimpleNamespace(path=Path("theirs"), card=card))  # type: ignore[arg-type]


def test_a_plan_that_cannot_be_run_is_refused_in_plain_words(tmp_path: Path) -> None:
    def change(configurations: dict[str, Any]) -> None:
        configurations["3d_fullres"]["normalization_schemes"] = ["RGBTo01Normalization"]

    with pytest.raises(ModelError, match="which is not supported"):
        start_of(read_bundle(other_plan(tmp_path / "rgb", change, "3d_fullres")))
    with pytest.raises(ModelError, match="no configuration named 3d_lowres"):
        start_of(read_bundle(other_plan(tmp_path / "lost", lambda _: None, "3d_lowres")))
