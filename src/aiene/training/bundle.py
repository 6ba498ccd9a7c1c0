"""A trained network into a bundle: the card, the readable card, the figures, all or nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiene.errors import UsageError
from aiene.models.bundle import CARD, NAME, Bundle, read_bundle, write_card
from aiene.results.atomic import make_folder, replace_folder, writing

NOTICE = "Weights of your own training: judge them on your own data before you rely on them."
INTENDED_USE = "Research on CTs like those of the training. Not for clinical decisions."


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


def assemble(base: Bundle, out: Path, trained: Trained) -> Bundle:
    """Put a trained network into the bundle `out`; the rest comes from what is there, or from `base`.

    Parameters
    ----------
    base : where the other network and the template come from, if `out` is no bundle yet.
    out : the bundle's folder; its name becomes the bundle's.
    trained : the network.

    Raises
    ------
    UsageError : the folder's name cannot be a bundle's.
    OutputError : it cannot be written; what was there stays.
    """
    if not re.fullmatch(NAME, out.name):
        raise UsageError(f"{out.name} cannot be a bundle's name; use letters, digits, dots and dashes.")
    source = read_bundle(out) if (out / CARD).exists() else base
    make_folder(out.parent)
    partial = out.with_name(f".{out.name}.partial")
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
            card = _card(source, out.name, trained)
            write_card(partial, card)
            (partial / "README.md").write_text(_readme(card), encoding="utf-8")
        replace_folder(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return read_bundle(out)


def _card(source: Bundle, name: str, trained: Trained) -> dict[str, Any]:
    card = source.card.model_dump(mode="json")
    card.pop("files")
    theirs = card["provenance"] if card["notice"] == NOTICE else {}
    other = "classifier" if trained.which == "segmenter" else "segmenter"
    provenance = {
        other: theirs.get(other) or f"taken from the bundle {source.card.name} ({source.sha256[:12]})",
        trained.which: dict(trained.facts),
        "template": theirs.get("template") or f"taken from the bundle {source.card.name}",
    }
    if trained.which == "segmenter":
        card["segmenter"] = {
            **card["segmenter"],
            "folds": [trained.fold],
            "checkpoint": "checkpoint_final.pth",
            "auxiliary": {},  # what was trained here knows GTVp and GTVn alone
        }
    if trained.ene_threshold is not None:
        card["ene_threshold"] = trained.ene_threshold
    return {
        **card,
        "name": name,
        "version": "1",
        "licence": "not stated; say it here before you pass the bundle on",
        "intended_use": INTENDED_USE,
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
    parts += ["The hash of every file stands in `model.json`; `aiene models verify` compares them.", ""]
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
