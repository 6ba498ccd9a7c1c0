"""What a case costs, in wall and CPU time and memory; what an inference is, in FLOPs."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

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
    _reset_gpu()
    if _reset_high_water():
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


def _reset_high_water() -> bool:
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return _STATUS.is_file()


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


def _uses_gpu() -> bool:
    import sys

    torch = sys.modules.get("torch")
    return bool(torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized())


def _reset_gpu() -> None:
    if _uses_gpu():
        import torch

        torch.cuda.reset_peak_memory_stats()


def _gpu() -> float | None:
    if not _uses_gpu():
        return None
    import torch

    return float(torch.cuda.max_memory_allocated() / _MIB)
