"""Every model bundle: its files against its card, and its networks on a neck that is always the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final, NamedTuple

import torch

from aiene.doctor.machine import Finding
from aiene.errors import AieneError, ModelError
from aiene.models.bundle import LABEL_VALUES, Bundle, all_bundles, verify_bundle
from aiene.models.importers.trial import SEEDS, trial_crop
from aiene.nodes.split import split_nodes
from aiene.pipeline import load_networks
from aiene.preprocess.preprocess import fixed_window

_VOXELS: Final = 0.02  # share by which a count of voxels may differ between processors
_PROBABILITY: Final = 0.02
_AGAIN: Final = "download the bundle again (aiene models verify tells more)"


class Answer(NamedTuple):
    """What the networks say of the neck.

    Parameters
    ----------
    voxels : of nodes.
    nodes : how many.
    ene : of the largest; None where there is none.
    """

    voxels: int
    nodes: int
    ene: float | None


def answer_of(bundle: Bundle) -> Answer:
    """Run both networks on the neck of a fixed seed, on the processor.

    Raises
    ------
    ModelError : a network cannot be loaded.
    """
    networks = load_networks(bundle, torch.device("cpu"), own_masks=False)
    if networks.segmenter is None:
        raise ModelError(bundle.path, "its segmenter was not loaded", "download the bundle again")
    crop = trial_crop(SEEDS[0])
    labels = networks.segmenter(crop.fed(bundle.card.segmenter.intensities))
    nodes = split_nodes(labels, fg_labels=(LABEL_VALUES["GTVn"],), axes=False)
    seen = crop.hu.with_array(fixed_window(crop.hu.array))
    scores = [s for s in networks.classifier.scores(seen, nodes[:1]) if s is not None]
    voxels = int((labels.array == LABEL_VALUES["GTVn"]).sum())
    return Answer(voxels, len(nodes), round(scores[0].ene, 4) if scores else None)


def expected() -> dict[str, dict[str, Any]]:
    """The answers that are known, by the bundle's SHA-256 (tools/measurements/doctor_expected.py)."""
    text = resources.files("aiene.doctor").joinpath("expected.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def bundles(*, quick: bool = False) -> Iterator[Finding]:
    """Each bundle.

    Parameters
    ----------
    quick : hashes only.
    """
    for bundle in all_bundles():
        if isinstance(bundle, ModelError):
            yield Finding("bundle", "problem", str(bundle).rstrip("."), _AGAIN)
            continue
        area = f"bundle {bundle.card.name}"
        try:
            verify_bundle(bundle)
            yield Finding(
                area, "ok", f"{len(bundle.card.files)} files match its card", "", {"sha256": bundle.sha256}
            )
            if not quick:
                yield judged(area, answer_of(bundle), expected().get(bundle.sha256))
        except AieneError as error:
            yield Finding(area, "problem", str(error).rstrip("."), _AGAIN)


def judged(area: str, answer: Answer, wanted: dict[str, Any] | None) -> Finding:
    """An answer beside the known one."""
    facts = answer._asdict()
    said = f"{answer.voxels} voxels in {answer.nodes} nodes, ENE {answer.ene} of the largest"
    if wanted is None:
        return Finding(
            area, "ok", f"self-test: its networks run ({said}); no known answer to compare", "", facts
        )
    same = abs(answer.voxels - wanted["voxels"]) <= max(3, _VOXELS * wanted["voxels"])
    if (answer.ene is None) != (wanted["ene"] is None) or (
        answer.ene is not None and abs(answer.ene - wanted["ene"]) > _PROBABILITY
    ):
        same = False
    if same:
        return Finding(area, "ok", f"self-test: as expected ({said})", "", facts)
    known = f"{wanted['voxels']} voxels, ENE {wanted['ene']}"
    remedy = "install torch again; if that does not help, report it with aiene doctor --bundle"
    return Finding(area, "problem", f"self-test: {said}, but {known} is right", remedy, facts)
