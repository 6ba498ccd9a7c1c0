"""`train_classifier`: nodes with their pathology in, a bundle with a DualNet out."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from aiene.classify import DualNet, DualNetWidths, save_classifier
from aiene.classify.storage import load_dualnet
from aiene.errors import TrainingDataError, UsageError
from aiene.extras import need
from aiene.models.bundle import Bundle, verify_bundle
from aiene.models.store import find_bundle
from aiene.pipeline import load_preparation
from aiene.provenance import digest
from aiene.results.atomic import make_folder, write_json
from aiene.training.bundle import Trained, assemble
from aiene.training.calibration import Rule, sigmoid, temperature, threshold
from aiene.training.classifier_fit import FitSettings, Fitted, fit, logits_of
from aiene.training.folds import FOLDS, check_folds, deal, fold_sizes, read_patients
from aiene.training.node_examples import Example, examples_of
from aiene.training.node_figures import calibration_plot, figures_of, reliability
from aiene.training.node_table import NodeRow, read_nodes
from aiene.training.pairs import FEWEST_PATIENTS, check_pairs, find_pairs
from aiene.training.prepared import LeftOut, prepared_crops, read_crop
from aiene.training.progress import Step
from aiene.training.segmenter import preparation_identity, work_folder

SMALL = DualNetWidths(
    box=(4, 8, 16, 16, 24, 24), box_dense=(64, 64), small=(8, 16, 24, 24, 32, 32, 16), head=4
)
"""Widths that train on two cores; those of the default bundle."""
_FIGURE = "calibration_ene.png"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassifierTraining:
    """What a user chooses for the training of a classifier.

    Parameters
    ----------
    images, labels : folders of CTs and of label maps on their grids; nodes are split from label 2.
    nodes : table of what pathology says of each node, see `read_nodes`.
    out : the bundle's folder; its work lies beside it in `<out>.training`.
    patients : table of case and patient ids, and of own folds.
    widths : `small` or `published`; not used with `start_from`.
    start_from : name or folder of a bundle whose classifier is the start.
    rule, sensitivity : how the ENE threshold is chosen, see `threshold`.
    go_on : take up a training that was stopped.
    fit : schedule, seed and device.
    """

    images: Path
    labels: Path
    nodes: Path
    out: Path
    patients: Path | None = None
    widths: Literal["small", "published"] = "small"
    start_from: str | None = None
    rule: Rule = "youden"
    sensitivity: float = 0.9
    go_on: bool = False
    fit: FitSettings = field(default_factory=FitSettings)


@dataclass(frozen=True)
class _Data:
    examples: tuple[Example, ...]
    fold_of: dict[str, int]
    left_out: tuple[LeftOut, ...]
    unnamed: int

    @property
    def folds(self) -> int:
        return max(self.fold_of.values()) + 1

    def of(self, *folds: int) -> list[Example]:
        return [e for e in self.examples if self.fold_of[e.patient_id] in folds]


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
    settings: ClassifierTraining, on_step: Callable[[Step], None] = lambda _: None
) -> tuple[Bundle, tuple[LeftOut, ...]]:
    """Cross-validate a DualNet patient-wise, train the final one, calibrate it, and put it into a bundle.

    For every fold a model is trained on the others but the next, which stops it early, gives its temperature
    and its threshold; the fold itself is only judged. The final model is trained on all folds but the first,
    which stops it; its temperature and threshold come from the judged probabilities of all folds.

    Parameters
    ----------
    settings : what the user chose.
    on_step : told of progress.

    Returns
    -------
    The bundle, and the cases that could not be prepared.

    Raises
    ------
    TrainingDataError, InputError : images, labels or tables cannot be used.
    UsageError : work of other settings lies there, or there is none to go on with.
    OutputError : something cannot be written; what was done stays.
    MissingExtraError : a library of the training extra is missing.
    """
    need("sklearn", extra="train", purpose="Training a classifier")
    base = find_bundle(settings.start_from or "default")
    verify_bundle(base)
    rows = read_nodes(settings.nodes)
    work = work_folder(settings.out)
    data = _data(settings, base, rows, work, on_step)
    _open(work, settings, base, data)
    began = time.monotonic()
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
        "seconds": round(time.monotonic() - began),
    }
    folder = work / "classifier"
    shutil.rmtree(folder, ignore_errors=True)
    save_classifier(folder, net)
    plot = calibration_plot(_reliability(outside), "ENE, nodes of unseen patients")
    trained = Trained("classifier", folder, facts, ene_threshold=chosen, figures={_FIGURE: plot})
    return assemble(base, settings.out, trained), data.left_out


def _data(
    settings: ClassifierTraining,
    base: Bundle,
    rows: Sequence[NodeRow],
    work: Path,
    on_step: Callable[[Step], None],
) -> _Data:
    patients, own = read_patients(settings.patients) if settings.patients else ({}, None)
    by_case: dict[str, list[NodeRow]] = defaultdict(list)
    for row in rows:
        by_case[row.case_id.removesuffix("_0000")].append(row)
    pairs = find_pairs(settings.images, settings.labels, patients)
    strangers = sorted(by_case.keys() - {pair.case_id for pair in pairs})
    if strangers:
        raise TrainingDataError(
            [f"{settings.nodes.name}: there is no CT of the case {s}." for s in strangers]
        )
    pairs = [pair for pair in pairs if pair.case_id in by_case]
    check_pairs(pairs, needs_nodes=True)
    files, left_out = prepared_crops(
        pairs,
        load_preparation(base),
        work / "crops",
        preparation_identity(base),
        lambda done, of: on_step(Step("prepare", done, of)),
    )
    patient_of = {pair.case_id: pair.patient_id for pair in pairs}
    matched = [examples_of(read_crop(f, patient_of[f.stem]), by_case[f.stem]) for f in files]
    problems = [f"{settings.nodes.name}, {problem}" for one in matched for problem in one.problems]
    if problems:
        raise TrainingDataError(problems)
    examples = tuple(e for one in matched for e in one.examples)
    fold_of = _folds(settings, examples, own)
    return _Data(examples, fold_of, tuple(left_out), sum(one.unnamed for one in matched))


def _folds(
    settings: ClassifierTraining, examples: Sequence[Example], own: Mapping[str, int] | None
) -> dict[str, int]:
    """Patients with extension, with known nodes without, and others, each spread over the folds."""
    kinds: dict[str, set[float]] = defaultdict(set)
    for example in examples:
        kinds[example.patient_id].add(example.ene)
    strata = {p: "ene" if 1.0 in seen else "none" if 0.0 in seen else "unknown" for p, seen in kinds.items()}
    if len(strata) < FEWEST_PATIENTS:
        problem = f"{len(strata)} patients have a node that the table names; at least five are needed."
        raise TrainingDataError([problem])
    if own is not None and settings.patients is not None:
        check_folds(sorted(strata), own, settings.patients)
        return {p: own[p] for p in strata}
    return deal(strata, FOLDS, settings.fit.seed)


def _open(work: Path, settings: ClassifierTraining, base: Bundle, data: _Data) -> None:
    """The models of earlier calls are only taken up where everything that made them is the same."""
    nodes = [(e.case_id, e.name, e.patient_id, e.pos, e.ene, _mask_hash(e)) for e in data.examples]
    record = {
        "nodes": digest([nodes, data.fold_of]),
        "fit": {**asdict(settings.fit), "device": settings.fit.device.split(":")[0]},
        "widths": settings.widths,
        "start": settings.start_from is not None,
        "base_sha256": base.sha256,
    }
    file = work / "classifier.json"
    make_folder(work / "models")
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        changed = sorted(k for k in record if before.get(k) != record[k])
        if changed:
            raise UsageError(
                f"{work.name} holds a training of other data or settings ({', '.join(changed)} differ); "
                "choose another -o, or remove that folder."
            )
        if not settings.go_on:
            raise UsageError(f"{work.name} holds a training already; go on with --continue, or remove it.")
    elif settings.go_on:
        raise UsageError(
            f"{work.name} holds no training of a classifier to go on with; leave --continue out."
        )
    write_json(file, record)


def _mask_hash(example: Example) -> str:
    return hashlib.sha256(np.packbits(example.mask).tobytes()).hexdigest()


def _cross_validated(
    settings: ClassifierTraining, base: Bundle, data: _Data, work: Path, on_step: Callable[[Step], None]
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
    data: _Data,
    name: str,
    stops: tuple[int, ...],
    learned: tuple[int, ...],
    work: Path,
    on_step: Callable[[Step], None],
) -> Fitted:
    from torch.utils.tensorboard import SummaryWriter

    short = name.replace(" ", "_")
    with SummaryWriter(str(work / "tensorboard" / f"classifier_{short}")) as writer:

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


def _facts(settings: ClassifierTraining, base: Bundle, data: _Data) -> dict[str, Any]:
    known = [e.ene for e in data.examples if e.ene >= 0]
    return {
        "patients": len(data.fold_of),
        "nodes": len(data.examples),
        "nodes_with_known_ene": len(known),
        "nodes_with_ene": int(sum(known)),
        "nodes_not_in_the_table": data.unnamed,
        "left_out": [left.reason for left in data.left_out],
        "patients_per_fold": fold_sizes(data.fold_of),
        "figures": "out of fold: each node by a model that saw no node of its patient",
        "seed": settings.fit.seed,
        "device": settings.fit.device,
        "started_from": f"{base.card.name} ({base.sha256[:12]})" if settings.start_from else "random weights",
        "widths": "as the start" if settings.start_from else settings.widths,
    }
