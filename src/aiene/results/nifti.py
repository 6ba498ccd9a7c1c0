"""Volumes as NIfTI files that every reader places alike, and that are the same bytes on each run."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from aiene.geometry.grid import Volume
from aiene.results.atomic import gzipped, write_bytes

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_REVERSE = np.eye(4)[[2, 1, 0, 3]]


def nifti_bytes(volume: Volume) -> bytes:
    """The volume as gzipped NIfTI-1, with sform and qform alike.

    Parameters
    ----------
    volume : array (z, y, x) of a type that NIfTI knows, on its grid (LPS mm).
    """
    affine = LPS_TO_RAS @ volume.grid.affine @ _REVERSE  # from indices (x, y, z) to RAS mm
    image = nib.Nifti1Image(volume.array.transpose(2, 1, 0), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    return gzipped(image.to_bytes())


def write_nifti(volume: Volume, path: Path) -> None:
    """Write a volume as `.nii.gz`, whole or not at all.

    Raises
    ------
    OutputError : it cannot be written.
    """
    write_bytes(path, nifti_bytes(volume))
