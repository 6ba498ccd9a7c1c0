"""The road's own crop of each training CT, with its labels on it: training and inference see the same."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aiene.errors import AieneError, InputError
from aiene.geometry import Grid, RigidTransform, Volume, pull_labels
from aiene.ingest import read_case
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.masks import read_mask
from aiene.pipeline import Preparation
from aiene.prepare import prepare
from aiene.provenance import digest
from aiene.results.atomic import make_folder, write_bytes
from aiene.training.pairs import Pair


@dataclass(frozen=True, eq=False)
class TrainingCrop:
    """A CT and its labels as the networks see them.

    Parameters
    ----------
    image : float32, HU scaled to [0, 1], on the crop's grid in the template's space.
    labels : uint8 on the same grid: 0, 1 GTVp, 2 GTVn.
    to_native : takes points of the template's space to points of the CT.
    native : grid of the CT.
    """

    case_id: str
    patient_id: str
    image: Volume
    labels: Volume
    to_native: RigidTransform
    native: Grid


@dataclass(frozen=True)
class LeftOut:
    """A case that the road could not prepare, and why."""

    case_id: str
    reason: str


def prepared_crops(
    pairs: Sequence[Pair],
    preparation: Preparation,
    folder: Path,
    identity: str,
    on_case: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[list[Path], list[LeftOut]]:
    """Lay every pair onto the template, and keep the crops on disk; what lies there is not made again.

    Parameters
    ----------
    pairs : checked.
    preparation : template and profile of the bundle that is trained.
    folder : for the crops, one `.npz` a case; made if needed.
    identity : of the template and profile; a crop made otherwise is made anew.
    on_case : told how many of how many cases are done.

    Returns
    -------
    The file of each crop in the order of the pairs, and the cases that were left out: no neck in the CT, or
    labels that lie wholly outside the crop.

    Raises
    ------
    OutputError : a crop cannot be written; what is there stays.
    """
    make_folder(folder)
    files: list[Path] = []
    left_out: list[LeftOut] = []
    for number, pair in enumerate(pairs, start=1):
        key = digest([identity, content_sha256(pair.case.files), content_sha256([pair.label])])
        file = folder / f"{pair.case_id}.npz"
        if not _is_of(file, key):
            try:
                crop = crop_of(pair, preparation)
            except AieneError as error:
                left_out.append(LeftOut(pair.case_id, str(error)))
                on_case(number, len(pairs))
                continue
            write_bytes(file, _packed(crop, key))
        files.append(file)
        on_case(number, len(pairs))
    return files, left_out


def crop_of(pair: Pair, preparation: Preparation) -> TrainingCrop:
    """One pair on the template's crop.

    Raises
    ------
    InputError : the CT or its labels cannot be read, or no labelled voxel lies in the crop.
    CaseError : no neck is found in the CT.
    """
    ct = read_case(pair.case)
    labels = read_mask(pair.label, like=ct.volume.grid)
    prepared = prepare(ct, preparation.template, preparation.profile)
    on_crop = pull_labels(labels, prepared.crop.grid, prepared.to_native)
    if not on_crop.array.any():
        raise InputError(
            pair.label, "its labels lie outside the crop that the networks see", "leave the case out"
        )
    image = prepared.crop.with_array(prepared.crop.array.astype(np.float32))
    return TrainingCrop(pair.case_id, pair.patient_id, image, on_crop, prepared.to_native, prepared.native)


def read_crop(file: Path, patient_id: str) -> TrainingCrop:
    """A crop that was kept.

    Parameters
    ----------
    file : of `prepared_crops`; its stem is the case id.
    patient_id : whose it is.
    """
    with np.load(file) as stored:
        grid = _grid(stored["grid"], stored["image"].shape)
        return TrainingCrop(
            file.stem,
            patient_id,
            Volume(stored["image"], grid),
            Volume(stored["labels"], grid),
            RigidTransform.from_matrix(stored["to_native"]),
            _grid(stored["native"], stored["native_size"]),
        )


def _grid(affine: npt.NDArray[np.float64], size: Sequence[int]) -> Grid:
    z, y, x = (int(n) for n in size)
    return Grid.from_affine(affine, (z, y, x))


def _packed(crop: TrainingCrop, key: str) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        key=np.array(key),
        image=crop.image.array,
        labels=crop.labels.array,
        grid=crop.image.grid.affine,
        to_native=crop.to_native.matrix,
        native=crop.native.affine,
        native_size=np.array(crop.native.size),
    )
    return stream.getvalue()


def _is_of(file: Path, key: str) -> bool:
    """Whether a crop lies there that was made from the same input in the same way."""
    try:
        with np.load(file) as stored:
            return str(stored["key"]) == key
    except (OSError, ValueError, KeyError):
        return False
