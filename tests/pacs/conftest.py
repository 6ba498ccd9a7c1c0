"""A network of their own for all tests of this folder, and an archive in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders.orthanc import ANSWER_PORT, OUR_PORT, PULL_PORT, Orthanc, own_network

pytest.importorskip("pynetdicom", reason="the hospital extra is not installed")
pytest.importorskip("highdicom", reason="the dicom extra is not installed")


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """Ports of our own choice, and nothing that other machines could reach."""
    with own_network():
        yield


@pytest.fixture(scope="module")
def archive(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Orthanc, which knows us as the listener, as who waits for a commitment, and as who pulls by C-MOVE."""
    known: dict[str, Any] = {
        "aiene": ["AIENE", "127.0.0.1", OUR_PORT],
        "answers": ["ANSWERS", "127.0.0.1", ANSWER_PORT],
        "puller": {
            "AET": "PULLER",
            "Host": "127.0.0.1",
            "Port": PULL_PORT,
            "AllowGet": True,
            "AllowMove": True,
            "AllowFind": True,
            "AllowStore": False,
        },
    }
    with Orthanc(tmp_path_factory.mktemp("orthanc"), **known) as running:
        yield running


@pytest.fixture
def empty_archive(archive: Orthanc) -> Orthanc:
    """The same, with nothing in it."""
    archive.clear()
    return archive


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"
