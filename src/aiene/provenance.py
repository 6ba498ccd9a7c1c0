"""What a result was made with: enough to make it again."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from aiene.device import available_cores
from aiene.models.bundle import Bundle

if TYPE_CHECKING:
    from aiene.cohort import Selection
    from aiene.pipeline import Settings

_PACKAGES = (
    "aiene", "torch", "dynamic-network-architectures", "SimpleITK", "numpy", "scipy", "scikit-image",
    "nibabel", "pydicom", "pandas",
)  # fmt: skip


def version() -> str:
    """Version of this package."""
    return metadata.version("aiene")


def environment(device: str) -> dict[str, Any]:
    """Versions, machine and device; no name of a person or a computer.

    torch's threads and the GPU are empty where nothing has loaded torch yet.
    """
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name(device) if torch is not None and device.startswith("cuda") else None
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": available_cores(),
        "torch_threads": None if torch is None else torch.get_num_threads(),
        "device": device,
        "gpu": gpu,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "container": os.environ.get("AIENE_CONTAINER"),
    }


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """What names a bundle in `run.json`."""
    card = bundle.card
    return {
        "name": card.name,
        "version": card.version,
        "sha256": bundle.sha256,
        "files": card.files,
        "profile": card.profile,
        "licence": card.licence,
        "notice": card.notice,
    }


# The machine that figures were measured on, described without names of persons or computers.


_BENCHMARK_PACKAGES = (
    "aiene", "torch", "transformers", "timm", "monai", "scikit-learn", "numpy", "scipy", "SimpleITK",
)  # fmt: skip


def machine(device: str) -> dict[str, Any]:
    """Processor, cores, memory, GPU, system and versions.

    Parameters
    ----------
    device : torch device that the models run on, such as `cpu` or `cuda:0`.
    """
    import torch

    on_gpu = device.startswith("cuda")
    return {
        "cpu": _processor(),
        "cores": available_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "device": device,
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: v for name in _BENCHMARK_PACKAGES if (v := _version(name)) is not None},
    }


def _processor() -> str:
    """The processor's own name, where the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def settings_record(
    source: str,
    settings: Settings,
    selection: Selection,
    bundle: Bundle,
    device: str,
    *,
    listed_masks: bool,
) -> dict[str, Any]:
    """What must be the same for results to stand in one folder.

    Parameters
    ----------
    source : the input's folder or URL.
    device : kind of the device, without its number.
    listed_masks : the input list names masks.
    """
    masks = None if settings.masks is None else str(settings.masks.resolve())
    if listed_masks:
        masks = "those of the input list"
    return {
        **({} if selection.id_from is None else {"id_from": selection.id_from}),
        "input": source,
        **chosen_of(settings),
        "masks": masks,
        "series": selection.series,
        "affine": selection.affine,
        "model": bundle.card.name,
        "model_sha256": bundle.sha256,
        "device": device,
        "aiene": version(),
    }


def chosen_of(settings: Settings) -> dict[str, Any]:
    """The settings as runs before the grades recorded them, so that these can be gone on with."""
    return {k: v for k, v in asdict(settings).items() if k not in ("engine", "registration") or v != "exact"}
