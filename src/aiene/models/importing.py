"""From the published assets, or anybody's, to a bundle: network by network, checked at the end."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

from aiene.errors import ModelError
from aiene.models.bundle import CARD, NAME, Bundle, read_bundle, write_card
from aiene.models.import_keras import import_classifier
from aiene.models.import_nnunet import import_segmenter
from aiene.models.store import models_folder
from aiene.prepare import profile_named, read_template
from aiene.results.atomic import make_folder, replace_folder, writing

NOTICE = "Imported weights: their licence and their limits are those of their source."
_PUBLISHED_THRESHOLD = 0.3


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

    Raises
    ------
    ModelError : an asset cannot be used, or the imported network does not give the numbers of its source.
    OutputError : the bundle cannot be written.
    """
    target = _free_place(name, out)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        make_folder(partial)
        read_template(template, profile_named(profile, rescue=rescue))
        with writing(partial):
            shutil.copyfile(template, partial / f"template{_ending(template)}")
            checks = (
                import_segmenter(segmenter, partial / "segmenter"),
                import_classifier(classifier, partial / "classifier"),
            )
        card = {
            "name": name,
            "licence": "that of the imported weights",
            "intended_use": "Research, as the source of the weights says.",
            "notice": NOTICE,
            "profile": profile,
            "rescue_registration": rescue,
            "ene_threshold": _PUBLISHED_THRESHOLD,
            "segmenter": {"folds": checks[0].folds},
            "template": f"template{_ending(template)}",
            "provenance": {"segmenter": str(checks[0]), "classifier": str(checks[1])},
        }
        write_card(partial, card)
        replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Imported(read_bundle(target), str(checks[0]), str(checks[1]))


def import_into(*, name: str, segmenter: Path, base: Bundle, out: Path | None = None) -> Imported:
    """Make a bundle of a trained segmenter, with the classifier and the template of another bundle.

    For segmenters that were trained elsewhere on what `aiene train segmenter --export-dataset` wrote.

    Parameters
    ----------
    name, segmenter, out : as for `import_bundle`.
    base : where all the rest comes from.

    Raises
    ------
    ModelError : the segmenter cannot be used.
    OutputError : the bundle cannot be written.
    """
    target = _free_place(name, out)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with writing(partial):
            shutil.copytree(base.path, partial)
            (partial / CARD).unlink()
            (partial / "README.md").unlink(missing_ok=True)
            shutil.rmtree(partial / base.card.segmenter.folder)
        report = import_segmenter(segmenter, partial / base.card.segmenter.folder)
        card = base.card.model_dump(mode="json", exclude={"files"})
        rest = f"taken from the bundle {base.card.name} ({base.sha256[:12]})"
        chosen = {
            **card["segmenter"],
            "folds": report.folds,
            "checkpoint": "checkpoint_final.pth",
            "auxiliary": {},  # the base's organs are none of this segmenter's labels
        }
        provenance = {"segmenter": str(report), "classifier": rest, "template": rest}
        write_card(
            partial,
            {**card, "name": name, "notice": NOTICE, "segmenter": chosen, "provenance": provenance},
        )
        replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Imported(read_bundle(target), str(report), rest)


def _free_place(name: str, out: Path | None) -> Path:
    """Where the bundle goes.

    Raises
    ------
    ModelError : no name for a bundle, or something is there already.
    """
    if not re.fullmatch(NAME, name):
        raise ModelError(name or "(empty)", "not a name for a bundle", "use letters, digits, dots, dashes")
    target = out or models_folder() / name
    if target.exists() and any(target.iterdir()):
        remedy = "remove it, or choose another --name or -o"
        raise ModelError(target, "there is something here already", remedy)
    make_folder(target.parent)
    return target


def _ending(template: Path) -> str:
    name = template.name.lower()
    return next((end for end in (".nii.gz", ".nii", ".nrrd") if name.endswith(end)), template.suffix)
