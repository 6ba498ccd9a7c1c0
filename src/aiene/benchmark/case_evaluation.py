"""One case and one model: the four steps, timed; the metrics; a record. The same in any process.

What a case costs is wall and CPU time and memory; what an inference is, is told in FLOPs.
"""

from __future__ import annotations

import io
import logging
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from aiene.benchmark.comparators.protocol import (
    Answer,
    CaseInput,
    Comparator,
    Request,
    open_comparator,
    reads_files,
)
from aiene.benchmark.config import GTVN, LABEL_VALUES, BenchmarkConfig
from aiene.benchmark.dataset import centroids, read_kept, read_truth_of
from aiene.benchmark.ene_labels import EneRow
from aiene.benchmark.metrics.nodes import components, values_of
from aiene.benchmark.metrics.segmentation import case_metrics
from aiene.benchmark.records import (
    CaseRecord,
    FoundNode,
    NodeMatch,
    Pair,
    TruthNode,
    TruthRecord,
    key_of,
    model_files,
    to_json,
    truth_files,
)
from aiene.errors import attempt
from aiene.geometry.grid import Volume, triple
from aiene.hashing import digest
from aiene.ingest.fingerprint import labels_sha256, nodes_sha256
from aiene.results.atomic import make_folder, write_bytes, write_json
from aiene.results.nifti import write_nifti

T = TypeVar("T")
_MIB = 1024.0**2
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_SAMPLING_SECONDS = 0.005


@dataclass
class Stopwatch:
    """Wall and CPU seconds by step; CPU time is that of all threads of this process."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    def timed(self, step: str, work: Callable[[], T], *, repeats: int = 1) -> T:
        """The result of `work`, whose time (median over the repeats) is kept under the step's name."""
        walls, cpus = [], []
        for _ in range(max(1, repeats)):
            wall, cpu = time.perf_counter(), time.process_time()
            result = work()
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        self.wall[step] = statistics.median(walls)
        self.cpu[step] = statistics.median(cpus)
        return result


@dataclass
class Peak:
    """The largest memory while something ran, in MiB; `gpu_mib` is None without a GPU."""

    rss_mib: float = 0.0
    gpu_mib: float | None = None


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the peak resident memory of this process, and of the GPU where torch uses one.

    On Linux the kernel's own high-water mark is set back and read; elsewhere memory is sampled every 5 ms.
    """
    peak = Peak()
    gpu = _used_gpu()
    if gpu is not None:
        gpu.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5", encoding="ascii")
        kernels = _STATUS.is_file()
    except OSError:
        kernels = False
    if kernels:
        try:
            yield peak
        finally:
            peak.rss_mib, peak.gpu_mib = _high_water(), _gpu()
        return
    stop = threading.Event()
    sampler = threading.Thread(target=_sample, args=(peak, stop), daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        stop.set()
        sampler.join()
        peak.gpu_mib = _gpu()


def count_flops(work: Callable[[], Any]) -> int | None:
    """Floating-point operations of one call, by torch's flop counter; None where it sees none."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops()) or None


def _high_water() -> float:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float(psutil.Process().memory_info().rss / _MIB)


def _sample(peak: Peak, stop: threading.Event) -> None:
    process = psutil.Process()
    while True:
        peak.rss_mib = max(peak.rss_mib, process.memory_info().rss / _MIB)
        if stop.wait(_SAMPLING_SECONDS):
            return


def _used_gpu() -> Any | None:
    """torch's GPU, where this process uses one."""
    torch = sys.modules.get("torch")
    return (
        torch.cuda
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
        else None
    )


def _gpu() -> float | None:
    gpu = _used_gpu()
    return None if gpu is None else float(gpu.max_memory_allocated() / _MIB)


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TruthTask:
    """The ground truth of a case, to be read and kept under `folder`."""

    pair: Pair
    config: BenchmarkConfig
    folder: Path
    patient: str
    identity: str
    node_map: Path | None
    ene_rows: tuple[EneRow, ...]


@dataclass(frozen=True)
class CaseTask:
    """A case for a model.

    Parameters
    ----------
    folder : of the benchmark (`-o`).
    identity : of the result.
    prompt_key : the bundle whose found nodes are the prompts; None: the truth's, if prompts are wanted.
    flops : count them on this case.
    """

    request: Request
    pair: Pair
    truth: TruthRecord
    config: BenchmarkConfig
    folder: Path
    identity: str
    prompt_key: str | None = None
    flops: bool = False


def keep_truth(task: TruthTask) -> TruthRecord:
    """Read the ground truth and write it beside its record; a case that cannot be used is a record too."""
    record_file, labels_file, nodes_file = truth_files(task.folder, task.pair.case_id)

    def work() -> TruthRecord:
        truth = read_truth_of(task.pair, task.config, task.node_map, task.ene_rows, task.patient)
        make_folder(record_file.parent)
        write_nifti(truth.labels, labels_file)
        write_nifti(truth.nodes, nodes_file)
        return replace(truth.record, identity=task.identity)

    record = _attempt(work, lambda error: lost_truth(task, str(error)))
    make_folder(record_file.parent)
    write_json(record_file, to_json(record))
    return record


def lost_truth(task: TruthTask, reason: str) -> TruthRecord:
    """The record of a case that cannot be used."""
    return TruthRecord(task.pair.case_id, task.patient, "failed", reason, task.identity)


def lost_case(task: CaseTask, reason: str) -> CaseRecord:
    """The record of a case for which the model gave nothing."""
    return CaseRecord(
        model=task.request.name,
        key=key_of(task.request.name),
        kind=task.request.kind,
        case_id=task.pair.case_id,
        patient_id=task.truth.patient_id,
        status="failed",
        reason=reason,
        identity=task.identity,
        truth_nodes=task.truth.nodes,
    )


def keep_case(task: CaseTask) -> CaseRecord:
    """Run a model on a case and write what it found beside its record, the record last."""
    record_file, *images = model_files(task.folder, key_of(task.request.name), task.pair.case_id)
    make_folder(record_file.parent)
    for image in images:
        image.unlink(missing_ok=True)
    record = _attempt(lambda: _run(task), lambda error: lost_case(task, str(error)))
    write_json(record_file, to_json(record))
    return record


class _FirstOfItsKind(logging.Filter):
    """Passes the first error of its kind and place in this process: one traceback is enough."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record holds no error, or one of a new kind or place."""
        error = record.exc_info[1] if record.exc_info else None
        end = None if error is None else error.__traceback__
        while end is not None and end.tb_next is not None:
            end = end.tb_next
        if end is None:
            return True
        kind = f"{type(error).__name__} at {end.tb_frame.f_code.co_filename}:{end.tb_lineno}"
        first = kind not in self._seen
        self._seen.add(kind)
        return first


log.addFilter(_FirstOfItsKind())
_attempt = partial(
    attempt,
    log=log,
    what="a case of the benchmark",  # never the id: it may be the patient's
    remedy="try --jobs 1 or a larger machine",
)


_opened: dict[str, Comparator] = {}
_warm: set[str] = set()


def opened(request: Request) -> Comparator:
    """The model of a request, loaded once in this process; the one before it is let go."""
    key = repr(request)
    if key not in _opened:
        close()
        _opened[key] = open_comparator(request)
    return _opened[key]


def close() -> None:
    """Let go of the model that is open in this process."""
    _opened.clear()
    _warm.clear()


def _run(task: CaseTask) -> CaseRecord:
    model = opened(task.request)
    case = _case_input(task)
    watch = Stopwatch()
    with peak_memory() as peak:
        loaded = watch.timed("load", lambda: model.load(case))
        prepared = watch.timed("preprocess", lambda: model.preprocess(loaded))
        flops = _warm_up(model, prepared, task)
        repeats = 1 if reads_files(task.request.kind) else task.config.repeats
        inferred = watch.timed("inference", lambda: model.infer(prepared), repeats=repeats)
        answer = watch.timed("postprocess", lambda: _with_nodes(model.answer(inferred)))
    _write(task, answer)
    record = replace(
        lost_case(task, ""),
        status="ok",
        answer_sha256=_said(answer, task.truth),
        warnings=answer.warnings,
        seconds={step: round(value, 4) for step, value in watch.wall.items()},
        cpu_seconds={step: round(value, 4) for step, value in watch.cpu.items()},
        inference_repeats=repeats,
        peak_rss_mib=round(peak.rss_mib, 1),
        peak_gpu_mib=None if peak.gpu_mib is None else round(peak.gpu_mib, 1),
        flops=flops,
    )
    return measured(record, answer, case, task.config)


def _said(answer: Answer, truth: TruthRecord) -> str:
    """The hash of an answer to this case; the numbers of its nodes are not in it."""
    nodes = {
        value: [odds.get(value) for odds in (answer.confidence, answer.ene)]
        for value in {*answer.confidence, *answer.ene}
    }
    return digest(
        [
            truth.content_sha256,
            None if answer.labels is None else labels_sha256(answer.labels),
            None if answer.nodes is None else nodes_sha256(answer.nodes, nodes),
            [repr(answer.ene_on_truth.get(value)) for value in sorted({node.value for node in truth.nodes})],
        ]
    )


def measured(record: CaseRecord, answer: Answer, case: CaseInput, config: BenchmarkConfig) -> CaseRecord:
    """The record with the metrics of an answer; values that are no probabilities are left out, and said.

    Raises
    ------
    UsageError : the answer lies on another grid.
    """
    answer, odd = _probabilities(answer)
    record = replace(record, warnings=(*record.warnings, *odd))
    if answer.labels is None:
        return replace(record, truth_nodes=_truth_nodes(record.truth_nodes, None, {}, answer.ene_on_truth))
    truth, spacing = case.truth_labels, case.truth_labels.grid.spacing
    found = answer.nodes
    there = set() if found is None else set(values_of(found.array))
    metrics = case_metrics(
        truth.array,
        answer.labels.array,
        spacing,
        labels=tuple(LABEL_VALUES.values()),
        truth_nodes=case.truth_nodes.array,
        predicted_nodes=None if found is None else found.array,
        confidences={value: one for value, one in answer.confidence.items() if value in there} or None,
        iou_threshold=config.iou_threshold,
    )
    names = {value: name for name, value in LABEL_VALUES.items()}
    return replace(
        record,
        segmentation={names[one.label]: one for one in metrics.labels},
        matching=metrics.nodes,
        truth_nodes=_truth_nodes(record.truth_nodes, metrics.nodes, answer.ene, answer.ene_on_truth),
        found_nodes=_found_nodes(metrics.nodes, found, answer.ene),
    )


def _with_nodes(answer: Answer) -> Answer:
    """The answer with a map of its nodes: the connected parts of GTVn where the model gives none."""
    if answer.labels is None or answer.nodes is not None:
        return answer
    nodes = components(answer.labels.array == LABEL_VALUES[GTVN]).astype(np.uint16)
    return replace(answer, nodes=answer.labels.with_array(nodes))


def _probabilities(answer: Answer) -> tuple[Answer, tuple[str, ...]]:
    """The answer without values that are no probabilities, and a warning for each kind."""
    kept: dict[str, Any] = {}
    warnings = []
    for name, what in (("confidence", "confidence"), ("ene", "ENE"), ("ene_on_truth", "ENE on the truth")):
        values: dict[int, float] = getattr(answer, name)
        kept[name] = {value: float(one) for value, one in values.items() if 0 <= one <= 1}
        bad = sorted(values.keys() - kept[name].keys())  # NaN is in no range
        if bad:
            nodes = ", ".join(f"{value} ({values[value]:.3g})" for value in bad[:5])
            warnings.append(f"{what} that is not a probability, left out: node {nodes}")
    return replace(answer, **kept), tuple(warnings)


def _truth_nodes(
    nodes: tuple[TruthNode, ...], match: NodeMatch | None, ene: dict[int, float], on_truth: dict[int, float]
) -> tuple[TruthNode, ...]:
    pairs = {pair.truth: pair for pair in (() if match is None else match.pairs)}
    result = []
    for node in nodes:
        node = replace(node, ene_on_truth=on_truth.get(node.value))
        if (pair := pairs.get(node.value)) is not None:
            end_to_end = ene.get(pair.predicted)
            node = replace(node, found_as=pair.predicted, overlap=pair.iou, ene_end_to_end=end_to_end)
        result.append(node)
    return tuple(result)


def _found_nodes(match: NodeMatch, node_map: Volume | None, ene: dict[int, float]) -> tuple[FoundNode, ...]:
    matched = {pair.predicted: pair.truth for pair in match.pairs}
    places = {} if node_map is None else centroids(node_map)
    return tuple(
        FoundNode(
            info.number,
            info.volume_ml,
            triple(places[info.number][1]),
            info.confidence,
            ene.get(info.number),
            matched.get(info.number),
        )
        for info in match.predicted
        if info.number in places
    )


def _case_input(task: CaseTask) -> CaseInput:
    _, labels_file, nodes_file = truth_files(task.folder, task.pair.case_id)
    labels, nodes = read_kept(labels_file), read_kept(nodes_file)
    prompts: tuple[Volume, Volume] | None = (labels, nodes)
    if task.prompt_key is not None:
        _, found_labels, found_nodes, _ = model_files(task.folder, task.prompt_key, task.pair.case_id)
        there = found_labels.is_file() and found_nodes.is_file()
        prompts = (read_kept(found_labels), read_kept(found_nodes)) if there else None
    return CaseInput(task.pair.image, labels, nodes, prompts)


def _warm_up(model: Comparator, prepared: Any, task: CaseTask) -> int | None:
    """The first inference of a process is not timed; the operations are counted in it."""
    key = repr(task.request)
    if reads_files(task.request.kind) or (key in _warm and not task.flops):
        return None
    _warm.add(key)
    if task.flops:
        return count_flops(lambda: model.infer(prepared))
    model.infer(prepared)
    return None


def _write(task: CaseTask, answer: Answer) -> None:
    _, labels, nodes, features = model_files(task.folder, key_of(task.request.name), task.pair.case_id)
    if answer.labels is not None:
        write_nifti(answer.labels.with_array(answer.labels.array.astype(np.uint8)), labels)
    if answer.nodes is not None:
        write_nifti(answer.nodes.with_array(answer.nodes.array.astype(np.uint16)), nodes)
    if answer.features:
        content = io.BytesIO()
        arrays: dict[str, Any] = {str(value): one for value, one in answer.features.items()}
        np.savez(content, **arrays)
        write_bytes(features, content.getvalue())
