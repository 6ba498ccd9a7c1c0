"""A user's own masks: found by case id, and taken only where they lie on the CT's lattice."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aiene.errors import InputError
from aiene.geometry import Grid, Volume, pull_labels
from aiene.ingest.case import AffineRule, Case
from aiene.ingest.nifti import read_nifti
from aiene.ingest.nrrd import read_nrrd
from aiene.wording import case_name, file_name, said

TOLERANCE_MM = 1e-3
TOLERANCE_COSINE = 1e-4

_READERS = {".nii": read_nifti, ".nii.gz": read_nifti, ".nrrd": read_nrrd, ".nhdr": read_nrrd}


def mask_files(folder: Path, case_id: str) -> tuple[Path, ...]:
    """Every file that could be the mask of a case: its id, then `.nii`, `.nii.gz`, `.nrrd` or `.nhdr`.

    Letters with accents may be stored either way (NFC, or NFD as macOS writes them).
    """
    for spelling in (case_id, unicodedata.normalize("NFD", case_id)):
        files = (folder / f"{spelling}{ending}" for ending in _READERS)
        if found := tuple(file for file in files if file.exists()):
            return found
    return ()


def find_mask(folder: Path, case_id: str) -> Path:
    """The mask of a case.

    Raises
    ------
    InputError : there is none, or more than one.
    """
    found = mask_files(folder, case_id)
    if not found:
        raise InputError(
            folder,
            said("no mask for the case {}", case_name(case_id)),
            said("put {}.nii.gz there, or leave the case out", case_name(case_id)),
        )
    if len(found) > 1:
        raise InputError(found[0], said("{} is there too", file_name(found[1])), "keep one mask a case")
    return found[0]


def read_mask(path: Path, *, like: Grid, affine: AffineRule = "auto") -> Volume:
    """A label map on the CT's grid.

    Parameters
    ----------
    path : NIfTI or NRRD.
    like : the CT's grid. The mask may hold the same voxels in another order of axes, as converters leave
        them; it is then reordered.
    affine : which statement of a NIfTI header counts, as for the CT.

    Returns
    -------
    uint8 on `like`.

    Raises
    ------
    InputError : it cannot be read, lies elsewhere than the CT (by more than 1e-3 mm at a corner, or 1e-4 in a
        direction cosine), or holds values that are no labels.
    """
    ending = next(end for end in sorted(_READERS, key=len, reverse=True) if path.name.endswith(end))
    case = Case(path.name, "nifti" if "nii" in ending else "nrrd", (path,), affine=affine)
    try:
        volume = _READERS[ending](case).volume
    except OSError as error:
        raise InputError(path, f"it cannot be read ({error.strerror})", "check its permissions") from error
    labels = volume.with_array(_labels(path, volume.array))
    order = _reordering(labels.grid, like)
    if order is None:
        raise InputError(path, _difference(labels.grid, like), "resample the mask onto the CT's grid")
    return Volume(labels.array, like) if np.array_equal(order, np.eye(4)) else pull_labels(labels, like)


def _labels(path: Path, array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    whole = np.asarray(array)
    labels = np.clip(np.nan_to_num(whole.astype(np.float64), nan=-1.0), -1, 256).round().astype(np.int64)
    if not np.array_equal(labels, whole) or labels.min() < 0 or labels.max() > 255:
        raise InputError(path, "its values are no labels from 0 to 255", "give a label map")
    return labels.astype(np.uint8)


def _reordering(mask: Grid, like: Grid) -> npt.NDArray[np.float64] | None:
    """4 x 4, from indices on `like` to those on `mask`, where both hold the same voxels; else None."""
    order = np.round(mask.index_map(like))
    turn = order[:3, :3]
    if not np.array_equal(np.abs(turn).sum(axis=0), [1, 1, 1]) or not np.array_equal(
        abs(turn) @ like.size, mask.size
    ):
        return None
    last = np.array(like.size) - 1
    corners = np.array(list(np.ndindex(2, 2, 2))) * last
    reached = corners @ turn.T + order[:3, 3]
    if (reached < 0).any() or (reached > np.array(mask.size) - 1).any():
        return None
    shift = np.linalg.norm(mask.points(reached) - like.points(corners), axis=1).max()
    cosines = np.abs(np.array(mask.direction).T @ turn - np.array(like.direction).T).max()
    return order if shift <= TOLERANCE_MM and cosines <= TOLERANCE_COSINE else None


def _difference(mask: Grid, like: Grid) -> str:
    """In one clause, how a mask's grid differs from the CT's."""
    if mask.size != like.size:
        return f"its size {mask.size} (z, y, x) is not the CT's, {like.size}"
    shift, turn = mask.differences(like)
    return f"it lies {shift:.3g} mm away from the CT's grid (direction cosines {turn:.2g} apart)"
