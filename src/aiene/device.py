"""From the words of a user to a torch device."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiene.errors import UsageError, said

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 2**30
"""Blocks up to this size are kept when they are freed. The networks take and free arrays of some 100 MB at
every layer; by default glibc gives each back to the system, which then clears the same pages again: 28 % of
a segmentation's time (`python -m tools.measurements.kept_memory`)."""

_FORM = re.compile(r"(auto|cpu|mps|(?:cuda|gpu)(?::\d+)?)")


def resolve_device(text: str) -> torch.device:
    """The device of `auto`, `cpu`, `mps`, `cuda`, `cuda:1`, `gpu` or `gpu:1`.

    `auto` takes CUDA where it is there, else the CPU: nobody has compared Apple's MPS with it yet, so `mps`
    has to be asked for. On CUDA, algorithms that repeat are asked for.

    Raises
    ------
    UsageError : no such word, or no such device here.
    """
    import torch

    if not _FORM.fullmatch(text):
        raise UsageError(said("--device {}: no such device; use auto, cpu, cuda, cuda:0 or mps.", text))
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if text == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    device = torch.device(text.replace("gpu", "cuda"))
    missing = {"cuda": not has_cuda, "mps": not has_mps}.get(device.type, False)
    if missing or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(said("--device {}: not on this machine; use --device cpu.", text))
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    return device


def device_name(text: str) -> str:
    """The same device by its name; torch, which takes seconds to load, is loaded only where it must be asked.

    Raises
    ------
    UsageError : as `resolve_device`.
    """
    if text == "cpu" or (text == "auto" and not _may_accelerate()):
        return "cpu"
    return str(resolve_device(text))


def _may_accelerate() -> bool:
    """Whether torch could find a GPU: built for one, as its version file says, and the driver is there."""
    spec = importlib.util.find_spec("torch")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if sys.platform == "darwin" or not folders:
        return True
    try:
        lines = (Path(folders[0]) / "version.py").read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    builds = {m[1]: m[2] for line in lines if (m := re.match(r"(cuda|hip)\b.*=\s*(.+?)\s*$", line))}
    made_for = {name for name, version in builds.items() if version != "None"}
    if not builds or sys.platform != "linux":
        return not builds or bool(made_for)
    return ("cuda" in made_for and _has_cuda_driver()) or ("hip" in made_for and Path("/dev/kfd").exists())


def _has_cuda_driver() -> bool:
    """Whether NVIDIA's driver is there, which torch loads by the same name; its wheels do not bring it."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@cache
def keep_freed_memory() -> None:
    """Have the C library keep what this process frees for what it takes next; Linux's alone is told."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
            mallopt(_M_TRIM_THRESHOLD, 2 * _KEPT_BYTES - 1)


def available_cores() -> int:
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
