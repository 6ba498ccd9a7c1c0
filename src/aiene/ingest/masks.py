"""A user's own masks: found by case id, taken only on the CT's lattice, and with nodes that can be told."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.errors import InputError, Said, case_name, file_name, joined, ours, reading, said
from aiene.geometry.grid import Grid, Volume, corner_indices
from aiene.geometry.resample import pull_labels
from aiene.ingest.case import AffineRule, Case
from aiene.ingest.formats import claimed_volume, volume_endings
from aiene.nodes.node import GTVN, GTVP, FgLabels

TOLERANCE_MM = 1e-3
TOLERANCE_COSINE = 1e-4

_MANY_PARTS = 3
"""Parts of label 1 from which on it looks like nodes where label 2 has one."""
_SWAPPED = said(
    "2 was taken as nodes, but 1 has more parts in the mask; if 1 marks the nodes, use --fg-labels 1"
)


@dataclass(frozen=True)
class MaskLabels:
    """Which labels of a map are nodes.

    Parameters
    ----------
    nodes : those labels.
    warnings : what the user should look at.
    notes : what was taken for what.
    """

    nodes: FgLabels
    warnings: tuple[Said, ...] = ()
    notes: tuple[Said, ...] = ()


def mask_files(folder: Path, case_id: str) -> tuple[Path, ...]:
    """Every file that could be the mask of a case: its id, then the ending of a format (`.nii.gz`).

    Letters with accents may be stored either way (NFC, or NFD as macOS writes them).
    """
    for spelling in (case_id, unicodedata.normalize("NFD", case_id)):
        files = (folder / f"{spelling}{ending}" for ending in volume_endings())
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
        raise InputError(found[0], said("{} exists too", file_name(found[1])), "keep one mask per case")
    return found[0]


def own_mask_files(case: Case, folder: Path | None) -> tuple[Path, ...]:
    """Every file that could be a case's own mask: as the input list says, else in the folder of the masks."""
    if case.mask is not None:
        return (case.mask,)
    return () if folder is None else mask_files(folder, case.case_id)


def own_mask(case: Case, folder: Path | None) -> Path | None:
    """The file of a case's own mask; None where the segmenter is to find the nodes.

    Raises
    ------
    InputError : there is none in the folder, or more than one, or what the input list names is not there.
    """
    if case.mask is None:
        return None if folder is None else find_mask(folder, case.case_id)
    if not case.mask.exists():
        raise InputError(case.mask, "it does not exist", "correct the mask of this case in the input list")
    return case.mask


def read_mask(path: Path, *, like: Grid, affine: AffineRule = "auto") -> Volume:
    """A label map on the CT's grid.

    Parameters
    ----------
    path : a file of a format whose files are a volume each.
    like : the CT's grid. The mask may hold the same voxels in another order of axes, as converters leave
        them; it is then reordered.
    affine : which statement of a NIfTI header counts, as for the CT.

    Returns
    -------
    uint8 on `like`.

    Raises
    ------
    InputError : it cannot be read, lies elsewhere than the CT (by more than 1e-3 mm at a corner, or 1e-4 in a
        direction cosine), or holds values that are no labels: probabilities, negative numbers, NaN.
    """
    format_ = claimed_volume(path)
    with reading(path):
        volume = format_.read(Case(path.name, format_.name, (path,), affine=affine)).volume
    return on_grid(path, volume, like)


def on_grid(path: Path, volume: Volume, like: Grid) -> Volume:
    """A label map that was read, on the CT's grid; parameters, result and errors are those of `read_mask`."""
    labels = volume.with_array(_labels(path, volume.array))
    order = _reordering(labels.grid, like)
    if order is None:
        raise InputError(path, _difference(labels.grid, like), "resample the mask onto the CT's grid")
    return Volume(labels.array, like) if np.array_equal(order, np.eye(4)) else pull_labels(labels, like)


def node_labels(path: Path, array: npt.NDArray[np.uint8], told: FgLabels | None) -> MaskLabels:
    """Which labels of an own mask are nodes; where that cannot be told, not guessed.

    Without a word from the user label 2 is nodes, as in HECKTOR, where 1 is the primary tumour. A mask with a
    single other value is taken to hold nodes. A single 1 is refused: it may be a binary mask of nodes, or the
    primary tumour of a patient without nodes.

    Parameters
    ----------
    path : of the mask, for messages.
    array : its labels.
    told : what the user says; None: nothing.

    Raises
    ------
    InputError : none of its labels is known to be nodes. Names the values that are there, and `--fg-labels`.
    """
    counts = sum(np.bincount(plane.ravel(), minlength=256) for plane in array)
    values = [int(value) for value in np.flatnonzero(counts) if value]
    nodes = (GTVN,) if told is None else told
    if not values:
        return MaskLabels(nodes, (said("the mask is empty: no nodes"),))
    chosen = values if nodes == "any" else [value for value in values if value in nodes]
    if chosen:
        rest = ours(" (1 as the primary tumour)" if GTVP in values and GTVP not in chosen else "")
        swapped = told is None and GTVP in values and _look_swapped(array)
        note = said("own mask: {} of {} taken as nodes{}", _listed(chosen), _listed(values), rest)
        return MaskLabels(nodes, (_SWAPPED,) if swapped else (), (note,))
    if told is None and len(values) == 1 and values != [GTVP]:
        return MaskLabels(
            (values[0],), (said("the only value of the mask, {}, is taken as nodes", values[0]),)
        )
    if told is not None and values == [GTVP]:
        wanted = _listed(list(nodes) if nodes != "any" else [])
        return MaskLabels(nodes, (said("the mask holds only 1, and {} are nodes: no nodes", wanted),))
    if values == [GTVP]:
        raise InputError(
            path,
            "its only value is 1, which may be nodes, or the primary tumour of a patient without nodes (then "
            "nodes are 2)",
            "choose with --fg-labels 1 or --fg-labels 2",
        )
    raise InputError(
        path,
        said(
            "it holds {} and no {}, so its nodes cannot be identified",
            _listed(values),
            _listed(list(nodes), "or"),
        ),
        said(
            "choose the labels of nodes with --fg-labels, such as --fg-labels {} (a patient "
            "without nodes has an empty mask, or 1 alone)",
            values[-1],
        ),
    )


def _look_swapped(array: npt.NDArray[np.uint8]) -> bool:
    """Whether label 1 has several parts and label 2 one: as a rule a neck has more nodes than primaries."""
    blocks = ndimage.find_objects(array, max_label=GTVN)
    parts = [
        0 if block is None else ndimage.label(array[block] == value, np.ones((3, 3, 3)))[1]
        for value, block in ((GTVP, blocks[GTVP - 1]), (GTVN, blocks[GTVN - 1]))
    ]
    return parts[1] == 1 and parts[0] >= _MANY_PARTS


def _listed(values: Sequence[int | str], word: str = "and") -> Said:
    """`1`, `1 and 3`, `1, 3 and 4`; of many the first ones."""
    shown = [said("{}", value) for value in values[:8]]
    shown += [said("{} more", len(values) - 8)] if len(values) > 8 else []
    return shown[0] if len(shown) == 1 else said("{} {} {}", joined(", ", shown[:-1]), ours(word), shown[-1])


def _labels(path: Path, array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    labels = np.empty(array.shape, dtype=np.uint8)
    # Plane by plane: a whole mask in floats would take eight times its size.
    for plane, kept in zip(array, labels, strict=True):
        bad = ~((plane >= 0) & (plane <= 255) & (plane == np.rint(plane)))
        if bad.any():
            first = plane[bad][0]
            between = bool(np.isfinite(first)) and float(first) != np.rint(float(first))
            what = (
                "apply a threshold to the probabilities and give a label map"
                if between
                else "give a label map"
            )
            raise InputError(
                path, said("it holds {:g}: its values are not labels from 0 to 255", first), what
            )
        kept[...] = plane
    return labels


def _reordering(mask: Grid, like: Grid) -> npt.NDArray[np.float64] | None:
    """4 x 4, from indices on `like` to those on `mask`, where both hold the same voxels; else None."""
    order = np.round(mask.index_map(like))
    turn = order[:3, :3]
    if not np.array_equal(np.abs(turn).sum(axis=0), [1, 1, 1]) or not np.array_equal(
        abs(turn) @ like.size, mask.size
    ):
        return None
    corners = corner_indices(like.size)
    reached = corners @ turn.T + order[:3, 3]
    if (reached < 0).any() or (reached > np.array(mask.size) - 1).any():
        return None
    shift = np.linalg.norm(mask.points(reached) - like.points(corners), axis=1).max()
    cosines = np.abs(np.array(mask.direction).T @ turn - np.array(like.direction).T).max()
    return order if shift <= TOLERANCE_MM and cosines <= TOLERANCE_COSINE else None


def _difference(mask: Grid, like: Grid) -> Said:
    """In one clause, how a mask's grid differs from the CT's."""
    if mask.size != like.size:
        return said("its size {} (z, y, x) is not the CT's, {}", mask.size, like.size)
    shift, turn = mask.differences(like)
    return said("it is {:.3g} mm away from the CT's grid (direction cosines {:.2g} apart)", shift, turn)
