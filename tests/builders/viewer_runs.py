"""A run over one small CT on an oblique, left-handed, anisotropic grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aiene.geometry.grid import ORDERS, AxisOrder, Grid, Volume
from aiene.results.nifti import write_nifti
from builders.export_runs import OBLIQUE_DOWN, Planted, Run, write_run

GRID = Grid((26, 44, 60), (4.0, 2.3, 1.9), (-40.5, -61.25, 12.125), OBLIQUE_DOWN)
NODES = (Planted((0.35, 0.3, 0.7), 15.0, "left"), Planted((0.7, 0.62, 0.25), 11.0, "right", 0.8, 0.1))


def patterned() -> Volume:
    """Soft tissue in which each axis has a pattern of its own, so that no flip or swap looks alike."""
    z, y, x = np.indices(GRID.size)
    hu = 40 + 60 * np.sin(z / 3.0) + 45 * np.sin(y / 4.0 + 1) + 30 * np.sign(np.sin(x / 5.0 + 2)) + x / 2
    hu[:, :5] = -1000
    return Volume(hu.astype(np.int16), GRID)


def write_patterned_run(folder: Path, order: AxisOrder = ORDERS[0], case_id: str = "case") -> Run:
    """The run's folder `out` beside the CT's, `cts`."""
    (folder / "cts").mkdir(parents=True)
    write_nifti(patterned().reordered(order), folder / "cts" / f"{case_id}.nii.gz")
    return write_run(folder / "out", folder / "cts", planted=NODES, primary=Planted((0.5, 0.75, 0.5), 9.0))
