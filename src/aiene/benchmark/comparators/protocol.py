"""What an adapter is given, what it gives back, the four steps between; and the table of adapters.

Each module of this folder that declares `ADAPTERS` is in the table, so that a further comparator is one
further file. The modules are loaded when the table is first asked for; none loads its networks'
library before it opens a model.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from aiene.benchmark import comparators
from aiene.geometry.grid import Volume
from aiene.ingest.case import Case

if TYPE_CHECKING:
    from aiene.benchmark.config import Kind, ModelEntry


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it meets a case.

    Parameters
    ----------
    kind : the adapter.
    sha256 : of the weights (of the files, for a folder of predictions); its identity.
    segments : it gives a label map.
    classifies : it gives ENE of nodes.
    features : it gives features, from which a probe gives ENE.
    judges_truth : it gives ENE of the truth's nodes.
    parameters : numbers in its networks; None unknown.
    size_bytes : of its files; None unknown.
    ene_threshold, pos_from : which found nodes count as ENE (`CountingRule`); no threshold where it gives no
        probabilities.
    said : what a reader of its figures must know.
    """

    kind: Kind
    sha256: str
    segments: bool = False
    classifies: bool = False
    features: bool = False
    judges_truth: bool = False
    parameters: int | None = None
    size_bytes: int | None = None
    ene_threshold: float | None = None
    pos_from: float = 0.0
    said: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class CaseInput:
    """One case, as an adapter sees it.

    Parameters
    ----------
    case : its CT, not read yet.
    truth_labels : uint8 on the CT's grid, 1 GTVp, 2 GTVn. For adapters that are prompted, or that judge the
        truth's nodes; the others must not look.
    truth_nodes : uint16 there, value k for `GTVn_k`.
    prompts : labels and nodes from which an adapter that is prompted makes its boxes; None: no prompts.
    """

    case: Case
    truth_labels: Volume
    truth_nodes: Volume
    prompts: tuple[Volume, Volume] | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of a case.

    Parameters
    ----------
    labels : integers on the CT's grid, 1 GTVp, 2 GTVn; None from a model that does not segment.
    nodes : found nodes there, each value one; None: the connected parts of GTVn are.
    confidence : of found nodes, by value; empty where the model gives none.
    ene : probability of found nodes, by value.
    ene_on_truth : probability of the truth's nodes, by value: the classifier without the segmenter.
    features : of the truth's nodes, by value.
    warnings : what the user should look at.
    """

    labels: Volume | None = None
    nodes: Volume | None = None
    confidence: dict[int, float] = field(default_factory=dict)
    ene: dict[int, float] = field(default_factory=dict)
    ene_on_truth: dict[int, float] = field(default_factory=dict)
    features: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Comparator(Protocol):
    """A model that is open. Its four steps are timed apart; each takes what the one before gave.

    `infer` may be called several times on the same prepared input and gives the same each time. Every step
    may raise an `AieneError`, which becomes the case's row.
    """

    facts: ModelFacts

    def load(self, case: CaseInput) -> Any:
        """Read the case's files."""

    def preprocess(self, loaded: Any) -> Any:
        """Make the networks' input."""

    def infer(self, prepared: Any) -> Any:
        """Run the networks."""

    def answer(self, inferred: Any) -> Answer:
        """Bring the result onto the CT's grid."""


class Reader:
    """The middle steps of a comparator whose answers lay ready in files: there is nothing to do."""

    def preprocess(self, loaded: Any) -> Any:
        """Nothing."""
        return loaded

    def infer(self, prepared: Any) -> Any:
        """Nothing: it was done elsewhere."""
        return prepared


@dataclass(frozen=True)
class Request:
    """Which model to open, and how; goes to other processes.

    Parameters
    ----------
    name : in the results.
    kind : of adapter.
    entry : what the user says of it.
    device : as `resolve_device` takes it.
    resample : a prediction on another grid is taken.
    folder : where its files lie, once that is known.
    """

    name: str
    kind: Kind
    entry: ModelEntry
    device: str
    resample: bool = False
    folder: Path | None = None


@dataclass(frozen=True)
class Entrant:
    """A model that was asked for, and what became of it.

    Parameters
    ----------
    place : in the order in which the models were named.
    request : how to open it; None where it is not there.
    reason : why it cannot take part; empty otherwise.
    facts : once it has been opened.
    probe_reason : why its features gave no probabilities.
    """

    name: str
    key: str
    source: str
    kind: Kind | None
    place: int
    request: Request | None
    reason: str = ""
    facts: ModelFacts | None = None
    probe_reason: str = ""


def count_parameters(modules: Iterable[Any]) -> int:
    """Numbers in the parameters of torch modules."""
    return sum(int(parameter.numel()) for module in modules for parameter in module.parameters())


def folder_bytes(folder: Path) -> int:
    """Bytes of every file below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


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


def open_comparator(request: Request) -> Comparator:
    """A model, loaded and ready.

    Raises
    ------
    ModelError, InputError, MissingExtraError : it cannot be used; one sentence for its row.
    """
    return adapters()[request.kind].open(request)


def reads_files(kind: str) -> bool:
    """Whether the answers of a kind lay ready as files; not of one that is not known here."""
    return kind in adapters() and adapters()[kind].reads_files


def kind_of_folder(folder: Path) -> str:
    """The adapter of a folder of `--predictions`."""
    return next((each.kind for each in adapters().values() if each.takes_folder(folder)), "predictions")
