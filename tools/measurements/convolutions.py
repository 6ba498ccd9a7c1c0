"""The segmenter's time against its convolutions alone: how near it is to what this processor can do.

    OMP_NUM_THREADS=1 python -m tools.measurements.convolutions [--template TEMPLATE.nrrd] [--repeats 3]

Runs one pass of each segmenter (of the default bundle; with a template also one of the published size, random
weights) on a crop of its patch, and `torch.nn.functional.conv3d` and `conv_transpose3d` with the weights and
on the shapes that the pass showed, in turn. Processor seconds of one core, the least of the repeats, since
other work on the machine only adds. Writes `results/convolutions.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aiene.device import keep_freed_memory
from aiene.models.bundle import Bundle, find_bundle
from aiene.pipeline import load_networks
from tools.measurements.published_size import make_bundle

RESULTS = Path(__file__).parent / "results" / "convolutions.json"
Convolution = nn.Conv3d | nn.ConvTranspose3d


@dataclass(frozen=True)
class Call:
    """One convolution of a pass, the shape of what it was given, and its multiplications."""

    module: Convolution
    shape: torch.Size
    multiplications: int

    def __call__(self, given: torch.Tensor) -> torch.Tensor:
        """The convolution alone, by torch's function."""
        m = self.module
        padding = [int(n) for n in m.padding]
        if isinstance(m, nn.ConvTranspose3d):
            return nn.functional.conv_transpose3d(
                given, m.weight, m.bias, m.stride, padding, m.output_padding, m.groups, m.dilation
            )
        return nn.functional.conv3d(given, m.weight, m.bias, m.stride, padding, m.dilation, m.groups)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--template", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    words = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = {"default": measured(find_bundle("default"), words.repeats)}
    if words.template is not None:
        with tempfile.TemporaryDirectory() as folder:
            rows["published size"] = measured(make_bundle(Path(folder) / "b", words.template), words.repeats)
    facts = {"torch": torch.__version__, "processor": torch.backends.cpu.get_cpu_capability()}
    RESULTS.write_text(json.dumps({**facts, "networks": rows}, indent=1) + "\n")


def measured(bundle: Bundle, repeats: int) -> dict[str, Any]:
    """Seconds of one pass and of its convolutions."""
    segmenter = load_networks(bundle, torch.device("cpu"), own_masks=False).segmenter
    if segmenter is None:
        raise ValueError("no segmenter")
    network = segmenter.networks[0]
    image = torch.rand(1, 1, *segmenter.plan.patch)
    with torch.inference_mode():
        calls = calls_of(network, image)
        inputs = {call.shape: torch.rand(call.shape) for call in calls}
        passes, alone = [], []
        for _ in range(repeats):
            passes.append(seconds(lambda: network(image)))
            alone.append(seconds(lambda: [call(inputs[call.shape]) for call in calls]))
    row = {
        "patch": list(segmenter.plan.patch),
        "convolutions": len(calls),
        "multiplications": sum(call.multiplications for call in calls),
        "pass_s": round(min(passes), 3),
        "convolutions_alone_s": round(min(alone), 3),
        "ratio": round(min(passes) / min(alone), 2),
    }
    print(json.dumps(row), flush=True)
    return row


def calls_of(network: nn.Module, image: torch.Tensor) -> list[Call]:
    """The convolutions of a pass in their order."""
    found: list[Call] = []

    def note(module: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        if isinstance(module, Convolution):
            each = given[0] if isinstance(module, nn.ConvTranspose3d) else result
            multiplications = module.weight.numel() * each.shape[2:].numel()
            found.append(Call(module, given[0].shape, multiplications))

    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, Convolution)]
    network(image)
    for hook in hooks:
        hook.remove()
    return found


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of some work."""
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    main()
