"""`train_classifier`: nodes with their pathology in, a bundle with a DualNet out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aiene.classify.classifier import load_dualnet, save_classifier
from aiene.classify.dualnet import DualNet, DualNetWidths
from aiene.errors import need
from aiene.hashing import digest
from aiene.models.bundle import Bundle
from aiene.results.atomic import writing
from aiene.training.bundle import Trained, assemble
from aiene.training.classifier_data import (
    ClassifierData,
    ClassifierTraining,
    check_work,
    chosen_nodes,
    classifier_data,
    inputs_of,
    note_nodes,
    record_of,
)
from aiene.training.classifier_fit import Fitted, fit, logits_of
from aiene.training.dataset import check_pairs, fold_sizes
from aiene.training.metrics import calibration_plot, figures_of, reliability, sigmoid, temperature, threshold
from aiene.training.nodes import Example
from aiene.training.place import check_not_trained, claim, locked
from aiene.training.records import LeftOut, OnNote, OnStep
from aiene.training.start import Ground, ground_of, preparation_of, refuse_leaks

SMALL = DualNetWidths(
    box=(4, 8, 16, 16, 24, 24), box_dense=(64, 64), small=(8, 16, 24, 24, 32, 32, 16), head=4
)
"""Widths that train on two cores; those of the default bundle."""
_FIGURE = "calibration_ene.png"
Floats = npt.NDArray[np.float64]


class _Outside(NamedTuple):
    """What the models of all folds say of the nodes that each did not see.

    `raw` (n, 2) logits; `calibrated` after the temperature, and `thresholds` by the rule, both of the fold
    that stopped that model: the node's own fold had no part in them.
    """

    examples: list[Example]
    raw: Floats
    calibrated: Floats
    thresholds: Floats


def train_classifier(
    settings: ClassifierTraining, on_step: OnStep = lambda _: None, on_note: OnNote = lambda _: None
) -> tuple[Bundle, tuple[LeftOut, ...]]:
    """Cross-validate a DualNet patient-wise, train the final one, calibrate it, and put it into a bundle.

    For every fold a model is trained on the others but the next, which stops it early, gives its temperature
    and its threshold; the fold itself is only judged. The final model is trained on all folds but the first,
    which stops it; its temperature and threshold come from the judged probabilities of all folds.

    Parameters
    ----------
    settings : what the user chose.
    on_step : told of progress.
    on_note : told what the user should know of the input.

    Returns
    -------
    The bundle, and the cases that could not be prepared.

    Raises
    ------
    TrainingDataError, InputError : images, labels or tables cannot be used.
    UsageError : work of other settings lies there, or there is none to go on with; something at `out` is not
        ours, or is prepared otherwise; another training runs there.
    ModelError : the bundle to start from cannot be used.
    OutputError : something cannot be written; what was done stays.
    MissingExtraError : a library of the training extra is missing.
    """
    need("sklearn", extra="train", purpose="Training a classifier")
    ground = ground_of(settings.out, settings.start_from, inputs_of(settings))
    normalisation = ground.base.card.classifier.normalisation
    settings = replace(settings, fit=replace(settings.fit, normalisation=normalisation))
    record = record_of(settings, ground.base)
    check_not_trained(ground.there, "classifier", digest(record))
    check_work(ground.work, settings, record)
    chosen = chosen_nodes(settings, (ground.out, ground.work), on_note)
    claim(ground.work)
    with locked(ground.work):
        check_work(ground.work, settings, record)  # another call may have ended meanwhile
        refuse_leaks(chosen.pairs, check_pairs(chosen.pairs, needs_nodes=True))
        data = classifier_data(settings, ground.base, chosen, ground.work, on_step)
        note_nodes(ground.work, record, data)
        return _trained(settings, ground, data, digest(record), on_step), data.left_out


def _trained(
    settings: ClassifierTraining, ground: Ground, data: ClassifierData, training: str, on_step: OnStep
) -> Bundle:
    """Everything after the data are there."""
    began, base, work = time.monotonic(), ground.base, ground.work
    outside = _cross_validated(settings, base, data, work, on_step)
    final = _fit(settings, base, data, "final", (0,), tuple(range(1, data.folds)), work, on_step)
    net, temperatures = _tempered(final.network, outside)
    chosen, figures = _judged(outside, temperatures, settings)
    facts = {
        **_facts(settings, base, data),
        "epochs_of_the_final_model": final.epoch,
        "temperature_pos": round(temperatures[0], 4),
        "temperature_ene": round(temperatures[1], 4),
        "threshold_rule": settings.rule
        if settings.rule == "youden"
        else f"sensitivity {settings.sensitivity:g}",
        **figures,
        "figure": _FIGURE,
        "preparation": preparation_of(base),
        "training": training,
        "seconds": round(time.monotonic() - began),
    }
    folder = work / "classifier"
    shutil.rmtree(folder, ignore_errors=True)
    with writing(folder):
        save_classifier(folder, net)
    plot = calibration_plot(_reliability(outside), "ENE, nodes of unseen patients")
    trained = Trained("classifier", folder, facts, ene_threshold=chosen, figures={_FIGURE: plot})
    return assemble(ground, trained)


def _cross_validated(
    settings: ClassifierTraining, base: Bundle, data: ClassifierData, work: Path, on_step: OnStep
) -> _Outside:
    examples: list[Example] = []
    raw, calibrated, thresholds = [], [], []
    for fold in range(data.folds):
        stops = (fold + 1) % data.folds
        learned = tuple(k for k in range(data.folds) if k not in (fold, stops)) or (stops,)
        fitted = _fit(settings, base, data, f"fold {fold}", (stops,), learned, work, on_step)
        held, judged = data.of(stops), data.of(fold)
        t = _temperatures(logits_of(fitted.network, held, settings.fit), held)
        cut = _cut(logits_of(fitted.network, held, settings.fit)[:, 1] / t[1], held, settings)
        logits = logits_of(fitted.network, judged, settings.fit)
        examples += judged
        raw.append(logits)
        calibrated.append(logits / np.array(t))
        thresholds.append(np.full(len(judged), cut))
    return _Outside(examples, np.concatenate(raw), np.concatenate(calibrated), np.concatenate(thresholds))


def _fit(
    settings: ClassifierTraining,
    base: Bundle,
    data: ClassifierData,
    name: str,
    stops: tuple[int, ...],
    learned: tuple[int, ...],
    work: Path,
    on_step: OnStep,
) -> Fitted:
    from torch.utils.tensorboard import SummaryWriter

    short = name.replace(" ", "_")
    with writing(work), SummaryWriter(str(work / "tensorboard" / f"classifier_{short}")) as writer:

        def log(epoch: int, values: dict[str, float]) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, epoch)

        return fit(
            lambda: _start(settings, base),
            data.of(*learned),
            data.of(*stops),
            settings.fit,
            work / "models" / f"{short}.pth",
            log,
            lambda step: on_step(replace(step, stage=f"train {name}")),
        )


def _start(settings: ClassifierTraining, base: Bundle) -> DualNet:
    """The network to begin with: the bundle's, or a new one by the seed."""
    import torch

    if settings.start_from is not None:
        return load_dualnet(base.classifier_folder).train()
    torch.manual_seed(settings.fit.seed)
    rates = {"box_dropout": 0.1, "small_dropout": 0.1} if settings.widths == "small" else {}
    net = DualNet(SMALL if settings.widths == "small" else DualNetWidths(), **rates)
    torch.nn.init.constant_(net.box.values.bias, 0.5)  # so that no rectified value starts dead
    return net


def _known(
    examples: Sequence[Example], logits: Floats, column: int
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Logits and truth of the nodes whose truth is known and that were scored, and which they are."""
    truth = np.array([(e.pos, e.ene)[column] for e in examples])
    seen = (truth >= 0) & np.isfinite(logits)
    return logits[seen], truth[seen], seen


def _temperatures(logits: Floats, examples: Sequence[Example]) -> tuple[float, float]:
    pos, ene = (temperature(*_known(examples, logits[:, k], k)[:2]) for k in (0, 1))
    return pos, ene


def _cut(logits: Floats, examples: Sequence[Example], settings: ClassifierTraining) -> float:
    """The ENE threshold of some nodes by the rule; 0.5 where they hold one class only."""
    values, truth, _ = _known(examples, logits, 1)
    if len(set(truth.tolist())) < 2:
        return 0.5
    return threshold(sigmoid(values), truth, settings.rule, settings.sensitivity)


def _tempered(net: DualNet, outside: _Outside) -> tuple[DualNet, tuple[float, float]]:
    """The network with its temperatures folded into its last layer: no other code need know of them."""
    import torch

    t = _temperatures(outside.raw, outside.examples)
    with torch.no_grad():
        scale = torch.tensor(t, dtype=net.out.weight.dtype, device=net.out.weight.device)
        net.out.weight.div_(scale[:, None])
        net.out.bias.div_(scale)
    return net.cpu().eval(), t


def _judged(
    outside: _Outside, temperatures: tuple[float, float], settings: ClassifierTraining
) -> tuple[float, dict[str, Any]]:
    """The final threshold, and the figures of the nodes that the models had not seen."""
    patients = np.array([e.patient_id for e in outside.examples])
    figures = {}
    for column, name in enumerate(("pos", "ene")):
        logits, truth, seen = _known(outside.examples, outside.calibrated[:, column], column)
        cuts = outside.thresholds[seen] if name == "ene" else np.full(len(truth), 0.5)
        values = sigmoid(logits)
        figures[name] = figures_of(values, truth, values > cuts, patients[seen].tolist())
    chosen = _cut(outside.raw[:, 1] / temperatures[1], outside.examples, settings)
    return chosen, figures


def _reliability(outside: _Outside) -> list[dict[str, float]]:
    logits, truth, _ = _known(outside.examples, outside.calibrated[:, 1], 1)
    return reliability(sigmoid(logits), truth)


def _facts(settings: ClassifierTraining, base: Bundle, data: ClassifierData) -> dict[str, Any]:
    known = [e.ene for e in data.examples if e.ene >= 0]
    return {
        "patients": len(data.fold_of),
        "nodes": len(data.examples),
        "nodes_with_known_ene": len(known),
        "nodes_with_ene": int(sum(known)),
        "nodes_not_in_the_table": data.unnamed,
        "left_out": [left.reason for left in data.left_out],
        "patients_per_fold": fold_sizes(data.fold_of),
        "figures": "out of fold: each node is judged by a model that saw no node of its patient",
        "seed": settings.fit.seed,
        "device": settings.fit.device,
        "started_from": f"{base.card.name} ({base.sha256[:12]})" if settings.start_from else "random weights",
        "widths": "as the start" if settings.start_from else settings.widths,
    }
