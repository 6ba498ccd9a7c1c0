"""The table of adapters: which kinds of model can be compared, and who opens each.

Each module of this folder that declares `ADAPTERS` is in the table, so that a further comparator is one
further file. The modules are loaded when the table is first asked for; none loads its networks'
library before it opens a model.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiene.benchmark import comparators

if TYPE_CHECKING:
    from aiene.benchmark.comparators.protocol import Comparator, Request


def _never(_: object) -> bool:
    return False


@dataclass(frozen=True)
class Adapter:
    """One kind of model.

    Parameters
    ----------
    kind : its word in the configuration and the results.
    title : as the report says it.
    open : makes the model ready; may raise `ModelError`, `InputError` and `MissingExtraError`.
    from_hub : its entries name a model of Hugging Face or of timm.
    reads_files : its answers lay ready as files, so that inference is neither repeated nor timed warm.
    takes_folder : whether a folder of `--predictions` is this adapter's; `predictions` takes the rest.
    takes_config : whether a model of Hugging Face with this `config.json` is; `encoder` takes the rest.
    """

    kind: str
    title: str
    open: Callable[[Request], Comparator]
    from_hub: bool = False
    reads_files: bool = False
    takes_folder: Callable[[Path], bool] = _never
    takes_config: Callable[[Mapping[str, Any]], bool] = _never


@cache
def adapters() -> dict[str, Adapter]:
    """Every adapter by its kind."""
    modules = [
        import_module(f"{comparators.__name__}.{module.name}")
        for module in pkgutil.iter_modules(comparators.__path__)
    ]
    return {each.kind: each for module in modules for each in getattr(module, "ADAPTERS", ())}


def reads_files(kind: str) -> bool:
    """Whether the answers of a kind lay ready as files; not of one that is not known here."""
    return kind in adapters() and adapters()[kind].reads_files


def kind_of_folder(folder: Path) -> str:
    """The adapter of a folder of `--predictions`."""
    return next((each.kind for each in adapters().values() if each.takes_folder(folder)), "predictions")
