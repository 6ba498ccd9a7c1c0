"""Label maps from files, in the benchmark's own values, on the CT's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from aiene.benchmark.config import GTVN, GTVP, LABEL_VALUES, LabelChoice
from aiene.errors import InputError
from aiene.geometry import Grid, Volume, pull_labels
from aiene.ingest import Case
from aiene.ingest.masks import read_mask
from aiene.ingest.nifti import read_nifti
from aiene.ingest.nrrd import read_nrrd


def read_labels(path: Path, like: Grid, *, resample: bool) -> Volume:
    """A label map on the CT's grid, with the values of its file.

    Parameters
    ----------
    path : NIfTI or NRRD.
    like : the CT's grid.
    resample : take a map that lies on another grid, by nearest neighbour; 0 outside.

    Returns
    -------
    uint8 on `like`.

    Raises
    ------
    InputError : it cannot be read, its values are no labels from 0 to 255, or it lies elsewhere than the CT
        and `resample` is not asked for, or does not meet the CT at all.
    """
    if not resample:
        try:
            return read_mask(path, like=like)
        except InputError as error:
            if error.remedy != "resample the mask onto the CT's grid":
                raise
            raise InputError(path, error.problem, f"{error.remedy}, or ask for --resample") from error
    labels = read_mask(path, like=_own_grid(path))
    try:
        return read_mask(path, like=like)
    except InputError:
        moved = pull_labels(labels, like)
    if labels.array.any() and not moved.array.any():
        raise InputError(path, "no labelled voxel of it lies in the CT", "give the mask of this CT")
    return moved


def in_our_values(path: Path, labels: Volume, choice: LabelChoice) -> Volume:
    """The map with 1 for GTVp and 2 for GTVn.

    Raises
    ------
    InputError : a value that the choice does not name.
    """
    known = {*choice.GTVp, *choice.GTVn, *choice.ignore, 0}
    found = np.flatnonzero(np.bincount(labels.array.ravel(), minlength=1))
    strange = [str(value) for value in found if int(value) not in known]
    if strange:
        values = f"value{'s' * (len(strange) > 1)} {', '.join(strange[:8])}"
        remedy = "say under `labels` in the configuration what they are (GTVp, GTVn or ignore)"
        raise InputError(path, f"label {values} unknown", remedy)
    table = np.zeros(max(256, max(known) + 1), dtype=np.uint8)
    table[list(choice.GTVp)] = LABEL_VALUES[GTVP]
    table[list(choice.GTVn)] = LABEL_VALUES[GTVN]
    return labels.with_array(table[labels.array])


def by_volume(node_map: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.uint16], dict[int, int]]:
    """A node map whose values are 1, 2, ... in order of falling volume, and the old value of each new one."""
    sizes = np.bincount(node_map.ravel())
    sizes[0] = 0
    old = sorted(np.flatnonzero(sizes).tolist(), key=lambda value: (-int(sizes[value]), value))
    table = np.zeros(len(sizes), dtype=np.uint16)
    for new, value in enumerate(old, start=1):
        table[value] = new
    return table[node_map], dict(enumerate(old, start=1))


def _own_grid(path: Path) -> Grid:
    nifti = ".nii" in path.name.lower()
    case = Case(path.name, "nifti" if nifti else "nrrd", (path,))
    try:
        return (read_nifti if nifti else read_nrrd)(case).volume.grid
    except OSError as error:
        raise InputError(path, f"it cannot be read ({error.strerror})", "check its permissions") from error
