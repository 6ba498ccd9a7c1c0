"""From the published assets, or anybody's, to a bundle: network by network, checked at the end."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from aiene.errors import ModelError
from aiene.ingest.read import unpack
from aiene.models.bundle import (
    CARD,
    NAME,
    PUBLISHED_ENE_THRESHOLD,
    Bundle,
    models_folder,
    read_bundle,
    write_card,
)
from aiene.models.importers import nnunet
from aiene.models.importers.keras import import_classifier
from aiene.models.importers.nnunet import V1Plan
from aiene.models.importers.trial import (
    ChosenLabels,
    Intensities,
    chosen_labels,
    fitting_intensities,
    try_out,
)
from aiene.preprocess.preprocess import read_template
from aiene.preprocess.profile import profile_named
from aiene.results.atomic import Room, clear_abandoned, make_folder, write_json, writing
from aiene.results.ownership import refuse_overlap
from aiene.segment.plans import Plan, read_label_names, read_plan
from aiene.segment.segmenter import Fold, load_segmenter, model_folder

# Bringing a trained nnU-Net model, v1 or v2, into the layout that the segmenter runs.


LARGEST_DIFFERENCE = 1e-4
"""Softmax of the imported network against v1's own, on a random image."""

_WANTED = (".json", ".pth", ".model", ".pkl")
_REMEDY = "name the folder or ZIP that holds plans.pkl (v1) or plans.json (v2) and the folds"
_ENE_LABELS = {"GTVp": 1, "GTVn": 2}
"""Of the published model, whose files hold no names."""


@dataclass(frozen=True)
class Choices:
    """What a user may say about a segmenter to import.

    Parameters
    ----------
    nodes_label, primary_label : name or value of the network's label; None: found by name (`label_names`).
    intensities : what it is fed; None: whichever fits its training.
    folds : those to take; None: all that are numbered, or `fold_all` where it is the only one.
    checkpoint : file of each fold; None: that of a finished training.
    mirroring : average over mirror images, as nnU-Net does; None: no.
    allow_empty : take a v2 model whose answer on the trial crops is of one class.
    """

    nodes_label: str | None = None
    primary_label: str | None = None
    intensities: Intensities | None = None
    folds: tuple[Fold, ...] | None = None
    checkpoint: str | None = None
    mirroring: bool | None = None
    allow_empty: bool = False


@dataclass(frozen=True)
class ImportReport:
    """What was imported.

    Parameters
    ----------
    source : the layout that was found.
    trainer, configuration : as the model names them.
    folds, checkpoint : what was taken.
    patch, spacing : voxels and mm (z, y, x) after the model's own transposition of axes.
    labels : of the network, name to value, background included.
    chosen : which of them are nodes and primary tumour.
    intensities : what it is fed.
    mirroring : whether its answer is averaged over mirror images.
    parameters : numbers in one fold's network.
    max_softmax_difference : largest over all folds, of the imported network against an independent evaluation
        of the v1 weights; None for a v2 model, which is copied as it is.
    notes : what the user should know about it.
    """

    source: Literal["nnunet_v1", "nnunet_v2"]
    trainer: str
    configuration: str
    folds: tuple[Fold, ...]
    checkpoint: str
    patch: tuple[int, int, int]
    spacing: tuple[float, float, float]
    labels: dict[str, int]
    chosen: ChosenLabels
    intensities: Intensities
    mirroring: bool
    parameters: int
    max_softmax_difference: float | None
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        folds = ", ".join(map(str, self.folds))
        head = (
            f"{self.source} {self.trainer} {self.configuration}, folds {folds}, {self.parameters} parameters"
        )
        check = "copied as it is"
        if self.max_softmax_difference is not None:
            check = f"softmax within {self.max_softmax_difference:.1e} of the original network"
        if self.checkpoint != nnunet.V2_CHECKPOINT:
            check += f", {self.checkpoint}"
        fed = "fed in HU" if self.intensities == "hu" else "fed the crop scaled to [0, 1]"
        mirrored = ", mirrored" if self.mirroring else ""
        return "; ".join((f"{head}, {check}", f"{fed}{mirrored}", str(self.chosen), *self.notes))


def import_segmenter(source: Path, target: Path, choices: Choices | None = None) -> ImportReport:
    """Bring a trained model into nnU-Net v2's trained-model layout.

    Parameters
    ----------
    source : a folder or ZIP file. v1: `plans.pkl` and `fold_K/model_final_checkpoint.model` with its `.pkl`,
        flat as published or in nnU-Net's own nesting; a `dataset.json` beside `plans.pkl` names its labels.
        v2: `plans.json`, `dataset.json` and `fold_K/checkpoint_final.pth`, copied as they are.
    target : the folder to make; must not exist, or be empty. It appears complete or not at all.
    choices : what the user says about it.

    Raises
    ------
    ModelError : no model, several, or one that cannot be run here; weights that do not fit; labels that
        nobody can tell apart; intensities that are not those of a crop; a network that does not compute what
        v1's does, or (v2) answers with one class, or with no numbers, on the trial crops.
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
        report = _import_folder(source, folder, made, choices or Choices())
        if target.exists():
            target.rmdir()
        made.rename(target)
    return report


def _import_folder(source: Path, folder: Path, target: Path, choices: Choices) -> ImportReport:
    def homes(plans: str, checkpoint: str) -> list[Path]:
        files = sorted(file for file in folder.rglob(plans) if file.is_file())
        return [file.parent for file in files if _folds(file.parent, checkpoint)]

    v1, v2 = homes("plans.pkl", nnunet.V1_CHECKPOINT), homes("plans.json", "*.pth")
    if len(v1) + len(v2) != 1:
        problem = "holds several trained models" if v1 or v2 else "holds no trained nnU-Net model"
        raise ModelError(source, problem, _REMEDY)
    return _import_v1(v1[0], target, choices) if v1 else _copy_v2(v2[0], target, choices)


def _folds(folder: Path, checkpoint: str) -> tuple[Fold, ...]:
    """The folds that have such a file, `all` last; v1 calls that one `all`, without `fold_`."""
    names = {file.parent.name for file in folder.glob(f"fold_*/{checkpoint}")}
    names |= {file.parent.name for file in folder.glob(f"all/{checkpoint}")}
    numbers = sorted(int(n[5:]) for n in names if n.startswith("fold_") and n[5:].isdecimal())
    return (*numbers, *(("all",) if names & {"fold_all", "all"} else ()))


def _taken_folds(folder: Path, checkpoint: str, choices: Choices) -> tuple[Fold, ...]:
    """The folds to take: what the user names, else the numbered ones, else `all`."""
    there, with_any = _folds(folder, checkpoint), _folds(folder, "*")
    if choices.folds is None:
        numbered = tuple(fold for fold in with_any if fold != "all")
        wanted = numbered if set(numbered) & set(there) else there
    else:
        wanted = choices.folds
    lacking = [fold for fold in wanted if fold not in there]
    if not lacking and wanted:
        return wanted
    first: Fold = lacking[0] if lacking else with_any[0]
    name = f"fold_{first}"
    if first not in with_any:
        remedy = f"it has {', '.join(f'fold_{fold}' for fold in with_any)}: name these with --folds"
        raise ModelError(folder, f"has no {name}", remedy)
    others = sorted(file.name for file in (folder / name).glob("*.pth"))
    remedy = "leave it out with --folds"
    if others and checkpoint not in others:
        remedy = f"name another with --checkpoint ({', '.join(others)}), or leave the fold out with --folds"
    raise ModelError(folder / name, f"has no {checkpoint}", remedy)


def _copy_v2(folder: Path, target: Path, choices: Choices) -> ImportReport:
    checkpoint = choices.checkpoint or nnunet.V2_CHECKPOINT
    if not re.fullmatch(r"\w[\w.-]*\.pth", checkpoint):
        raise ModelError(
            checkpoint, "is not the name of a checkpoint", "name a file such as checkpoint_best.pth"
        )
    folds = _taken_folds(folder, checkpoint, choices)
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    for fold in folds:
        (target / f"fold_{fold}").mkdir()
        name = f"fold_{fold}/{checkpoint}"
        shutil.copyfile(folder / name, target / name)
    loaded = [load_segmenter(model_folder(target), folds=(fold,), checkpoint=checkpoint) for fold in folds]
    plan = loaded[0].plan
    chosen, intensities = _understood(folder, plan, choices)
    notes = _notes(folder, checkpoint, plan, folds)
    for fold, segmenter in zip(folds, loaded, strict=True):
        file = folder / f"fold_{fold}" / checkpoint
        wrong = try_out(replace(segmenter, takes_hu=intensities == "hu"), file)
        if wrong and not choices.allow_empty:
            problem = f"{wrong}: it is damaged, or was trained on other images"
            raise ModelError(
                file, problem, "where you know that it works on CTs, import it with --allow-empty"
            )
        notes += [f"fold_{fold}: {wrong}"] if wrong else []
    return ImportReport(
        source="nnunet_v2",
        trainer=nnunet.TRAINER,
        **_said_of(plan, folds, checkpoint),
        chosen=chosen,
        intensities=intensities,
        mirroring=_mirroring(target, folds, checkpoint, choices),
        parameters=sum(weight.numel() for weight in loaded[0].networks[0].parameters()),
        max_softmax_difference=None,
        notes=tuple(notes),
    )


def _said_of(plan: Plan, folds: tuple[Fold, ...], checkpoint: str) -> dict[str, Any]:
    """What a report says of a plan and of what was taken of its model."""
    names = ("configuration", "patch", "spacing", "labels")
    return {**{name: getattr(plan, name) for name in names}, "folds": folds, "checkpoint": checkpoint}


def _understood(folder: Path, plan: Plan, choices: Choices) -> tuple[ChosenLabels, Intensities]:
    """Which labels are which, and what the network is to be fed."""
    chosen = chosen_labels(
        folder / "dataset.json", plan.labels, nodes=choices.nodes_label, primary=choices.primary_label
    )
    return chosen, fitting_intensities(plan, choices.intensities)


def _notes(folder: Path, checkpoint: str, plan: Plan, folds: Sequence[Fold]) -> list[str]:
    notes = []
    left = [f"fold_{fold}" for fold in _folds(folder, checkpoint) if fold not in folds]
    if left:
        notes.append(f"{', '.join(left)} left out")
    if plan.normalisation.scheme in ("ZScoreNormalization", "RescaleTo01Normalization"):
        notes.append(
            f"it normalises by each image's own values ({plan.normalisation.scheme}): trained on whole CTs, "
            "it sees other values in a crop"
        )
    return notes


def _mirroring(target: Path, folds: Sequence[Fold], checkpoint: str, choices: Choices) -> bool:
    """Whether to mirror; only where the training allows an axis."""
    if not choices.mirroring:
        return False
    mirrored = load_segmenter(target, folds=folds[:1], checkpoint=checkpoint, mirroring=True)
    if not mirrored.mirror_axes:
        problem = "was trained without mirroring"
        raise ModelError(target / f"fold_{folds[0]}" / checkpoint, problem, "leave --mirroring out")
    return True


def _import_v1(folder: Path, target: Path, choices: Choices) -> ImportReport:
    if choices.checkpoint is not None:
        problem = f"is of nnU-Net v1, whose checkpoint is {nnunet.V1_CHECKPOINT}"
        raise ModelError(folder, problem, "leave --checkpoint out")
    folds = _taken_folds(folder, nnunet.V1_CHECKPOINT, choices)
    named_homes = {fold: folder / f"fold_{fold}" for fold in folds}  # `all` may have no `fold_` before it
    homes = {fold: home if home.is_dir() else folder / str(fold) for fold, home in named_homes.items()}
    plan = _common_plan(folder, list(homes.values()))
    named, assumed = _v1_labels(folder, plan, choices)
    plans, dataset = nnunet.plans_json(plan), nnunet.dataset_json(plan, named)
    write_json(target / "plans.json", plans)
    write_json(target / "dataset.json", dataset)
    new_plan = read_plan(target, plan.configuration)
    chosen, intensities = _understood(folder, new_plan, choices)
    notes = [*assumed, *_notes(folder, nnunet.V1_CHECKPOINT, new_plan, folds)]
    differences, parameters = [], 0
    for fold, home in homes.items():
        file = home / nnunet.V1_CHECKPOINT
        tensors = nnunet.read_weights(file)
        weights = nnunet.brought_over(file, tensors, plan, new_plan)
        nnunet.write_checkpoint(target / f"fold_{fold}", weights, plan, plans, dataset)
        segmenter = load_segmenter(target, folds=(fold,), takes_hu=intensities == "hu")  # from the file
        differences.append(_difference(file, tensors, plan, segmenter.networks[0]))
        parameters = sum(weight.numel() for weight in tensors.values())
        # that the network is v1's own has been shown: what it finds in a phantom is told, not judged
        if wrong := try_out(segmenter, file):
            notes.append(f"fold_{fold}: {wrong}")
    return ImportReport(
        source="nnunet_v1",
        trainer=plan.trainer,
        **_said_of(new_plan, folds, nnunet.V2_CHECKPOINT),
        chosen=chosen,
        intensities=intensities,
        mirroring=_mirroring(target, folds, nnunet.V2_CHECKPOINT, choices),
        parameters=parameters,
        max_softmax_difference=max(differences),
        notes=tuple(notes),
    )


def _common_plan(folder: Path, homes: Sequence[Path]) -> V1Plan:
    """The plan of the first fold, as v1 takes it, once all folds agree on the network and its input."""
    files = [home / f"{nnunet.V1_CHECKPOINT}.pkl" for home in homes]
    plans = [nnunet.read_plan(file) for file in files]
    for file, plan in zip(files, plans, strict=True):
        if replace(plan, content={}) != replace(plans[0], content={}):
            problem = f"its plans differ from those of {homes[0].name}"
            raise ModelError(file, problem, "import folds that were trained together")
    if nnunet.read_modalities(folder / "plans.pkl") != plans[0].modalities:
        problem = "its number of modalities is not that of the checkpoint"
        raise ModelError(folder / "plans.pkl", problem, nnunet.V1_REMEDY)
    return plans[0]


def _v1_labels(folder: Path, plan: V1Plan, choices: Choices) -> tuple[dict[str, int], list[str]]:
    """Names of a v1 model's classes, and what had to be assumed.

    Its files hold none, but a `dataset.json` may lie beside them. Two classes without names are taken for the
    published model's, GTVp and GTVn, unless the user says which is which.
    """
    file = folder / "dataset.json"
    if file.is_file():
        names = {name: value for name, value in read_label_names(file).items() if value != 0}
        if len(names) != plan.classes:
            problem = f"it names {len(names)} labels, but the network has {plan.classes}"
            raise ModelError(file, problem, "bring the dataset.json that the model was trained with")
        return names, []
    if plan.classes == len(_ENE_LABELS) and choices.nodes_label is None and choices.primary_label is None:
        return _ENE_LABELS, ["its files name no labels: taken for the published model's, 1 GTVp and 2 GTVn"]
    return {f"class_{value}": value for value in range(1, plan.classes + 1)}, []


def _difference(
    file: Path, tensors: Mapping[str, torch.Tensor], plan: V1Plan, network: torch.nn.Module
) -> float:
    """Largest difference of softmax between v1's own network and the imported one, on a random image."""
    strides = torch.tensor(plan.strides).prod(dim=0)
    size = [2 * int(n) for n in strides]  # two voxels at the bottleneck: one would leave nothing to normalise
    image = torch.randn((1, 1, *size), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        own = torch.softmax(nnunet.forward(tensors, plan, image), 1)
        imported = torch.softmax(network(image), 1)
    difference = float((own - imported).abs().max())
    if not difference <= LARGEST_DIFFERENCE:
        problem = f"its softmax changes by {difference:.2g} when it is brought over"
        raise ModelError(file, problem, nnunet.V1_REMEDY)
    return difference


NOTICE = "Imported weights: their licence and their limits are those of their source."

_ROOMS = ".aiene-imports"
"""Beside the new bundle; hidden, so that nothing in it is taken for a bundle."""


class Imported(NamedTuple):
    """A new bundle, and what the numerical check of each network said."""

    bundle: Bundle
    segmenter: str
    classifier: str


def import_bundle(
    *,
    name: str,
    segmenter: Path,
    classifier: Path,
    template: Path,
    profile: Literal["published", "open"] = "published",
    rescue: bool = False,
    out: Path | None = None,
    choices: Choices | None = None,
) -> Imported:
    """Make a bundle of a segmenter, a classifier and a template.

    Parameters
    ----------
    name : of the bundle.
    segmenter : nnU-Net v1 model folder or v2 trained-model folder, or a ZIP of one.
    classifier : Keras 2 `.h5` of the DualNet.
    template : template CT (NRRD or NIfTI).
    profile : how CTs were prepared for these weights.
    rescue : try other starts where a registration is judged poor; the published method does not.
    out : folder of the bundle; None is `name` in the models folder.
    choices : what the user says about the segmenter.

    Raises
    ------
    ModelError : an asset cannot be used, or the imported network does not give the numbers of its source.
    OutputError : the bundle cannot be written.
    """
    read = {"--segmenter": segmenter, "--classifier": classifier, "--template": template}
    with _new_bundle(name, out, read) as (partial, target):
        read_template(template, profile_named(profile, rescue=rescue))
        with writing(partial):
            shutil.copyfile(template, partial / f"template{_ending(template)}")
            checks = (
                import_segmenter(segmenter, partial / "segmenter", choices),
                import_classifier(classifier, partial / "classifier"),
            )
        card = {
            "name": name,
            "licence": "that of the imported weights",
            "intended_use": "Research, as stated by the source of the weights.",
            "notice": NOTICE,
            "profile": profile,
            "rescue_registration": rescue,
            "ene_threshold": PUBLISHED_ENE_THRESHOLD,
            "labels": checks[0].chosen.labels,
            "segmenter": _segmenter_card(checks[0]),
            "template": f"template{_ending(template)}",
            "provenance": {"segmenter": str(checks[0]), "classifier": str(checks[1])},
        }
        write_card(partial, card)
    return Imported(read_bundle(target), str(checks[0]), str(checks[1]))


def import_into(
    *, name: str, segmenter: Path, base: Bundle, out: Path | None = None, choices: Choices | None = None
) -> Imported:
    """Make a bundle of a trained segmenter, with the classifier and the template of another bundle.

    For segmenters that were trained elsewhere on what `aiene train segmenter --export-dataset` wrote.

    Parameters
    ----------
    name, segmenter, out, choices : as for `import_bundle`; mirroring is the base's where nothing is said.
    base : where all the rest comes from.

    Raises
    ------
    ModelError : the segmenter cannot be used.
    OutputError : the bundle cannot be written.
    """
    read = {"--segmenter": segmenter, "--base": base.path}
    with _new_bundle(name, out, read) as (partial, target):
        with writing(partial):
            shutil.copytree(base.path, partial, dirs_exist_ok=True)
            (partial / CARD).unlink()
            (partial / "README.md").unlink(missing_ok=True)
            shutil.rmtree(partial / base.card.segmenter.folder)
        report = import_segmenter(segmenter, partial / base.card.segmenter.folder, choices)
        card = base.card.model_dump(mode="json", exclude={"files"})
        rest = f"taken from the bundle {base.card.name} ({base.sha256[:12]})"
        chosen = {**card["segmenter"], **_segmenter_card(report)}
        if choices is None or choices.mirroring is None:
            chosen["mirroring"] = base.card.segmenter.mirroring
        provenance = {"segmenter": str(report), "classifier": rest, "template": rest}
        write_card(
            partial,
            {
                **card,
                "name": name,
                "notice": NOTICE,
                "labels": report.chosen.labels,
                "segmenter": chosen,
                "provenance": provenance,
            },
        )
    return Imported(read_bundle(target), str(report), rest)


def _segmenter_card(report: ImportReport) -> dict[str, Any]:
    """What a bundle's card says about an imported segmenter."""
    return {
        "folds": report.folds,
        "checkpoint": report.checkpoint,
        "mirroring": report.mirroring,
        "intensities": report.intensities,
        "auxiliary": {},  # another bundle's organs are none of this segmenter's labels,
        "cores": {},  # nor its cores and offsets any of this one's
        "operating_points": {},
    }


@contextmanager
def _new_bundle(name: str, out: Path | None, read: Mapping[str, Path]) -> Iterator[tuple[Path, Path]]:
    """A folder to fill, and the place that it gets when the context is left without an error.

    It is filled in a room beside that place, which holds nothing of anybody's; rooms that a killed import
    left are cleared. `read` is what the bundle is made of, by what it is called on the command line.
    """
    if not re.fullmatch(NAME, name):
        raise ModelError(name or "(empty)", "not a name for a bundle", "use letters, digits, dots, dashes")
    target = out or models_folder() / name
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir())):
        remedy = "remove it, or choose another --name or -o"
        raise ModelError(target, "something exists here already", remedy)
    refuse_overlap(target, read)
    make_folder(target.parent)
    rooms = target.parent / _ROOMS
    clear_abandoned(rooms)
    with ExitStack() as stack:
        with writing(target):
            room = stack.enter_context(Room(rooms))
        made = room.path / "bundle"
        make_folder(made)
        yield made, target
        with writing(target):
            if target.is_dir():
                target.rmdir()  # fails where somebody has laid something into it meanwhile
            made.rename(target)


def _ending(template: Path) -> str:
    name = template.name.lower()
    return next((end for end in (".nii.gz", ".nii", ".nrrd") if name.endswith(end)), template.suffix)
