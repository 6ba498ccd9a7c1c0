"""What computes the segmenter's networks: `exact`, as they were trained, or `fast`, in half the digits.

`exact` is PyTorch in float32 and the only one whose label maps are compared with the published method's.
`fast` takes the quickest that this machine offers and that passes a test against `exact`; what it changes is
measured over real CTs (docs/clusters.md). The classifier is exact in both.
"""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from aiene.errors import MissingExtraError, Said, need, ours, said
from aiene.segment.network import answer

log = logging.getLogger(__name__)

Grade = Literal["exact", "fast"]
Answer = Callable[[torch.Tensor], torch.Tensor]
"""Logits float32 (1, classes, *patch) of a tile float32 (1, 1, *patch)."""

_MOST_APART: Final = 0.1
"""Largest root mean square of the differences from the exact logits, as a share of theirs: bfloat16 lies at
about 0.02, a kernel that computes something else at about 1."""


@dataclass(frozen=True)
class Engine:
    """The networks of a segmenter, ready to answer.

    Parameters
    ----------
    name : what computes, and in which numbers.
    answers : one a network, in their order.
    exact : label maps are those of the published method.
    """

    name: str
    answers: tuple[Answer, ...]
    exact: bool = True

    @property
    def notes(self) -> tuple[Said, ...]:
        """What the result of a case says of it."""
        return () if self.exact else (said("segmented with --engine fast ({})", ours(self.name)),)


def exact_engine(networks: Sequence[nn.Module]) -> Engine:
    """PyTorch in float32."""
    return Engine("torch float32", tuple(partial(answer, network) for network in networks))


def fast_engine(networks: Sequence[nn.Module], patch: tuple[int, int, int], device: torch.device) -> Engine:
    """The quickest engine that this machine offers and that answers as the exact one does, but for rounding.

    Parameters
    ----------
    networks : in evaluation mode, on `device`.
    patch : voxels of a tile, (z, y, x).

    Returns
    -------
    The exact engine where nothing quicker is offered, or nothing passes.
    """
    exact = exact_engine(networks)
    tile = _probe(patch).to(device)
    with torch.inference_mode():
        expected = exact.answers[0](tile)
        for name, make in offered(device):
            try:
                answers = tuple(make(network, patch) for network in networks)
                apart = _apart(answers[0](tile), expected)
            except RuntimeError as error:  # an operation that it does not have, or not on this processor
                log.warning("%s cannot run this network (%s)", name, str(error).splitlines()[0])
                continue
            if apart <= _MOST_APART:
                return Engine(name, answers, exact=False)
            log.warning("%s gave a wrong answer in the check and is not used", name)
    return exact


def fastest_here(device: torch.device) -> str:
    """Name of what `--engine fast` would try first; `torch float32` where it would change nothing."""
    return next((name for name, _ in offered(device)), "torch float32")


Make = Callable[[nn.Module, tuple[int, int, int]], Answer]


def offered(device: torch.device) -> Iterator[tuple[str, Make]]:
    """Names of the engines beside the exact one, quickest first (`python -m tools.measurements.engines`)."""
    if device.type != "cpu":
        if bfloat16_pays(device):
            yield "torch bfloat16", _in_bfloat16
        return
    openvino = _openvino()
    halves = openvino is not None and "BF16" in openvino.Core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    )
    if halves:
        yield "openvino bfloat16", partial(_by_openvino, "bf16")
    if bfloat16_pays(device):
        yield "torch bfloat16", _in_bfloat16
    if openvino is not None:
        yield "openvino float32", partial(_by_openvino, "f32")


def bfloat16_pays(device: torch.device) -> bool:
    """Whether PyTorch's bfloat16 is quicker there than its float32.

    A processor without AMX takes 2.4 times as long for a training step in it (Ice Lake, one thread).
    """
    if device.type == "cpu":
        return torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def _in_bfloat16(network: nn.Module, patch: tuple[int, int, int]) -> Answer:
    """Convolutions in bfloat16, weights and sums of the norms as PyTorch's autocast keeps them."""
    del patch
    last = copy.deepcopy(network).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def run(tile: torch.Tensor) -> torch.Tensor:
        with torch.autocast(tile.device.type, torch.bfloat16):
            return answer(last, tile.contiguous(memory_format=torch.channels_last_3d)).float()

    return run


def _openvino() -> Any:
    """OpenVINO, or None. It is kept from reporting its use to its makers, which it does by itself."""
    try:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        return need("openvino", extra="fast", purpose="--engine fast")
    except MissingExtraError:
        return None


def _by_openvino(precision: str, network: nn.Module, patch: tuple[int, int, int]) -> Answer:
    openvino = _openvino()
    strides = np.prod(np.array(network.encoder.strides), axis=0)  # type: ignore[union-attr]
    traced = [min(size, 2 * int(stride)) for size, stride in zip(patch, strides, strict=True)]
    with warnings.catch_warnings():  # of the tracing, which sees fixed sizes, as is meant
        warnings.simplefilter("ignore")
        model = openvino.convert_model(network, example_input=torch.zeros((1, 1, *traced)))
    model.reshape([1, 1, *patch])
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }
    compiled = openvino.Core().compile_model(model, "CPU", options)

    def run(tile: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(compiled(np.ascontiguousarray(tile.numpy()))[0].copy())

    return run


def _probe(patch: tuple[int, int, int]) -> torch.Tensor:
    """A tile with structure at some voxels' scale, always the same; (1, 1, *patch) float32."""
    noise = np.random.default_rng(0).normal(size=patch)
    smooth = ndimage.gaussian_filter(noise, 2.0)
    return torch.from_numpy((smooth / smooth.std()).astype(np.float32))[None, None]


def _apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the differences as a share of the expected values'; infinite where not finite."""
    apart = float(((found - expected).square().mean() / expected.square().mean().clamp_min(1e-12)).sqrt())
    return apart if np.isfinite(apart) else float("inf")
