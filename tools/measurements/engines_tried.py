"""Every engine that was tried for the segmenter, those that did not win too: one pass on real crops.

    OMP_NUM_THREADS=1 python -m tools.measurements.engines_tried ../shared/data/openkbp [--crops N]
                             [--repeats N]
    python -m tools.measurements.engines_tried --layers

Needs `pip install onnx onnxscript onnxruntime openvino nncf` for all of them; an engine that cannot run is
told with the reason. Times are processor seconds of one core, the least of the repeats, in turn; labels are
those of one pass without mirroring. int8 is calibrated on as many other crops. Writes
`results/engines_tried.json`, which `docs/decisions/0009-engines.md` quotes. `--layers` tells where OpenVINO's
float32 loses digits: the error of single layers against float64, on a tensor of a whole crop.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from aiene.device import keep_freed_memory
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from aiene.models.bundle import find_bundle
from aiene.nodes.node import GTVN
from aiene.pipeline import load_networks
from aiene.preprocess.preprocess import load_preparation, prepare
from aiene.segment.engines import exact_engine, offered

RESULTS = Path(__file__).parent / "results" / "engines_tried.json"
Pass = Callable[[torch.Tensor], torch.Tensor]
Make = Callable[[nn.Module, Sequence[torch.Tensor]], Pass]


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--crops", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    words = parser.parse_args()
    torch.set_num_threads(1)
    if words.layers or words.folder is None:
        layers()
        return
    keep_freed_memory()
    bundle = find_bundle("default")
    segmenter = load_networks(bundle, torch.device("cpu"), own_masks=False).segmenter
    if segmenter is None:
        raise ValueError("no segmenter")
    (network,) = segmenter.networks
    crops = list(crops_of(words.folder, 2 * words.crops))
    calibration, crops = crops[: words.crops], crops[words.crops :]
    passes: dict[str, Pass] = {"torch float32": exact_engine([network]).answers[0]}
    told: dict[str, Any] = {}
    for name, make in TRIED.items():
        try:
            passes[name] = make(without_hooks(network), calibration)
            passes[name](crops[0])
        except (RuntimeError, ValueError, TypeError, ImportError) as error:
            passes.pop(name, None)
            told[name] = {"cannot_run": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    labels = {name: [called(run(crop)) for crop in crops] for name, run in passes.items()}
    exact = labels["torch float32"]
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(words.repeats):
        for name, run in passes.items():
            start = time.process_time()
            run(crops[0])
            seconds[name].append(time.process_time() - start)
    for name, mine in labels.items():
        told[name] = {
            "seconds": round(min(seconds[name]), 2),
            "ratio": round(min(seconds[name]) / min(seconds["torch float32"]), 3),
            "voxels_of_nodes": int(sum((one == GTVN).sum() for one in exact)),
            "of_these_or_beside_changed": int(
                sum(((a == GTVN) != (b == GTVN)).sum() for a, b in zip(mine, exact, strict=True))
            ),
        }
    RESULTS.write_text(json.dumps({"bundle": bundle.sha256, "engines": told}, indent=1) + "\n")
    print(json.dumps(told, indent=1))


def layers() -> None:
    """Root mean square error, as a share of the values, of a convolution and of an instance norm."""
    openvino: Any = import_module("openvino")
    torch.manual_seed(0)
    sparse = torch.rand(1, 8, 64, 160, 160)
    sparse = torch.where(sparse > 0.97, sparse, 0.0)
    for name, layer in {"convolution": nn.Conv3d(8, 8, 3, padding=1), "norm": nn.InstanceNorm3d(8)}.items():
        with torch.no_grad():
            true = copy.deepcopy(layer).double()(sparse.double())
            ours = layer(sparse)
        model = openvino.convert_model(layer, example_input=sparse)
        run = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        theirs = torch.from_numpy(np.asarray(run(sparse.numpy())[0]))
        for engine, found in (("torch", ours), ("openvino", theirs)):
            error = (found.double() - true).square().mean().sqrt() / true.square().mean().sqrt()
            print(f"{name}, {engine} float32: {float(error):.1e}")


def crops_of(folder: Path, count: int) -> Iterator[torch.Tensor]:
    """The networks' input (1, 1, z, y, x) of CTs spread over the folder."""
    preparation = load_preparation(find_bundle("default"))
    files = sorted(folder.glob("*/ct.nii.gz"))
    for file in files[:: max(1, len(files) // count)][:count]:
        (case,) = (c for c in find_cases(file)[0] if isinstance(c, Case))
        crop = prepare(read_case(case), preparation.template, preparation.profile).crop.array
        yield torch.from_numpy(np.ascontiguousarray(crop))[None, None]


def called(logits: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The label of each voxel."""
    found: npt.NDArray[np.uint8] = logits[0].argmax(0).numpy().astype(np.uint8)
    return found


def without_hooks(network: nn.Module) -> nn.Module:
    """A copy that compilers can read: what keeps its sums in order at many threads is not needed at one."""
    plain = copy.deepcopy(network)
    for module in plain.modules():
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    return plain


def by_the_product(name: str, network: nn.Module, crops: Sequence[torch.Tensor]) -> Pass:
    """An engine that `aiene run --engine fast` may choose."""
    makes = dict(offered(torch.device("cpu")))
    if name not in makes:
        raise RuntimeError("not offered on this machine")
    size = crops[0].shape
    return makes[name](network, (size[2], size[3], size[4]))


def channels_last(network: nn.Module, crops: Sequence[torch.Tensor]) -> Pass:
    """PyTorch, channels last in memory."""
    del crops
    last = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    run = without_gradients(last)
    return lambda crop: run(crop.contiguous(memory_format=torch.channels_last_3d))


def without_gradients(network: Pass) -> Pass:
    """The same, keeping nothing for a training."""

    def run(crop: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return network(crop)

    return run


def scripted(network: nn.Module, crops: Sequence[torch.Tensor]) -> Pass:
    """TorchScript, traced and frozen."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = torch.jit.freeze(torch.jit.trace(network, crops[0]).eval())  # type: ignore[no-untyped-call]
    return without_gradients(frozen)


def compiled(network: nn.Module, crops: Sequence[torch.Tensor]) -> Pass:
    """torch.compile; needs a C++ compiler."""
    del crops
    return without_gradients(torch.compile(network))


def by_onnxruntime(network: nn.Module, crops: Sequence[torch.Tensor]) -> Pass:
    """ONNX Runtime in float32."""
    onnxruntime: Any = import_module("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        torch.onnx.export(network, (crops[0],), file, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda crop: torch.from_numpy(session.run(None, {name: crop.numpy()})[0])


def in_int8(network: nn.Module, crops: Sequence[torch.Tensor]) -> Pass:
    """OpenVINO in int8, its ranges measured on the calibration crops by NNCF."""
    nncf: Any = import_module("nncf")
    openvino: Any = import_module("openvino")
    whole = openvino.convert_model(network, example_input=crops[0])
    data = nncf.Dataset([crop.numpy() for crop in crops])
    small = nncf.quantize(whole, data, subset_size=len(crops))
    ready = openvino.Core().compile_model(small, "CPU", {"INFERENCE_NUM_THREADS": 1})
    return lambda crop: torch.from_numpy(np.asarray(ready(crop.numpy())[0]))


TRIED: dict[str, Make] = {
    "torch float32, channels last": channels_last,
    "torch float32, TorchScript": scripted,
    "torch float32, torch.compile": compiled,
    "ONNX Runtime float32": by_onnxruntime,
    "openvino float32": partial(by_the_product, "openvino float32"),
    "torch bfloat16": partial(by_the_product, "torch bfloat16"),
    "openvino bfloat16": partial(by_the_product, "openvino bfloat16"),
    "openvino int8": in_int8,
}


if __name__ == "__main__":
    main()
