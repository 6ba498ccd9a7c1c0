"""Phantom patients for the whole road, small enough to be quick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from aiene.cohort import run_cohort
from aiene.phantom.phantom import Phantom, PhantomSettings, make_phantom
from aiene.results.nifti import write_nifti
from builders.once import made_once

SMALL = PhantomSettings(size=(70, 120, 120), spacing=(4.0, 2.2, 2.2), nodes=(2, 3), tilt_degrees=2.0)
SEEDS = {"one": 910_001, "two": 910_002}


@pytest.fixture(scope="session")
def phantoms() -> dict[str, Phantom]:
    """Two coarse phantom patients by case id."""
    return {case_id: make_phantom(seed, SMALL) for case_id, seed in SEEDS.items()}


@pytest.fixture(scope="session")
def cts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of their CTs."""
    return made_once(tmp_path_factory, "patients", _write) / "cts"


@pytest.fixture(scope="session")
def masks(cts: Path) -> Path:
    """A folder of their true label maps."""
    return cts.with_name("masks")


def _write(root: Path) -> None:
    for case_id, seed in SEEDS.items():
        phantom = make_phantom(seed, SMALL)
        for name, volume in (("cts", phantom.ct), ("masks", phantom.labels)):
            (root / name).mkdir(exist_ok=True)
            write_nifti(volume, root / name / f"{case_id}.nii.gz")


@pytest.fixture(scope="session")
def segmented_run(cts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of both by the default bundle in one process, to compare with: nobody may write there."""

    def make(root: Path) -> None:
        run_cohort(cts, root / "out", device="cpu", jobs=1)

    return made_once(tmp_path_factory, "segmented", make) / "out"


@pytest.fixture(scope="session")
def contoured_run(cts: Path, masks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with their true masks, and without the segmenter."""

    def make(root: Path) -> None:
        run_cohort(cts, root / "out", device="cpu", jobs=1, masks=masks)

    return made_once(tmp_path_factory, "contoured", make) / "out"


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
