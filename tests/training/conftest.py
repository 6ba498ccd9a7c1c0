"""Phantom patients to train on, with their crops, made once for all files of a test run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from aiene.models.bundle import default_folder, read_bundle
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.results.nifti import write_nifti
from aiene.training.bundle import preparation_identity
from aiene.training.dataset import find_pairs, prepared_crops
from builders.once import made_once

SMALL = PhantomSettings(size=(70, 110, 110), spacing=(4.0, 2.4, 2.4), nodes=(2, 3), tilt_degrees=2.0)
SEEDS = range(930_001, 930_006)


@pytest.fixture(scope="session")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five phantom patients with contours and pathology: `ct`, `labels`, `nodes.csv`; and their `crops`."""
    return made_once(tmp_path_factory, "clinic", _clinic)


def _clinic(root: Path) -> None:
    (root / "ct").mkdir()
    (root / "labels").mkdir()
    rows = []
    for k, seed in enumerate(SEEDS):
        phantom = make_phantom(seed, SMALL)
        write_nifti(phantom.ct, root / "ct" / f"p{k}_0000.nii.gz")
        write_nifti(phantom.labels, root / "labels" / f"p{k}.nii.gz")
        for n, node in enumerate(phantom.nodes):
            x, y, z = node.centre_lps_mm
            rows.append((f"p{k}", x, y, z, 1, (k + n) % 2 if n < 2 else ""))
    table = pd.DataFrame(rows, columns=["case_id", "x_mm", "y_mm", "z_mm", "pos", "ene"])
    table.to_csv(root / "nodes.csv", index=False)
    bundle = read_bundle(default_folder())
    pairs = find_pairs(root / "ct", root / "labels")
    prepared_crops(pairs, bundle, root / "crops", preparation_identity(bundle))
