"""Which adapter runs a model, and opening it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from aiene.benchmark.comparators import hub
from aiene.benchmark.comparators.protocol import Comparator, Request
from aiene.benchmark.config import Kind, ModelEntry
from aiene.errors import ModelError

_OPENERS: dict[Kind, tuple[str, str]] = {
    "bundle": ("bundle", "open_bundle"),
    "predictions": ("predictions", "open_predictions"),
    "promptable": ("promptable", "open_promptable"),
    "semantic": ("semantic", "open_semantic"),
    "encoder": ("encoder", "open_encoder"),
    "timm": ("timm_encoder", "open_timm"),
    "monai": ("monai_bundle", "open_monai"),
}


def open_comparator(request: Request) -> Comparator:
    """A model, loaded and ready.

    Raises
    ------
    ModelError, InputError, MissingExtraError : it cannot be used; one sentence for its row.
    """
    module, function = _OPENERS[request.kind]
    opener: Callable[[Request], Comparator] = getattr(
        import_module(f"aiene.benchmark.comparators.{module}"), function
    )
    return opener(request)


def bundle_kind(entry: ModelEntry) -> Kind:
    """Of what `--models` names: a MONAI bundle's folder, or one of ours."""
    if entry.kind is not None:
        return entry.kind
    folder = Path(entry.source)
    return "monai" if (folder / "configs" / "inference.json").is_file() else "bundle"


def located(entry: ModelEntry) -> tuple[Kind, Path]:
    """Kind and folder of what `--hf-models` names, fetched where it is an id.

    Raises
    ------
    ModelError : there is no such model, or no adapter takes it.
    """
    if entry.source.startswith("timm:"):
        return "timm", hub.model_folder(entry.source.removeprefix("timm:"), entry.revision)
    folder = hub.model_folder(entry.source, entry.revision)
    if entry.kind is not None:
        return entry.kind, folder
    config = hub.read_json(folder, hub.CONFIG)
    if (folder / "configs" / "inference.json").is_file():
        return "monai", folder
    if not config:
        raise ModelError(folder, "it holds no config.json", "name a folder in Hugging Face's layout")
    return hf_kind(folder, config), folder


def hf_kind(folder: Path, config: dict[str, object]) -> Kind:
    """The adapter for a model of Hugging Face, by its configuration.

    Raises
    ------
    ModelError : it is a kind of segmenter that no adapter takes.
    """
    from aiene.benchmark.comparators.promptable import FAMILY

    named = config.get("architectures")
    architectures = [str(name) for name in named] if isinstance(named, list) else []
    if config.get("model_type") in FAMILY:
        return "promptable"
    if any(name.endswith("ForSemanticSegmentation") for name in architectures):
        return "semantic"
    if any(name.endswith(("ForUniversalSegmentation", "ForInstanceSegmentation")) for name in architectures):
        problem = f"{architectures[0]} is a kind of segmenter that is not known here"
        raise ModelError(folder, problem, "give its predictions as a folder with --predictions")
    return "timm" if "architecture" in config and "model_type" not in config else "encoder"
