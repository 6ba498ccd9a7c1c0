"""From a plan and a state dict to a network; only the classes named here can be built."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from aiene.errors import ModelError, Said, joined, ours, said
from aiene.segment.plans import REMEDY, Plan

_HOME = "dynamic_network_architectures.architectures"

_NETWORKS: dict[str, type[nn.Module]] = {
    f"{_HOME}.unet.PlainConvUNet": PlainConvUNet,
    f"{_HOME}.unet.ResidualEncoderUNet": ResidualEncoderUNet,
    f"{_HOME}.residual_unet.ResidualEncoderUNet": ResidualEncoderUNet,
}

_PARTS: dict[str, type[nn.Module]] = {
    "torch.nn.modules.conv.Conv3d": nn.Conv3d,
    "torch.nn.modules.instancenorm.InstanceNorm3d": nn.InstanceNorm3d,
    "torch.nn.modules.batchnorm.BatchNorm3d": nn.BatchNorm3d,
    "torch.nn.modules.dropout.Dropout3d": nn.Dropout3d,
    "torch.nn.modules.activation.LeakyReLU": nn.LeakyReLU,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.Conv3d": nn.Conv3d,
    "torch.nn.InstanceNorm3d": nn.InstanceNorm3d,
    "torch.nn.BatchNorm3d": nn.BatchNorm3d,
    "torch.nn.Dropout3d": nn.Dropout3d,
    "torch.nn.LeakyReLU": nn.LeakyReLU,
    "torch.nn.ReLU": nn.ReLU,
    "dynamic_network_architectures.building_blocks.residual.BasicBlockD": BasicBlockD,
    "dynamic_network_architectures.building_blocks.residual.BottleneckD": BottleneckD,
}

_BY_NAME = ("conv_op", "norm_op", "dropout_op", "nonlin", "block")
_PLAIN = (
    "n_stages",
    "features_per_stage",
    "kernel_sizes",
    "strides",
    "n_conv_per_stage",
    "n_blocks_per_stage",
    "n_conv_per_stage_decoder",
    "conv_bias",
    "norm_op_kwargs",
    "dropout_op_kwargs",
    "nonlin_kwargs",
    "nonlin_first",
    "bottleneck_channels",
    "stem_channels",
)
_MOST = 64
_SMALL = 20480
"""Channels x slices x rows up to which torch computes a convolution as one matrix product, which threads
divide along its sums (ATen's `ConvParams::use_mkldnn`; kernels of one voxel go by the number of threads)."""


def build_network(file: Path, plan: Plan, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network of a plan with these weights, ready for inference.

    The weights are taken over, not copied. Convolutions whose outer planes are all zero (a v1 network in v2's
    layout has such) are cut down to what counts: the same numbers in less time.

    Parameters
    ----------
    file : where the weights come from, for messages.
    plan : the plan.
    tensors : nnU-Net v2's `network_weights`.

    Raises
    ------
    ModelError : an architecture that is unknown or contradicts itself, or weights that are missing, left over
        or of another shape.
    """
    network = empty_network(plan)
    _compare(file, plan, network.state_dict(), tensors)
    network.load_state_dict(dict(tensors), assign=True)
    network.requires_grad_(False).eval()
    _cut_zero_planes(network)
    _fix_sums(network)
    return network


def empty_network(plan: Plan) -> nn.Module:
    """The network of a plan on torch's meta device: names and shapes without numbers."""
    name = plan.architecture.network_class_name
    if name not in _NETWORKS:
        raise ModelError(plan.file, said("its network {} is not known here", name), REMEDY)
    arguments = {
        key: _argument(plan.file, key, value) for key, value in plan.architecture.arch_kwargs.items()
    }
    try:
        with torch.device("meta"):
            network = _NETWORKS[name](
                input_channels=1, num_classes=plan.classes, deep_supervision=False, **arguments
            )
        with _SizesAlone():  # do they fit each other?
            answer(network.eval(), torch.empty((1, 1, *plan.patch), device="meta"))
    except (TypeError, ValueError, LookupError, RuntimeError, AssertionError, AttributeError) as error:
        problem = "its architecture block describes no network that fits its patch"
        raise ModelError(plan.file, problem, REMEDY) from error
    return network


_KEEPS_SIZE = (functional.instance_norm, functional.batch_norm, functional.leaky_relu, functional.relu)


class _SizesAlone(TorchFunctionMode):
    """A pass on torch's meta device with the frequent layers by their sizes.

    Torch's own meta kernels are written in Python and load its compiler: a second of each process.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv3d:
            return _convolved(*args)
        if func is torch.conv_transpose3d:
            return _upsampled(*args)
        if func is torch.cat and len({part.shape[2:] for part in args[0]}) == 1:
            return _of_size(sum(part.shape[1] for part in args[0]), args[0][0].shape[2:])
        if func in _KEEPS_SIZE:
            if kwargs.get("use_input_stats") and args[0].shape[2:].numel() == 1:
                raise ValueError("one voxel has no standard deviation")
            return args[0]
        if func is torch.Tensor.__iadd__ and args[0].shape == args[1].shape:
            return args[0]
        return func(*args, **kwargs)


def _convolved(
    image: torch.Tensor,
    weight: torch.Tensor,
    _bias: torch.Tensor | None,
    strides: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> torch.Tensor:
    if image.shape[1] != weight.shape[1] * groups or min(strides) < 1:
        raise ValueError(f"channels {image.shape[1]}, weight {tuple(weight.shape)}, strides {strides}")
    sizes = zip(image.shape[2:], weight.shape[2:], strides, padding, dilation, strict=True)
    return _of_size(weight.shape[0], [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes])


def _upsampled(
    image: torch.Tensor,
    weight: torch.Tensor,
    _bias: torch.Tensor | None,
    strides: tuple[int, ...],
    padding: tuple[int, ...],
    added: tuple[int, ...],
    groups: int,
    dilation: tuple[int, ...],
) -> torch.Tensor:
    if image.shape[1] != weight.shape[0] or min(strides) < 1:
        raise ValueError(f"channels {image.shape[1]}, weight {tuple(weight.shape)}, strides {strides}")
    sizes = zip(image.shape[2:], weight.shape[2:], strides, padding, added, dilation, strict=True)
    shape = [(n - 1) * s - 2 * p + d * (k - 1) + more + 1 for n, k, s, p, more, d in sizes]
    return _of_size(weight.shape[1] * groups, shape)


def _of_size(channels: int, shape: Sequence[int]) -> torch.Tensor:
    if min(shape) < 1:
        raise ValueError(f"nothing is left: {shape}")
    return torch.empty((1, channels, *shape), device="meta")


def answer(network: nn.Module, tile: torch.Tensor) -> torch.Tensor:
    """Logits (1, classes, z, y, x) on a tile (1, 1, z, y, x): to the bit those of `network(tile)`.

    Each level's features are let go as soon as they have been used, which saves a quarter of the memory.
    """
    decoder: Any = network.decoder
    encoder: Any = network.encoder
    skips = encoder(tile)
    image: torch.Tensor = skips.pop()
    for upsample, stage in zip(decoder.transpconvs, decoder.stages, strict=True):
        image = torch.cat((upsample(image), skips.pop()), 1)
        for block in stage.convs:
            image = block(image)
    logits: torch.Tensor = decoder.seg_layers[-1](image)
    return logits


def softmax(logits: torch.Tensor) -> torch.Tensor:
    """Over axis 0, by one thread: where threads divide the voxels, the ends of shares have another `exp`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return torch.softmax(logits, 0)
    finally:
        torch.set_num_threads(threads)


def _argument(file: Path, key: str, value: Any) -> Any:
    if key in _PLAIN:
        if key.startswith("n_") and not _few(value):
            raise ModelError(file, said("its {} is not a plausible number", key), REMEDY)
        return value
    if key in _BY_NAME:
        if value is None:
            return None
        if isinstance(value, str) and value in _PARTS:
            return _PARTS[value]
        raise ModelError(file, said("its {} {} is not known here", key, value), REMEDY)
    raise ModelError(file, said("its architecture has an unknown argument {}", key), REMEDY)


def _few(value: Any) -> bool:
    """Numbers of stages, blocks or convolutions: few enough that building them ends."""
    counts = value if isinstance(value, list) else [value]
    return len(counts) <= _MOST and all(isinstance(n, int) and 0 < n <= _MOST for n in counts)


def _compare(
    file: Path, plan: Plan, expected: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]
) -> None:
    for problem, names in (
        ("lacks the weights", sorted(expected.keys() - given.keys())),
        ("has weights that the network does not know", sorted(given.keys() - expected.keys())),
        (
            "has weights of another shape",
            [n for n in expected if n in given and given[n].shape != expected[n].shape],
        ),
    ):
        if names:
            more = said(" and {} more", len(names) - 3) if len(names) > 3 else said("")
            shown = said("{}: {}{}", ours(problem), joined(", ", names[:3]), more)
            answers = given.get(names[0], torch.empty(0)).shape[:1]
            if names[0].startswith("decoder.seg_layers.") and answers and answers[0] != plan.classes:
                shown = said(
                    "{} (it answers for {} classes, dataset.json has {} labels)",
                    shown,
                    answers[0],
                    plan.classes,
                )
            raise ModelError(file, shown, REMEDY)


def _cut_zero_planes(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            for axis in range(3):
                _cut_axis(module, axis)


def _cut_axis(conv: nn.Conv3d, axis: int) -> None:
    size = conv.kernel_size[axis]
    centred = conv.padding != "same" and size % 2 == 1 and conv.padding[axis] == size // 2
    while size > 1 and centred and conv.dilation[axis] == 1:
        outer = conv.weight.index_select(axis + 2, torch.tensor([0, size - 1]))
        if outer.any():
            return
        conv.weight = nn.Parameter(
            conv.weight.narrow(axis + 2, 1, size - 2).contiguous(), requires_grad=False
        )
        size -= 2
        conv.kernel_size = _with(conv.kernel_size, axis, size)
        conv.padding = _with(conv.padding, axis, size // 2)


def _fix_sums(network: nn.Module) -> None:
    """Have the answer the same bits at any number of threads: what would sum in another order uses one.

    These are the deepest levels and the last layer, some hundredths of the work.
    """
    before: list[int] = []

    def alone(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        single = module.kernel_size == (1, 1, 1)
        before.append(torch.get_num_threads())
        if given[0].device.type == "cpu" and (single or given[0].shape[:4].numel() <= _SMALL):
            torch.set_num_threads(1)

    def back(*_: object) -> None:
        if torch.get_num_threads() != (threads := before.pop()):
            torch.set_num_threads(threads)

    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.register_forward_pre_hook(alone)
            module.register_forward_hook(back, always_call=True)


def _with(values: Any, axis: int, value: int) -> tuple[int, ...]:
    return tuple(value if i == axis else int(v) for i, v in enumerate(values))


# Reading PyTorch checkpoints of strangers: tensors and plain values come in, nothing is run.


CHECKPOINT_REMEDY = "get the file again from a source that you trust"

_SCALAR = np.float64(0).__reduce__()[0]
_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_DTYPES = (np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.uint8, np.int8, np.bool_)

NUMPY_GLOBALS: dict[str, Any] = {
    "numpy.dtype": np.dtype,
    "numpy.ndarray": np.ndarray,
    "numpy.core.multiarray.scalar": _SCALAR,
    "numpy.core.multiarray._reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray.scalar": _SCALAR,
    "numpy._core.multiarray._reconstruct": _RECONSTRUCT,
}
"""What numpy arrays and scalars need when they are unpickled, under numpy 1's and numpy 2's names."""


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A PyTorch checkpoint (zip or the older format), on the CPU, by the weights-only loader.

    Numpy scalars and arrays, which training histories hold, are allowed besides tensors and plain values.

    Raises
    ------
    ModelError : not readable, damaged, or it refers to anything else: nothing of that is run.
    """
    try:
        with file.open("rb") as stream:
            content = _load(stream)
    except OSError as error:
        raise ModelError(file, "cannot be read, or is damaged", CHECKPOINT_REMEDY) from error
    except pickle.UnpicklingError as error:
        raise ModelError(file, _refusal(error), CHECKPOINT_REMEDY) from error
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, MemoryError) as error:
        raise ModelError(file, "is not a PyTorch checkpoint, or is damaged", CHECKPOINT_REMEDY) from error
    if not isinstance(content, dict):
        raise ModelError(file, "holds no dictionary of weights", CHECKPOINT_REMEDY)
    return content


def _load(stream: IO[bytes]) -> Any:
    allowed: list[Any] = [(value, name) for name, value in NUMPY_GLOBALS.items()]
    allowed += [type(np.dtype(kind)) for kind in _DTYPES]
    with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")  # on its own old formats
        return torch.load(stream, map_location="cpu", weights_only=True)


def tensors_of(file: Path, content: Any) -> dict[str, torch.Tensor]:
    """Named tensors as float32, without the prefixes that parallel or compiled training leaves.

    Raises
    ------
    ModelError : something in it is not a tensor, or holds values that are not numbers.
    """
    if not isinstance(content, dict) or not content:
        raise ModelError(file, "holds no weights", CHECKPOINT_REMEDY)
    named: dict[str, torch.Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ModelError(file, said("its weight {!r} is not a tensor", name), CHECKPOINT_REMEDY)
        if not torch.isfinite(value).all():
            raise ModelError(
                file, said("its weight {} holds values that are not numbers", name), CHECKPOINT_REMEDY
            )
        floating = value.float() if value.is_floating_point() else value
        named[re.sub(r"^(module\.|_orig_mod\.)+", "", name)] = floating
    return named


def _refusal(refused: pickle.UnpicklingError) -> Said:
    found = re.search(r"(?:GLOBAL|global:?|function) [`'\"]?([\w.]+\.[\w.]+)", str(refused))
    if found:
        return said("refers to {}, which is not a weight, and was not opened", found.group(1))
    return ours("is not a PyTorch checkpoint, or holds more than weights, and was not opened")
