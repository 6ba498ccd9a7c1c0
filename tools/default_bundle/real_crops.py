"""Real CTs with planted nodes on the networks' crop.

Nobody outlined the real tumour of these patients: their high-dose target is labelled `IGNORE`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.errors import AieneError
from aiene.geometry.grid import Volume
from aiene.geometry.resample import pull_labels
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.masks import read_mask
from aiene.ingest.read import read_case
from aiene.phantom.lesions import Lesion
from aiene.preprocess.preprocess import Prepared, prepare
from aiene.preprocess.profile import OPEN
from aiene.preprocess.registration import Template
from tools.default_bundle.holdout import held_out, kept_back
from tools.default_bundle.organs import IGNORE
from tools.default_bundle.phantom_crops import Crop, laid
from tools.default_bundle.real_planting import Patient, RealNode, box_in, patient_of

PTV70 = 3
ENE_SHARE = 0.3
_TARGET_RIM_MM = 4.0


class Patients(NamedTuple):
    """Ids of the real CTs: to learn from, to choose thresholds on, and kept out."""

    training: list[str]
    validation: list[str]
    kept_out: list[str]


def real_patients(openkbp: Path) -> Patients:
    """Who is in which set."""
    ids = sorted(folder.name for folder in openkbp.glob("pt_*") if (folder / "ct.nii.gz").exists())
    out, back = held_out(ids), kept_back(ids)
    return Patients(
        [i for i in ids if i not in out | back], [i for i in ids if i in back], [i for i in ids if i in out]
    )


def read_patient(openkbp: Path, patient: str, template: Template) -> Patient:
    """A CT of OpenKBP, laid by the road, with its high-dose target.

    Raises
    ------
    AieneError : it cannot be read, or holds no neck.
    """
    (case,), _ = find_cases(openkbp / patient / "ct.nii.gz")
    if not isinstance(case, Case):
        raise AieneError(case.reason)
    ct = read_case(case)
    target = read_mask(openkbp / patient / "ptv.nii.gz", like=ct.volume.grid).array == PTV70
    away = ndimage.distance_transform_edt(~target, sampling=ct.volume.grid.spacing)
    return patient_of(ct.volume, prepare(ct, template, OPEN), away <= _TARGET_RIM_MM)


def as_crop(patient: Patient, ct: Volume, nodes: list[RealNode], place: Prepared) -> Crop:
    """A CT of the patient's grid on the crop, with its truth."""
    grid = place.crop.grid
    target = pull_labels(Volume(patient.target.astype(np.uint8), ct.grid), grid, world=place.to_native)
    labels = np.where(target.array > 0, IGNORE, 0).astype(np.uint8)
    numbers = np.zeros(grid.size, dtype=np.uint8)
    for number, node in enumerate(nodes, start=1):
        mark(labels, numbers, node.lesion, place, number)
    strengths = np.array([n.strength for n in nodes], dtype=np.float32)
    return Crop(laid(ct, place).astype(np.float16), labels, numbers, strengths)


def mark(
    labels: npt.NDArray[np.uint8],
    numbers: npt.NDArray[np.uint8],
    lesion: Lesion,
    place: Prepared,
    number: int,
) -> None:
    """Label in place the crop's voxel centres that lie in a lesion."""
    low, high = lesion.bounds(2.0)
    corners = np.array([[(low, high)[b][a] for a, b in enumerate(which)] for which in np.ndindex(2, 2, 2)])
    here = place.to_native.inverse().apply(corners)
    box = box_in(place.crop.grid, here.min(axis=0), here.max(axis=0))
    if box is None:
        return
    index = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), axis=-1)
    points = place.to_native.apply(place.crop.grid.points(index.reshape(-1, 3))).astype(np.float32)
    x, y, z = (points[:, a].reshape(index.shape[:3]) for a in range(3))
    inside = lesion.distance((x, y, z)) < 0
    labels[box][inside] = 2
    numbers[box][inside] = number
