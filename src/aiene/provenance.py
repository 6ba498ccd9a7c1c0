"""What a result was made with: enough to make it again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib import metadata
from typing import Any

from aiene.device import available_cores
from aiene.models.bundle import Bundle

_PACKAGES = (
    "aiene",
    "torch",
    "dynamic-network-architectures",
    "SimpleITK",
    "numpy",
    "scipy",
    "scikit-image",
    "nibabel",
    "pydicom",
    "pandas",
)


def version() -> str:
    """Version of this package."""
    return metadata.version("aiene")


def environment(device: str) -> dict[str, Any]:
    """Versions, machine and device; no name of a person or a computer."""
    import torch

    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": available_cores(),
        "torch_threads": torch.get_num_threads(),
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


def digest(content: Any) -> str:
    """SHA-256 of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
