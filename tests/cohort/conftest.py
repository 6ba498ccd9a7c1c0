"""Phantom patients for the whole road, small enough to be quick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from aiene.phantom.phantom import Phantom, PhantomSettings, make_phantom
from aiene.results.nifti import write_nifti

SMALL = PhantomSettings(size=(70, 120, 120), spacing=(4.0, 2.2, 2.2), nodes=(2, 3), tilt_degrees=2.0)


@pytest.fixture(scope="session")
def phantoms() -> dict[str, Phantom]:
    """Two coarse phantom patients by case id."""
    return {"one": make_phantom(910_001, SMALL), "two": make_phantom(910_002, SMALL)}


@pytest.fixture(scope="session")
def cts(phantoms: dict[str, Phantom], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of their CTs."""
    folder = tmp_path_factory.mktemp("cts")
    for case_id, phantom in phantoms.items():
        write_nifti(phantom.ct, folder / f"{case_id}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def masks(phantoms: dict[str, Phantom], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of their true label maps."""
    folder = tmp_path_factory.mktemp("masks")
    for case_id, phantom in phantoms.items():
        write_nifti(phantom.labels, folder / f"{case_id}.nii.gz")
    return folder


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies of a store's objects are kept."""
    monkeypatch.setenv("AIENE_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """A store that lives in this process."""
    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()
    store.pseudo_dirs.clear()
