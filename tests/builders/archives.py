"""Inputs and readings that several tests share, first written for test_zip_archives."""

from __future__ import annotations

import zipfile
from pathlib import Path


def pack(folder: Path, target: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Every file below a folder in an archive."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", method) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, str(path.relative_to(folder)))
    return target
