"""The bundle of a training: what it begins with, its segmenter's plan, and what is put there.

Both networks of a bundle see the CT as its card says: laid onto its template by its profile. A network that
was trained on crops made otherwise would get inputs that it has never seen, without a word. So what a
training makes has to fit what lies at `-o` already.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from aiene.errors import ModelError, UsageError
from aiene.hashing import digest
from aiene.models.bundle import (
    CARD,
    DEFAULT,
    Bundle,
    all_bundles,
    find_bundle,
    read_bundle,
    verify_bundle,
    write_card,
)
from aiene.preprocess.profile import OPEN
from aiene.results.atomic import make_folder, read_json, write_bytes, writing
from aiene.results.ownership import refuse_overlap
from aiene.segment.plans import Plan
from aiene.segment.segmenter import load_segmenter, model_folder
from aiene.training.dataset import LABELS
from aiene.training.place import (
    MARKER,
    NOTICE,
    TAKEN_FROM,
    bundle_at,
    check_claim,
    check_name,
    put_bundle,
    restore_bundle,
    whole_path,
    work_folder,
)


def begin_with(start_from: str | None, there: Bundle | None) -> Bundle:
    """The bundle of `--from`; without it what lies at `-o`, and where nothing does the default bundle.

    Parameters
    ----------
    start_from : name or folder of a bundle.
    there : the bundle at `-o`.

    Raises
    ------
    ModelError : there is none, or it is damaged.
    """
    if start_from is None and there is not None:
        return there
    base = find_bundle(start_from or DEFAULT)
    verify_bundle(base)
    return base


def preparation_of(bundle: Bundle) -> dict[str, str]:
    """Everything on a bundle's card that decides what its networks see, by what it is called."""
    card = bundle.card
    centre = "the template's" if card.neck_centre_lps_mm is None else str(card.neck_centre_lps_mm)
    return {
        "profile": card.profile,
        "normalisation": card.classifier.normalisation,
        "rescue of the registration": "on" if card.rescue_registration else "off",
        "neck centre": centre,
        "template": card.files.get(card.template, "none")[:12],
        "spacing": " x ".join(f"{mm:g}" for mm in OPEN.crop_spacing) + " mm",
        "crop": " x ".join(map(str, OPEN.crop_size)),
    }


def preparation_identity(bundle: Bundle) -> str:
    """What decides how a CT is laid onto the template; the classifier's normalisation comes after that."""
    card = bundle.card
    return digest(
        [card.files.get(card.template), card.profile, card.neck_centre_lps_mm, card.rescue_registration]
    )


def check_fits(base: Bundle, out: Path, before: Mapping[str, str] | None) -> None:
    """Refuse to put a network beside one that sees its CTs otherwise.

    Parameters
    ----------
    base : what the training begins with.
    out : the bundle's folder.
    before : `preparation_of` the bundle that lies there, or of the training that was begun there; None where
        there is neither.

    Raises
    ------
    UsageError : they differ; it says in what, and which bundles would fit.
    """
    if not before:
        return
    ours = preparation_of(base)
    differing = sorted(name for name in ours.keys() | before.keys() if ours.get(name) != before.get(name))
    if not differing:
        return
    said = "; ".join(f"{name} {before.get(name, 'none')}, not {ours.get(name, 'none')}" for name in differing)
    fitting = sorted(
        {b.card.name for b in all_bundles() if isinstance(b, Bundle) and preparation_of(b) == before}
    )
    which = f"--from {' or '.join(fitting)} would fit" if fitting else "no bundle that is installed would fit"
    raise UsageError(
        f"{out.name} is prepared differently from {base.card.name} ({said}), so its two networks would not "
        f"see the same input; {which}, or leave --from out where {out.name} is a bundle already, or choose "
        "another -o."
    )


@dataclass(frozen=True)
class Ground:
    """Where a training writes and what it begins with; nothing has been written yet.

    Parameters
    ----------
    out, work : folder of the bundle, and of the work beside it.
    base : the bundle whose template, profile and other network are taken.
    there : the bundle that lies at `out` already.
    """

    out: Path
    work: Path
    base: Bundle
    there: Bundle | None


_TAKEN: Final = (
    "patch_size",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_probabilities",
    "resampling_fn_probabilities_kwargs",
)
_TAKEN_FROM_PLAN: Final = ("transpose_forward", "transpose_backward", "aiene_origin")
_INTENSITIES: Final = "foreground_intensity_properties_per_channel"
_OLDER_INTENSITIES: Final = "foreground_intensity_properties_by_modality"
_IMPORTED: Final = ("conv_op", "norm_op", "dropout_op", "nonlin")
"""Arguments of a network that nnU-Net looks up by their names."""


class Start(NamedTuple):
    """Where a training starts.

    Parameters
    ----------
    configuration : entries for the configuration of the new plan.
    plan : entries for the new plan itself.
    checkpoint : file of the weights.
    same_labels : whether its outputs mean what ours do; else the last layers are new.
    """

    configuration: dict[str, Any]
    plan: dict[str, Any]
    checkpoint: Path
    same_labels: bool


def start_of(base: Bundle) -> Start:
    """Plan and weights of a bundle's segmenter, whatever its configuration is called and however old it is.

    Raises
    ------
    ModelError : it is no model that can be run here, its weights do not fit its plan, or it takes HU.
    """
    if base.card.segmenter.intensities != "crop":
        raise ModelError(
            base.path,
            "its segmenter takes HU, but a training feeds crops that are scaled to 0 to 1",
            "start from another bundle",
        )
    home = model_folder(base.segmenter_folder)
    fold, name = base.card.segmenter.folds[0], base.card.segmenter.checkpoint
    plan = load_segmenter(home, folds=(fold,), checkpoint=name).plan
    content = json.loads((home / "plans.json").read_text(encoding="utf-8"))
    chosen = _with_inherited(content["configurations"], plan.configuration)
    arguments = dict(plan.architecture.arch_kwargs)
    architecture = {
        "network_class_name": plan.architecture.network_class_name,
        "arch_kwargs": arguments,
        "_kw_requires_import": [name for name in _IMPORTED if name in arguments],
    }
    intensities = content.get(_INTENSITIES) or content.get(_OLDER_INTENSITIES)
    return Start(
        {**{key: chosen[key] for key in _TAKEN if key in chosen}, "architecture": architecture},
        {
            **{key: content[key] for key in _TAKEN_FROM_PLAN if content.get(key)},
            **({_INTENSITIES: intensities} if intensities else {}),
        },
        home / f"fold_{fold}" / name,
        _means_ours(base, plan),
    )


def _means_ours(base: Bundle, plan: Plan) -> bool:
    """Whether its outputs are background, GTVp and GTVn in our order, by its card and by its own names."""
    ours = {name: value for name, value in LABELS.items() if value}
    return plan.classes == len(LABELS) and all(
        base.card.labels.get(name) == value and plan.labels.get(name, value) == value
        for name, value in ours.items()
    )


def _with_inherited(configurations: dict[str, Any], name: str) -> dict[str, Any]:
    """A configuration of a plan that has been checked, with what it inherits."""
    own = configurations[name]
    above = own.get("inherits_from")
    return {**(_with_inherited(configurations, above) if above else {}), **own}


RECORDS: Final = {"segmenter": "segmenter.json", "classifier": "classifier.json"}
"""What each training notes of its settings in the work folder."""


def ground_of(out: Path, start_from: str | None, inputs: Mapping[str, Path | None]) -> Ground:
    """Check `-o` and `--from` against what lies there and what is read.

    Parameters
    ----------
    out : as given by `-o`.
    start_from : as given by `--from`.
    inputs : what is read, by its option.

    Raises
    ------
    UsageError : something at `-o` is not ours or of another preparation, or it overlaps an input.
    ModelError : a bundle cannot be used.
    """
    out = whole_path(out)
    work = work_folder(out)
    check_name(out)
    for place in (out, work):
        refuse_overlap(place, inputs)
    check_claim(work)
    restore_bundle(out)
    there = bundle_at(out)
    base = begin_with(start_from, there)
    if start_from is not None:
        for place in (out, work):
            refuse_overlap(place, {"--from": base.path})
    begun = ((read_json(work / name) or {}).get("preparation") for name in RECORDS.values())
    before = next((dict(found) for found in begun if isinstance(found, dict)), None)
    check_fits(base, out, before if there is None else preparation_of(there))
    return Ground(out, work, base, there)


def check_record(work: Path, which: str, record: Mapping[str, Any], *, go_on: bool) -> None:
    """Whether what lies in the work folder is of the same training.

    Parameters
    ----------
    which : `segmenter` or `classifier`.
    record : settings of this one.
    go_on : it is to be taken up.

    Raises
    ------
    UsageError : it is of another training, or there is none to take up.
    """
    before = read_json(work / RECORDS[which]) or {}
    changed = sorted(k for k in before.keys() | record.keys() if before.get(k) != record.get(k))
    if before and changed:
        raise UsageError(
            f"{work.name} holds a training of other data or settings (different: {', '.join(changed)}); "
            "choose another -o, or remove that folder."
        )
    if go_on and not (work / MARKER).is_file():
        raise UsageError(f"{work.name} holds no training to continue; leave --continue out.")


def check_same(record: Path, now: str, what: str, *, begun: bool = True) -> None:
    """Whether what is trained on is what it was when the training was begun; noted for the next call.

    Parameters
    ----------
    record : file of the hash in the work folder.
    now : hash of what is trained on.
    what : it in words: "the nodes or patients".
    begun : there is a training to be taken up.

    Raises
    ------
    UsageError : it has changed.
    """
    if begun and record.exists() and record.read_text(encoding="ascii") != now:
        raise UsageError(
            f"{what} have changed since {record.parent.name} was begun; choose another -o, or remove that "
            "folder."
        )
    write_bytes(record, now.encode())


_UNSTATED = {
    "version": "1",
    "licence": "not stated; state it here before you share the bundle",
    "intended_use": "Research on CTs like those of the training. Not for clinical decisions.",
}


@dataclass(frozen=True)
class Trained:
    """A network that was trained.

    Parameters
    ----------
    which : of the two networks.
    folder : its files, as they lie in a bundle.
    facts : counts, folds, figures, for the card.
    fold : of the segmenter.
    ene_threshold : that goes with a classifier.
    figures : PNG by file name.
    """

    which: Literal["segmenter", "classifier"]
    folder: Path
    facts: Mapping[str, Any]
    fold: int = 0
    ene_threshold: float | None = None
    figures: Mapping[str, bytes] = field(default_factory=dict)


def assemble(ground: Ground, trained: Trained) -> Bundle:
    """Put a trained network into the bundle at `ground.out`; the rest comes from what is there, or the base.

    Parameters
    ----------
    ground : what the training began with; its work folder is held by this process.
    trained : the network.

    Raises
    ------
    UsageError : something was put at `ground.out` meanwhile that is not ours, or is prepared otherwise.
    OutputError : it cannot be written; what was there stays.
    """
    out, work = ground.out, ground.work
    source = bundle_at(out)
    if source is not None:
        check_fits(ground.base, out, preparation_of(source))
    source = source or ground.base
    make_folder(out.parent)
    partial = work / "bundle.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with writing(partial):
            shutil.copytree(source.path, partial)
            (partial / CARD).unlink()
            (partial / "README.md").unlink(missing_ok=True)
            target = partial / getattr(source.card, trained.which).folder
            shutil.rmtree(target)
            shutil.copytree(trained.folder, target)
            for name, content in trained.figures.items():
                (partial / name).write_bytes(content)
            card = _card(source, ground, trained)
            write_card(partial, card)
            (partial / "README.md").write_text(_readme(card), encoding="utf-8")
        put_bundle(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return read_bundle(out)


def _card(source: Bundle, ground: Ground, trained: Trained) -> dict[str, Any]:
    card = source.card.model_dump(mode="json")
    card.pop("files")
    ours = card["notice"] == NOTICE
    theirs = card["provenance"] if ours else {}
    other = "classifier" if trained.which == "segmenter" else "segmenter"
    name = f"{source.card.name} ({source.sha256[:12]})"
    rest = theirs.get(other) or f"taken from the bundle {name}"
    if ground.there is None and isinstance(rest, dict):
        rest = {**rest, TAKEN_FROM: name}
    provenance = {
        other: rest,
        trained.which: dict(trained.facts),
        "template": theirs.get("template") or f"taken from the bundle {source.card.name}",
    }
    if trained.which == "segmenter":
        card["segmenter"] = {
            **{name: card["segmenter"][name] for name in ("folder", "step_size", "mirroring")},
            "folds": [trained.fold],
            "checkpoint": "checkpoint_final.pth",
            "auxiliary": {},  # what was trained here knows GTVp and GTVn alone
        }
        card["labels"] = {name: value for name, value in LABELS.items() if value}
    else:
        normalisation = ground.base.card.classifier.normalisation
        card["classifier"] |= {"normalisation": normalisation, "mirroring": False}  # as it was validated
    if trained.ene_threshold is not None:
        card["ene_threshold"] = trained.ene_threshold
        card["pos_from"] = 0.0  # another classifier's `pos` says nothing of this one's
    return {
        **card,
        **({} if ours else _UNSTATED),  # what its owner has written there stays
        "name": ground.out.name,
        "notice": NOTICE,
        "provenance": provenance,
    }


def _readme(card: Mapping[str, Any]) -> str:
    """The card for people."""
    parts = [f"# {card['name']}", "", card["notice"], "", f"Intended use: {card['intended_use']}", ""]
    parts += [f"Licence: {card['licence']}", "", f"ENE threshold: {card['ene_threshold']:.3f}", ""]
    for which in ("segmenter", "classifier"):
        facts = card["provenance"][which]
        parts += [f"## {which.capitalize()}", ""]
        parts += [facts, ""] if isinstance(facts, str) else [*_rows(facts), ""]
        if not isinstance(facts, str) and "figure" in facts:
            parts += [f"![calibration]({facts['figure']})", ""]
    parts += ["The hash of every file is in `model.json`; `aiene models verify` compares them.", ""]
    return "\n".join(parts)


def _rows(facts: Mapping[str, Any]) -> list[str]:
    lines = ["| | |", "| --- | --- |"]
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [
                f"| {name.replace('_', ' ')}: {k.replace('_', ' ')} | {_said(v)} |" for k, v in value.items()
            ]
        else:
            lines.append(f"| {name.replace('_', ' ')} | {_said(value)} |")
    return lines


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace("|", "/")
