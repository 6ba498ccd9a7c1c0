"""MONAI bundles, read as data.

A bundle's configuration may hold Python (`$` expressions, any `_target_`). None of it is run here: the
network must be one of `monai.networks.nets` with plain arguments, and the preparation made of the few steps
below; anything else is refused by name. Weights are safetensors, or a state dict read without code.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from aiene.benchmark.comparators import hub
from aiene.benchmark.comparators.protocol import (
    Adapter,
    Answer,
    CaseInput,
    Request,
)
from aiene.benchmark.comparators.slice_segmenters import AxialView, answer_of_classes, named_classes
from aiene.benchmark.config import GTVN, LABEL_VALUES
from aiene.device import resolve_device
from aiene.errors import ModelError, need
from aiene.geometry.grid import Grid, Volume
from aiene.geometry.resample import resample
from aiene.ingest.read import read_case

_BENIGN = {
    "LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "EnsureType", "CastToTyped", "ToTensord", "Compose",
}  # fmt: skip
_SHAPED = {"Orientationd", "Spacingd", "ScaleIntensityRanged", "NormalizeIntensityd"}
_SURE = 0.5


@dataclass(frozen=True)
class Recipe:
    """What a bundle does to a CT before its network, and how it is tiled.

    Parameters
    ----------
    ras : it wants the axes as (left to right, back to front, foot to head), MONAI's RAS; the only other
        reading is the file's own.
    pixdim : mm along its three axes; None: the CT's own.
    intensity : steps on the values, in order, by name with their numbers.
    roi : tile of the sliding window; None: the whole volume.
    overlap : of two tiles.
    """

    ras: bool
    pixdim: tuple[float, float, float] | None
    intensity: tuple[tuple[str, dict[str, Any]], ...]
    roi: tuple[int, int, int] | None
    overlap: float


@dataclass(frozen=True, eq=False)
class _Input:
    ct: Volume
    grid: Grid
    view: AxialView
    tensor: Any


class MonaiComparator:
    """A network of a MONAI bundle's folder that is loaded.

    Raises
    ------
    ModelError : its configuration asks for more than is read here, its weights cannot be used, or nobody says
        which of its classes are GTVp and GTVn.
    MissingExtraError : MONAI is not installed.
    """

    def __init__(self, request: Request) -> None:
        folder = request.folder or hub.model_folder(request.entry.source)
        config = hub.read_json(folder / "configs", "inference.json")
        if not config:
            raise ModelError(folder, "no configs/inference.json in it", "name a MONAI bundle's folder")
        network = build_network(folder, config)
        weights = _load_weights(folder, network)
        metadata = hub.read_json(folder / "configs", "metadata.json")
        self._classes: dict[int, str] = dict(request.entry.label_map or channel_names(metadata))
        if not self._classes:
            problem = "it is not stated which of its classes are GTVp and GTVn"
            remedy = "give `label_map` for it in the configuration, such as {1: GTVn}"
            raise ModelError(folder, problem, remedy)
        said = ("nodes are connected parts of its GTVn",)
        self.facts = hub.weights_facts("monai", [weights], [network], segments=True, said=said)
        self._recipe = read_recipe(folder, config)
        self._device = resolve_device(request.device)
        self._network = network.eval().to(self._device)

    def load(self, case: CaseInput) -> Volume:
        """Read the CT."""
        return read_case(case.case).volume

    def preprocess(self, loaded: Volume) -> _Input:
        """Resample, turn and scale as the bundle's configuration says."""
        import torch

        recipe, view = self._recipe, AxialView.of(loaded.grid)
        pixdim = recipe.pixdim
        grid = loaded.grid if pixdim is None else spaced(loaded.grid, view, pixdim)
        volume = loaded if grid is loaded.grid else resample(loaded, grid, order=1, outside=-1024.0)
        turned = to_monai(volume.array, view) if recipe.ras else volume.array.transpose(2, 1, 0)
        values = scaled(np.ascontiguousarray(turned, dtype=np.float32), recipe.intensity)
        return _Input(loaded, grid, view, torch.from_numpy(values)[None, None])

    def infer(self, prepared: _Input) -> tuple[_Input, Any]:
        """Class probabilities (classes, ...) in the bundle's own axes."""
        import torch
        from monai.inferers import sliding_window_inference

        with torch.inference_mode():
            tensor = prepared.tensor.to(self._device)
            roi = self._recipe.roi or tuple(tensor.shape[2:])
            logits = sliding_window_inference(
                tensor, roi, 1, self._network, overlap=self._recipe.overlap, mode="gaussian"
            )[0].float()
            odds = logits.sigmoid() if logits.shape[0] == 1 else logits.softmax(dim=0)
        return prepared, odds.cpu()

    def answer(self, inferred: tuple[_Input, Any]) -> Answer:
        """The likeliest class of each voxel of the CT."""
        at, odds = inferred
        values = np.zeros(tuple(odds.shape[1:]), np.uint8)
        best = (odds[0] > _SURE).numpy() if odds.shape[0] == 1 else odds.argmax(dim=0).numpy()
        sure = np.zeros(values.shape, np.float32)
        for number, name in self._classes.items():
            values[best == number] = LABEL_VALUES[name]
            if name == GTVN:
                sure += odds[0 if odds.shape[0] == 1 else number].numpy()
        home = [self._home(array, at) for array in (values, sure)]
        return answer_of_classes(at.ct, home[0].astype(np.uint8), home[1].astype(np.float32))

    def _home(self, array: Any, at: _Input) -> Any:
        back = from_monai(array, at.view) if self._recipe.ras else array.transpose(2, 1, 0)
        volume = Volume(np.ascontiguousarray(back), at.grid)
        if at.grid is at.ct.grid:
            return volume.array
        order: Any = 0 if array.dtype == np.uint8 else 1
        return resample(volume, at.ct.grid, order=order, outside=0).array


def build_network(folder: Path, config: dict[str, Any]) -> Any:
    """The network that `network_def` names, with fresh weights.

    Raises
    ------
    ModelError : it is none of `monai.networks.nets`, or its arguments are not plain.
    """
    nets = need("monai.networks.nets", extra="benchmark", purpose="A MONAI bundle")
    definition = config.get("network_def")
    if not isinstance(definition, dict):
        raise ModelError(
            folder, "its configuration has no network_def", "give a bundle that names its network"
        )
    name = str(definition.get("_target_", "")).removeprefix("monai.networks.nets.").split(".")[-1]
    target = str(definition.get("_target_", ""))
    known = getattr(nets, name, None)
    if target not in (name, f"monai.networks.nets.{name}", f"monai.networks.nets.{name.lower()}.{name}"):
        known = None
    if not isinstance(known, type):
        raise ModelError(
            folder, f"its network {target} is not one of MONAI's own", "its code is not run here"
        )
    arguments = {key: plain(folder, config, value) for key, value in definition.items() if key[:1] != "_"}
    try:
        return known(**arguments)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(folder, f"MONAI cannot build its {name}", "check network_def") from error


def plain(folder: Path, config: dict[str, Any], value: Any, depth: int = 0) -> Any:
    """A value of the configuration, with its references (`@key`) followed.

    Raises
    ------
    ModelError : it holds an expression (`$`), a macro (`%`), an object to be built, or a reference that leads
        nowhere.
    """
    if isinstance(value, list):
        return [plain(folder, config, item, depth) for item in value]
    if isinstance(value, dict):
        if "_target_" in value:
            raise ModelError(folder, f"it asks for {value['_target_']} to be built", "code is not run here")
        return {key: plain(folder, config, item, depth) for key, item in value.items()}
    if isinstance(value, str) and value[:1] in "$%" and value:
        raise ModelError(folder, "its configuration holds an expression to be run", "write the value itself")
    if isinstance(value, str) and value.startswith("@"):
        at: Any = config
        for key in re.split(r"::|#", value[1:]):
            at = at.get(key) if isinstance(at, dict) else None
        if at is None or depth > 8:
            raise ModelError(
                folder, f"the reference {value} in it leads nowhere", "download the bundle again"
            )
        return plain(folder, config, at, depth + 1)
    return value


def read_recipe(folder: Path, config: dict[str, Any]) -> Recipe:
    """The bundle's `preprocessing` and `inferer`, as far as they are plain.

    Raises
    ------
    ModelError : a step that is not known here.
    """
    ras, pixdim, intensity = False, None, []
    for step in _steps(folder, config):
        name = str(step.get("_target_", "")).split(".")[-1]
        if name in _BENIGN or step.get("_disabled_") is True:
            continue
        if name not in _SHAPED:
            problem = f"its preparation has the step {name}, which is not known here"
            raise ModelError(folder, problem, "run it with MONAI, and give its predictions as a folder")
        said = {key: plain(folder, config, value) for key, value in step.items() if key[:1] != "_"}
        if name == "Orientationd":
            ras = said.get("axcodes") == "RAS"
            if not ras:
                problem = f"it asks for the axes {said.get('axcodes')}; only RAS is known here"
                raise ModelError(folder, problem, "run it with MONAI, and give its predictions as a folder")
        elif name == "Spacingd":
            pixdim = _three(folder, "pixdim", said.get("pixdim"), float)
        else:
            intensity.append((name, said))
    inferer = config.get("inferer")
    tiling = inferer if isinstance(inferer, dict) else {}
    roi = plain(folder, config, tiling.get("roi_size"))
    overlap = plain(folder, config, tiling.get("overlap", 0.25))
    return Recipe(
        ras,
        pixdim,
        tuple(intensity),
        None if roi is None else _three(folder, "roi_size", roi, int),
        float(overlap) if isinstance(overlap, (int, float)) and 0 <= overlap < 1 else 0.25,
    )


def spaced(grid: Grid, view: AxialView, pixdim: tuple[float, float, float]) -> Grid:
    """The same room at other steps, given along the patient's x, y and z; at least one voxel an axis."""
    wanted = dict(zip(view.order, pixdim[::-1], strict=True))
    spacing = tuple(float(wanted[axis]) for axis in range(3))
    sizes = np.maximum(1, np.round((np.array(grid.size) - 1) * grid.spacing / np.array(spacing)) + 1)
    return Grid(tuple(int(n) for n in sizes), spacing, grid.origin, grid.direction)  # type: ignore[arg-type]


def to_monai(array: Any, view: AxialView) -> Any:
    """An array of the grid in MONAI's order: x rising to the right, y to the front, z to the head."""
    return view.turn(array)[:, ::-1, ::-1].transpose(2, 1, 0)


def from_monai(array: Any, view: AxialView) -> Any:
    """The opposite of `to_monai`."""
    return view.back(array.transpose(2, 1, 0)[:, ::-1, ::-1])


def scaled(values: Any, steps: tuple[tuple[str, dict[str, Any]], ...]) -> Any:
    """The values after the bundle's intensity steps, as MONAI defines them."""
    for name, said in steps:
        if name == "ScaleIntensityRanged":
            low, high = float(said["a_min"]), float(said["a_max"])
            first, last = float(said.get("b_min", 0.0)), float(said.get("b_max", 1.0))
            values = (values - low) / (high - low) * (last - first) + first
            values = np.clip(values, first, last) if said.get("clip") else values
        else:
            part = values[values != 0] if said.get("nonzero") else values
            less, by = said.get("subtrahend"), said.get("divisor")
            less = float(part.mean()) if less is None else float(less)
            by = (float(part.std()) if by is None else float(by)) or 1.0
            changed = (values - less) / by
            values = np.where(values != 0, changed, values) if said.get("nonzero") else changed
    return np.ascontiguousarray(values, dtype=np.float32)


def channel_names(metadata: dict[str, Any]) -> dict[int, Any]:
    """The classes that the bundle's metadata calls GTVp or GTVn."""
    try:
        return named_classes(metadata["network_data_format"]["outputs"]["pred"]["channel_def"])
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def _load_weights(folder: Path, network: Any) -> Path:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    models = folder / "models"
    file = next((f for f in (models / "model.safetensors", models / "model.pt") if f.is_file()), None)
    if file is None:
        scripted = (models / "model.ts").is_file()
        problem = (
            "its only weights are TorchScript, which is a program" if scripted else "no weights in models/"
        )
        raise ModelError(folder, problem, "give models/model.safetensors or a state dict as models/model.pt")
    try:
        if file.suffix == ".safetensors":
            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
            state = state.get("model", state) if isinstance(state, dict) else state
        network.load_state_dict(state)
    except (OSError, RuntimeError, SafetensorError, EOFError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            file, "these weights do not fit its network, or cannot be read", "check them"
        ) from error
    except UnpicklingError as error:
        raise ModelError(file, "it is a pickle that could run code", "convert it to safetensors") from error
    return file


def _steps(folder: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    chain = config.get("preprocessing")
    listed = chain.get("transforms") if isinstance(chain, dict) else []
    if isinstance(listed, str) and listed.startswith("@"):
        listed = config.get(listed[1:].split("#")[0].split("::")[0], [])
    if not isinstance(listed, list) or not all(isinstance(step, dict) for step in listed):
        raise ModelError(folder, "its preprocessing is not a list of steps", "check configs/inference.json")
    return list(listed)


def _three(folder: Path, name: str, value: Any, kind: type) -> Any:
    numbers = value if isinstance(value, list) else [value] * 3
    if len(numbers) != 3 or not all(isinstance(n, (int, float)) and n > 0 for n in numbers):
        raise ModelError(
            folder, f"its {name} is {json.dumps(value)[:60]}, not three numbers over 0", "check it"
        )
    return tuple(kind(n) for n in numbers)


ADAPTERS = (Adapter("monai", "MONAI bundle", MonaiComparator),)
