"""A trained network as a bundle, written whole or not at all: model card, readable card, metrics."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiene.models.bundle import CARD, Bundle, read_bundle, write_card
from aiene.results.atomic import make_folder, writing
from aiene.training.place import NOTICE, TAKEN_FROM, bundle_at, put_bundle
from aiene.training.records import LABELS
from aiene.training.start import Ground, check_fits, preparation_of

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
        card["classifier"]["normalisation"] = ground.base.card.classifier.normalisation
    if trained.ene_threshold is not None:
        card["ene_threshold"] = trained.ene_threshold
        card["pos_from"] = 0.0  # another classifier's `pos` says nothing of this one's
    return {
        **card,
        **(_UNSTATED if not ours else {}),  # what its owner has written there stays
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
