"""The models of a benchmark: from the command line and the configuration to loaded comparators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aiene.benchmark.comparators import hub
from aiene.benchmark.comparators.protocol import Comparator, Entrant, Request, adapters, kind_of_folder
from aiene.benchmark.config import BenchmarkConfig, Kind, ModelEntry
from aiene.benchmark.records import key_of
from aiene.errors import AieneError, ModelError, UsageError

_KindOf = Callable[[ModelEntry], tuple[Kind, Path | None]]


def open_comparator(request: Request) -> Comparator:
    """A model, loaded and ready.

    Raises
    ------
    ModelError, InputError, MissingExtraError : it cannot be used; one sentence for its row.
    """
    return adapters()[request.kind].open(request)


def _is_monai(folder: Path) -> bool:
    return (folder / "configs" / "inference.json").is_file()


def bundle_kind(entry: ModelEntry) -> Kind:
    """Of what `--models` names: a MONAI bundle's folder, or one of ours."""
    return entry.kind or ("monai" if _is_monai(Path(entry.source)) else "bundle")


def located(entry: ModelEntry) -> tuple[Kind, Path]:
    """Kind and folder of what `--hf-models` names, fetched where it is an id.

    Raises
    ------
    ModelError : there is no such model, or no adapter takes it.
    """
    folder = hub.model_folder(entry.source.removeprefix("timm:"), entry.revision)
    if entry.source.startswith("timm:"):
        return "timm", folder
    if entry.kind is not None:
        return entry.kind, folder
    config = hub.read_json(folder, hub.CONFIG)
    if _is_monai(folder):
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
    taker = next((each.kind for each in adapters().values() if each.takes_config(config)), None)
    if taker is not None:
        return taker
    named = config.get("architectures")
    architectures = [str(name) for name in named] if isinstance(named, list) else []
    if any(name.endswith(("ForUniversalSegmentation", "ForInstanceSegmentation")) for name in architectures):
        problem = f"{architectures[0]} is a kind of segmenter that is not known here"
        raise ModelError(folder, problem, "give its predictions as a folder with --predictions")
    return "encoder"


def line_up(config: BenchmarkConfig, device: str) -> list[Entrant]:
    """Every model in the order in which it is to run: those that wait for a bundle's prompts last.

    Bundles and MONAI bundles first, then Hugging Face models, then folders of predictions; the default bundle
    where nothing is named at all.

    Raises
    ------
    UsageError : two models of one name, or a reference that is none of them.
    """
    models = list(config.models)
    if not (models or config.hf_models or config.predictions):
        models = [ModelEntry(source="default")]
    entries: list[tuple[ModelEntry, _KindOf]] = [(entry, _kind_of) for entry in models]
    entries += [(ModelEntry(source=source), located) for source in config.hf_models]
    entries += [
        (ModelEntry(source=str(where), name=name, kind=kind_of_folder(where)), _kind_of)
        for name, where in config.predictions.items()
    ]
    entrants: list[Entrant] = []
    for place, (entry, kind_of) in enumerate(entries):
        entrants.append(_entrant(entry, kind_of, place, config, device, {e.key for e in entrants}))
    if config.reference is not None and config.reference not in {e.name for e in entrants}:
        names = ", ".join(e.name for e in entrants)
        raise UsageError(f"--reference {config.reference}: no model of this name; there are {names}.")
    return sorted(entrants, key=lambda e: e.request is not None and e.request.entry.prompts == "road")


def reference_of(config: BenchmarkConfig, entrants: list[Entrant]) -> str | None:
    """The model that the others are compared with: the one named, else the first that took part."""
    if config.reference is not None:
        return config.reference
    return next((e.name for e in entrants if e.facts is not None), None)


def source_name(source: str) -> str:
    """A hub id or a bundle's name as it is; of a folder only its last name."""
    return Path(source).name if Path(source).exists() else source


def _entrant(
    entry: ModelEntry,
    kind_of: _KindOf,
    place: int,
    config: BenchmarkConfig,
    device: str,
    taken: set[str],
) -> Entrant:
    name = entry.name or Path(entry.source.rstrip("/\\").removeprefix("timm:")).name or entry.source
    if key_of(name) in taken:
        if entry.name is not None:
            raise UsageError(f"two models are called {name}; give each its own name.")
        number = next(n for n in range(2, len(taken) + 3) if key_of(f"{name}_{n}") not in taken)
        name = f"{name}_{number}"
    kind, request, reason = entry.kind, None, ""
    try:
        kind, folder = kind_of(entry)
        request = Request(name, kind, entry, device, config.resample, folder)
    except AieneError as error:
        reason = str(error)
    return Entrant(name, key_of(name), entry.source, kind, place, request, reason)


def _kind_of(entry: ModelEntry) -> tuple[Kind, Path | None]:
    """Of an entry of the configuration, or of what `--models` names."""
    of_hub = _is_hugging_face(entry.source) if entry.kind is None else adapters()[entry.kind].from_hub
    return located(entry) if of_hub else (bundle_kind(entry), None)


def _is_hugging_face(source: str) -> bool:
    """A folder in Hugging Face's layout, or something that only a hub id can be."""
    folder = Path(source)
    if folder.is_dir():
        return (folder / "config.json").is_file() and not (folder / "model.json").is_file()
    return source.startswith("timm:") or (source.count("/") == 1 and not source.startswith((".", "/", "~")))
