"""Bringing a trained nnU-Net model, v1 or v2, into the layout that the segmenter runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from aiene.errors import ModelError
from aiene.models import nnunet_v1, nnunet_v2
from aiene.models.archive import unpack
from aiene.models.nnunet_v1 import V1Plan
from aiene.segment.plan import read_plan
from aiene.segment.segmenter import load_segmenter, model_folder

LARGEST_DIFFERENCE = 1e-4
"""Softmax of the imported network against v1's own, on a random image."""

_WANTED = (".json", ".pth", ".model", ".pkl")
_REMEDY = "name the folder or ZIP that holds plans.pkl (v1) or plans.json (v2) and the folds"
_ENE_LABELS = {"GTVp": 1, "GTVn": 2}


@dataclass(frozen=True)
class ImportReport:
    """What was imported.

    Parameters
    ----------
    source : the layout that was found.
    trainer, configuration : as the model names them.
    folds : all that were there.
    patch, spacing : voxels and mm (z, y, x) after the model's own transposition of axes.
    labels : name to value, background included.
    parameters : numbers in one fold's network.
    max_softmax_difference : largest over all folds, of the imported network against an independent evaluation
        of the v1 weights; None for a v2 model, which is copied as it is.
    """

    source: Literal["nnunet_v1", "nnunet_v2"]
    trainer: str
    configuration: str
    folds: tuple[int, ...]
    patch: tuple[int, int, int]
    spacing: tuple[float, float, float]
    labels: dict[str, int]
    parameters: int
    max_softmax_difference: float | None

    def __str__(self) -> str:
        folds = ", ".join(map(str, self.folds))
        head = (
            f"{self.source} {self.trainer} {self.configuration}, folds {folds}, {self.parameters} parameters"
        )
        if self.max_softmax_difference is None:
            return f"{head}, copied as it is"
        return f"{head}, softmax within {self.max_softmax_difference:.1e} of the original network"


def import_segmenter(source: Path, target: Path, *, labels: Mapping[str, int] | None = None) -> ImportReport:
    """Bring a trained model into nnU-Net v2's trained-model layout.

    Parameters
    ----------
    source : a folder or ZIP file. v1: `plans.pkl` and `fold_K/model_final_checkpoint.model` with its `.pkl`,
        flat as published or in nnU-Net's own nesting. v2: `plans.json`, `dataset.json` and
        `fold_K/checkpoint_final.pth`, copied as they are after all checks.
    target : the folder to make; must not exist, or be empty. It appears complete or not at all.
    labels : names of the classes of a v1 model, whose files hold none; GTVp and GTVn where it has two,
        `class_K` otherwise.

    Raises
    ------
    ModelError : no model, several, or one that cannot be run here; weights that do not fit; a network that
        does not compute what v1's does.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(target, "is there already", "name another place, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=target.parent) as room:
        made = Path(room) / "model"
        made.mkdir()
        folder = source
        if source.is_file():
            folder = Path(room) / "unpacked"
            folder.mkdir()
            unpack(source, folder, _WANTED)
        report = _import_folder(source, folder, made, labels)
        if target.exists():
            target.rmdir()
        made.rename(target)
    return report


def _import_folder(
    source: Path, folder: Path, target: Path, labels: Mapping[str, int] | None
) -> ImportReport:
    v1 = [file.parent for file in _found(folder, "plans.pkl") if _folds(file.parent, nnunet_v1.CHECKPOINT)]
    v2 = [file.parent for file in _found(folder, "plans.json") if _folds(file.parent, nnunet_v2.CHECKPOINT)]
    if len(v1) + len(v2) != 1:
        problem = "holds several trained models" if v1 or v2 else "holds no trained nnU-Net model"
        raise ModelError(source, problem, _REMEDY)
    return _import_v1(v1[0], target, labels) if v1 else _copy_v2(v2[0], target)


def _found(folder: Path, name: str) -> list[Path]:
    return sorted(file for file in folder.rglob(name) if file.is_file())


def _folds(folder: Path, checkpoint: str) -> tuple[int, ...]:
    names = (file.parent.name.removeprefix("fold_") for file in folder.glob(f"fold_*/{checkpoint}"))
    return tuple(sorted(int(name) for name in names if name.isdecimal()))


def _copy_v2(folder: Path, target: Path) -> ImportReport:
    folds = _folds(folder, nnunet_v2.CHECKPOINT)
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    for fold in folds:
        (target / f"fold_{fold}").mkdir()
        name = f"fold_{fold}/{nnunet_v2.CHECKPOINT}"
        shutil.copyfile(folder / name, target / name)
    segmenter = load_segmenter(model_folder(target), folds=folds)
    plan = segmenter.plan
    return ImportReport(
        source="nnunet_v2",
        trainer=nnunet_v2.TRAINER,
        configuration=plan.configuration,
        folds=folds,
        patch=plan.patch,
        spacing=plan.spacing,
        labels=plan.labels,
        parameters=sum(weight.numel() for weight in segmenter.networks[0].parameters()),
        max_softmax_difference=None,
    )


def _import_v1(folder: Path, target: Path, labels: Mapping[str, int] | None) -> ImportReport:
    folds = _folds(folder, nnunet_v1.CHECKPOINT)
    plan = _common_plan(folder, folds)
    named = dict(labels) if labels else _labels(plan)
    plans, dataset = nnunet_v2.plans_json(plan), nnunet_v2.dataset_json(plan, named)
    nnunet_v2.write_layout(target, plans, dataset)
    new_plan = read_plan(target, plan.configuration)
    differences, parameters = [], 0
    for fold in folds:
        file = folder / f"fold_{fold}" / nnunet_v1.CHECKPOINT
        tensors = nnunet_v1.read_weights(file)
        weights = nnunet_v2.brought_over(file, tensors, plan, new_plan)
        nnunet_v2.write_checkpoint(target / f"fold_{fold}", weights, plan, plans, dataset)
        network = load_segmenter(target, folds=(fold,)).networks[0]  # from the file: what will be run
        differences.append(_difference(file, tensors, plan, network))
        parameters = sum(weight.numel() for weight in tensors.values())
    return ImportReport(
        source="nnunet_v1",
        trainer=plan.trainer,
        configuration=plan.configuration,
        folds=folds,
        patch=plan.patch,
        spacing=plan.spacing,
        labels=new_plan.labels,
        parameters=parameters,
        max_softmax_difference=max(differences),
    )


def _common_plan(folder: Path, folds: tuple[int, ...]) -> V1Plan:
    """The plan of the first fold, as v1 takes it, once all folds agree on the network and its input."""
    files = [folder / f"fold_{fold}" / f"{nnunet_v1.CHECKPOINT}.pkl" for fold in folds]
    plans = [nnunet_v1.read_plan(file) for file in files]
    for file, plan in zip(files, plans, strict=True):
        if replace(plan, content={}) != replace(plans[0], content={}):
            problem = f"its plans differ from those of fold_{folds[0]}"
            raise ModelError(file, problem, "import folds that were trained together")
    if nnunet_v1.read_modalities(folder / "plans.pkl") != plans[0].modalities:
        problem = "its number of modalities is not that of the checkpoint"
        raise ModelError(folder / "plans.pkl", problem, nnunet_v1.REMEDY)
    return plans[0]


def _labels(plan: V1Plan) -> dict[str, int]:
    if plan.classes == len(_ENE_LABELS):
        return _ENE_LABELS
    return {f"class_{value}": value for value in range(1, plan.classes + 1)}


def _difference(
    file: Path, tensors: Mapping[str, torch.Tensor], plan: V1Plan, network: torch.nn.Module
) -> float:
    """Largest difference of softmax between v1's own network and the imported one, on a random image."""
    strides = torch.tensor(plan.strides).prod(dim=0)
    size = [2 * int(n) for n in strides]  # two voxels at the bottleneck: one would leave nothing to normalise
    image = torch.randn((1, 1, *size), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        own = torch.softmax(nnunet_v1.forward(tensors, plan, image), 1)
        imported = torch.softmax(network(image), 1)
    difference = float((own - imported).abs().max())
    if not difference <= LARGEST_DIFFERENCE:
        problem = f"its softmax changes by {difference:.2g} when it is brought over"
        raise ModelError(file, problem, nnunet_v1.REMEDY)
    return difference
