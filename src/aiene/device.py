"""From the words of a user to a torch device."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from aiene.errors import UsageError

if TYPE_CHECKING:
    import torch

_FORM = re.compile(r"(auto|cpu|mps|(?:cuda|gpu)(?::\d+)?)")


def resolve_device(text: str) -> torch.device:
    """The device of `auto`, `cpu`, `mps`, `cuda`, `cuda:1`, `gpu` or `gpu:1`.

    `auto` takes CUDA where it is there, else the CPU; Apple's MPS, on which nobody has tried the networks,
    by its name only. On CUDA, algorithms that repeat are asked for.

    Raises
    ------
    UsageError : no such word, or no such device here.
    """
    import torch

    if not _FORM.fullmatch(text):
        raise UsageError(f"--device {text}: no such device; say auto, cpu, cuda, cuda:0 or mps.")
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if text == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    device = torch.device(text.replace("gpu", "cuda"))
    missing = {"cuda": not has_cuda, "mps": not has_mps}.get(device.type, False)
    if missing or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"--device {text}: not on this machine; say --device cpu.")
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    return device


def available_cores() -> int:
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
