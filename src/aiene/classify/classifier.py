"""Nodes go in, their probabilities come out: what the classifier sees of a node, its files, and its answers.

It sees the box around a node, and the node alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor
from torch.nn.utils import convert_conv3d_weight_memory_format

from aiene.classify.dualnet import BOX_SIZE, SMALL_SIZE, DualNet, DualNetWidths
from aiene.errors import ModelError, OutputError, joined, library_reason, ours, said
from aiene.geometry.grid import Volume, bounding_box
from aiene.models.bundle import Bundle
from aiene.nodes.node import Node, Score

Normalisation = Literal["legacy", "zscore", "none"]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_OUTSIDE = -1024.0  # the published padding; the mask makes it 0 again


class ClassifierInputs(NamedTuple):
    """One node, ready for the network.

    Parameters
    ----------
    box : float32 (32, 118, 118), the node in its place at the crop's spacing.
    small : float32 (32, 32, 32), the node's bounding box stretched to the full size.
    """

    box: FloatArray
    small: FloatArray


def classifier_inputs(
    crop: npt.NDArray[np.floating], dilated_mask: BoolArray, normalisation: Normalisation
) -> ClassifierInputs | None:
    """The two inputs of the classifier for one node, as the published code makes them.

    Parameters
    ----------
    crop : float (z, y, x), HU scaled to [0, 1], padding -1024.
    dilated_mask : bool of the same shape: the node and 4 voxels around it in plane, at least one voxel.
    normalisation : `legacy`, `zscore` or `none`, of each input by itself, background included.

    Returns
    -------
    The inputs; None where no voxel under the mask is above the window's lower end (air or nothing but the
    outside of the CT), so that there is nothing to classify. The published code stops there with an error.

    Raises
    ------
    ValueError : shapes that differ, or an empty mask.
    """
    if crop.shape != dilated_mask.shape or not dilated_mask.any():
        raise ValueError(f"a mask of shape {dilated_mask.shape} on a crop of {crop.shape}, or an empty one")
    image, mask = _box_around(crop.astype(np.float32, copy=False), dilated_mask)
    box = image * mask
    inside = bounding_box(box != 0)
    if inside is None:
        return None
    small = _stretched(image[inside], mask[inside])
    return ClassifierInputs(_NORMALISE[normalisation](box), _NORMALISE[normalisation](small))


def _box_around(crop: FloatArray, mask: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Image and mask in the box; its centre is the middle of the mask's bounding box, cut to an integer."""
    image = np.full(BOX_SIZE, _OUTSIDE, dtype=np.float32)
    cut = np.zeros(BOX_SIZE, dtype=np.float32)
    spans = bounding_box(mask)
    if spans is None:
        return image, cut
    source, target = [], []
    for span, size, limit in zip(spans, BOX_SIZE, crop.shape, strict=True):
        start = (span.start + span.stop - 1) // 2 - size // 2
        first, last = max(start, 0), min(start + size, limit)
        source.append(slice(first, last))
        target.append(slice(first - start, last - start))
    image[tuple(target)] = crop[tuple(source)]
    cut[tuple(target)] = mask[tuple(source)]
    return image, cut


def _stretched(image: FloatArray, mask: FloatArray) -> FloatArray:
    """Image (linear) times mask (nearest), both with their corner voxels on the corners of the result."""
    factors = [size / n for size, n in zip(SMALL_SIZE, image.shape, strict=True)]
    large = ndimage.zoom(image, factors, order=1, mode="constant")
    large_mask = ndimage.zoom(mask, factors, order=0, mode="nearest")
    return np.asarray(large * large_mask, dtype=np.float32)


def _zscore(array: FloatArray) -> FloatArray:
    """Mean and deviation of the voxels that are not 0, applied to all; background is not 0 any more.

    In float64: float32 sums would differ between processors.
    """
    values = array[array != 0].astype(np.float64)
    if values.size == 0:
        return array
    deviation = values.std()
    if deviation < 1e-6:
        deviation = 1.0
    return np.asarray(np.clip((array - values.mean()) / deviation, -5, 5), dtype=np.float32)


_NORMALISE: dict[Normalisation, Callable[[FloatArray], FloatArray]] = {
    "legacy": lambda array: np.minimum(array + np.float32(0.001), np.float32(1)),
    "zscore": _zscore,
    "none": lambda array: array,
}


# A classifier on disk: `config.json` (the widths) and `weights.safetensors`.


CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
_AGAIN = "download the model again"

_Width = Annotated[int, Field(ge=1, le=65536)]


class _Widths(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    box: Annotated[tuple[_Width, ...], Field(min_length=6, max_length=6)]
    box_dense: Annotated[tuple[_Width, ...], Field(min_length=2, max_length=2)]
    box_values: _Width
    small: Annotated[tuple[_Width, ...], Field(min_length=7, max_length=7)]
    head: _Width


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    architecture: Literal["DualNet"] = "DualNet"
    widths: _Widths


def save_classifier(folder: Path, net: DualNet, *, half: bool = False) -> None:
    """Write a network's widths and weights into a folder, which is made if needed.

    The normalisation of the inputs is not written here: it stands on the bundle's card.

    Parameters
    ----------
    folder : holds `config.json` and `weights.safetensors` afterwards.
    net : on any device.
    half : store kernels as float16 (half the size); batch-normalisation and biases stay float32.

    Raises
    ------
    ModelError : a weight that is not finite, or too large for float16.
    OutputError : the folder cannot be written.
    """
    state = {name: _stored(tensor, half) for name, tensor in net.state_dict().items()}
    _check_finite(folder / WEIGHTS, state)
    config = {"format": 1, "architecture": "DualNet", "widths": asdict(net.widths)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise OutputError(folder, "the classifier cannot be written there", "choose another place") from error


def load_dualnet(folder: Path) -> DualNet:
    """The network of a folder, in float32 on the CPU, in `eval` mode.

    Raises
    ------
    ModelError : a file that is missing or damaged, a layer that is missing, unknown or misshapen, or a weight
        that is not finite.
    """
    widths = _read_widths(folder / CONFIG)
    with torch.device("meta"):  # shapes without memory: the file brings the values
        net = DualNet(widths)
    file = folder / WEIGHTS
    state = _read_weights(file)
    _check_layers(file, state, net.state_dict())
    _check_finite(file, state)
    single = {name: kept.float() if kept.is_floating_point() else kept for name, kept in state.items()}
    net.load_state_dict(single, assign=True)
    return net.eval()


def _stored(tensor: Tensor, half: bool) -> Tensor:
    kernel = half and tensor.is_floating_point() and tensor.ndim > 1
    return tensor.detach().to("cpu", torch.float16 if kernel else tensor.dtype).contiguous()


def _read_widths(file: Path) -> DualNetWidths:
    try:
        config = _Config.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ModelError(file, "cannot be read", _AGAIN) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = joined(".", first["loc"]) or ours("the file")
        raise ModelError(
            file,
            said("no classifier's configuration: {}: {}", where, library_reason(error, first["msg"])),
            _AGAIN,
        ) from error
    return DualNetWidths(**config.widths.model_dump())


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(file, "cannot be read as weights (safetensors)", _AGAIN) from error
    return state


def _check_layers(file: Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    if missing := sorted(wanted.keys() - found.keys()):
        raise ModelError(file, said("layer {} is missing", missing[0]), _AGAIN)
    if unknown := sorted(found.keys() - wanted.keys()):
        raise ModelError(file, said("layer {} belongs to another network", unknown[0]), _AGAIN)
    for name, tensor in wanted.items():
        shape, kind = found[name].shape, found[name].is_floating_point()
        if shape != tensor.shape or kind != tensor.is_floating_point():
            problem = said("layer {} has shape {} instead of {}", name, tuple(shape), tuple(tensor.shape))
            raise ModelError(file, problem, _AGAIN)


def _check_finite(file: Path, state: dict[str, Tensor]) -> None:
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(
                file, said("layer {} holds values that are not finite", name), "take other weights"
            )


_MIRRORS = ((), (4,), (2,), (2, 4))
"""Axes of (n, 1, z, y, x) that are turned about, together."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network that is ready, and how its inputs are normalised.

    Parameters
    ----------
    net : in `eval` mode on `device`, float32.
    normalisation : of both inputs, as the weights expect.
    device : where it runs.
    mirroring : average the logits over each node's mirror images in x and z.
    """

    net: DualNet
    normalisation: Normalisation
    device: torch.device
    mirroring: bool = False

    def scores(self, crop: Volume, nodes: Sequence[Node]) -> list[Score | None]:
        """The probabilities of each node, in the order given.

        A node's result depends on nothing but its own inputs: on one kind of processor it has the same
        bits beside any other nodes and with any number of threads.

        Parameters
        ----------
        crop : float32, the networks' input.
        nodes : of this crop.

        Returns
        -------
        One for each node; None where there is nothing to classify (see `UNSCORED`).
        """
        inputs = [classifier_inputs(crop.array, node.dilated, self.normalisation) for node in nodes]
        rows = iter(self.probabilities([i for i in inputs if i is not None]).tolist())
        return [None if i is None else Score(*next(rows)) for i in inputs]

    def probabilities(self, inputs: Sequence[ClassifierInputs]) -> npt.NDArray[np.float64]:
        """Each node through the network: (n, 2), column 0 `pos`, column 1 `ene`.

        On a CPU nodes are computed side by side, each on one core: matrix products that share one node
        between threads, or batch it with others, sum in another order and move its last bit.
        """
        if not inputs:
            return np.zeros((0, 2))
        if self.device.type != "cpu":
            # TF32 would cost three decimal places; the fastest algorithm of the day would cost repeatability.
            with torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ):
                return np.stack([self._of(one) for one in inputs])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(min(threads, len(inputs))) as pool:
                return np.stack(list(pool.map(self._of, inputs)))
        finally:
            torch.set_num_threads(threads)

    def _of(self, inputs: ClassifierInputs) -> npt.NDArray[np.float64]:
        box, small = (torch.tensor(view, device=self.device)[None, None] for view in inputs)
        with torch.inference_mode():
            if not self.mirroring:
                probabilities: Tensor = self.net(box, small)
                return probabilities[0].cpu().double().numpy()
            logits = [self.net.logits(box.flip(axes), small.flip(axes)).double() for axes in _MIRRORS]
            return torch.sigmoid(torch.stack(logits).mean(0))[0].cpu().numpy()


def load_bundle_classifier(bundle: Bundle, device: torch.device | str) -> Classifier:
    """The classifier of a bundle, run as its card says.

    Raises
    ------
    ModelError : see `load_classifier`.
    """
    settings = bundle.card.classifier
    loaded = load_classifier(bundle.classifier_folder, normalisation=settings.normalisation, device=device)
    return replace(loaded, mirroring=settings.mirroring)


def load_classifier(folder: Path, *, normalisation: Normalisation, device: torch.device | str) -> Classifier:
    """The classifier of a bundle.

    Parameters
    ----------
    folder : with `config.json` and `weights.safetensors`, kernels in float32 or float16.
    normalisation : from the bundle's card.
    device : where it shall run, in float32 in any case.

    Raises
    ------
    ModelError : a file that is missing or damaged, a layer that is missing or misshapen.
    """
    place = torch.device(device)
    net = load_dualnet(folder).to(place)
    if place.type == "cpu":
        # Channels last in memory: the same numbers, with a third less computing time.
        net = convert_conv3d_weight_memory_format(net, torch.channels_last_3d)
    return Classifier(net, normalisation, place)
