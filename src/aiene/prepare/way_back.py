"""From the crop back to the patient's own CT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from aiene.errors import OutputError
from aiene.geometry import Volume, pull_labels
from aiene.prepare.prepared import Prepared


def to_native(labels: Volume, prepared: Prepared) -> Volume:
    """A label map of the crop on the native CT's grid, by nearest neighbour.

    Parameters
    ----------
    labels : integers (64, 160, 160) on the crop's grid.
    prepared : the crop's way back.
    """
    return pull_labels(labels, prepared.native, prepared.to_native.inverse())


def write_transform(prepared: Prepared, path: Path) -> None:
    """Write the transform from template to native points as text that SimpleITK and Slicer read (.tfm).

    Raises
    ------
    OutputError : the file cannot be written.
    """
    rigid = prepared.to_native
    euler = sitk.Euler3DTransform()
    euler.SetMatrix(np.ravel(rigid.rotation).tolist(), 1e-6)
    euler.SetTranslation(rigid.translation)
    try:
        sitk.WriteTransform(euler, str(path))
    except RuntimeError as error:
        raise OutputError(path, "the transform cannot be written", "check place and permissions") from error
