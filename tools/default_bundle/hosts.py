"""Real CTs as hosts of planted disease: what is stored of them, their organs, and contrast medium."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.errors import AieneError
from aiene.geometry.grid import RigidTransform, Volume
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.masks import read_mask
from aiene.ingest.read import read_case
from aiene.preprocess.preprocess import Prepared, prepare
from aiene.preprocess.profile import OPEN
from aiene.preprocess.registration import Template
from tools.default_bundle.organs import OF_OPENKBP
from tools.default_bundle.real_planting import CANONICAL_CENTRE, Patient, patient_of

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint8]
Place = tuple[float, float, float]

PTV70 = 3
TARGET_RIM_MM = 4.0
"""The high-dose target is taken this much wider: disease may reach its edge."""
_CUT_RIM_MM = 6.0
"""Tissue so near the edge of the stored region is not learned from: the CT ends there."""

ORGAN_PLACES: dict[int, Place] = {
    1: (0, 25, 74),
    3: (-57, 1, 51),
    4: (57, 1, 51),
    6: (0, -11, -27),
    7: (0, -41, 34),
}
"""Median canonical centre (mm) of brainstem, parotids, larynx and mandible of `oar.nii.gz` over 45 to 67
crops of the training CTs, as the registration lays them; see `well_laid`."""
FARTHEST_ORGANS_MM = 25.0
"""Mean distance of the organs from their usual places from which a registration counts as failed."""


@dataclass(frozen=True, eq=False)
class Host:
    """A real CT, ready for planting.

    Parameters
    ----------
    name : of the patient's folder.
    patient : CT, pose, high-dose target, and the clearance to bone, air and skin, the target not counted.
    outside_target : the clearance to the target too.
    organs : labels of `organs.CLASSES` on the CT's grid, 0 elsewhere.
    known : which of them were outlined.
    cut : tissue at the edge of what the data set holds, where the CT ends without skin.
    enhanced : vessels are filled with contrast medium.
    """

    name: str
    patient: Patient
    outside_target: npt.NDArray[np.float32]
    organs: Labels
    known: tuple[int, ...]
    cut: Mask
    enhanced: bool

    def sparing_target(self) -> Patient:
        """The patient with a clearance to the high-dose target."""
        return replace(self.patient, clearance=self.outside_target)


def read_host(folder: Path, template: Template) -> Host:
    """A patient's folder of OpenKBP as a host.

    Raises
    ------
    AieneError : it cannot be read, or no neck is found in it.
    """
    (case,), _ = find_cases(folder / "ct.nii.gz")
    if not isinstance(case, Case):
        raise AieneError(case.reason)
    ct = read_case(case)
    grid = ct.volume.grid
    numbers = _mask(folder / "oar.nii.gz", ct.volume)
    prepared = prepare(ct, template, OPEN)
    prepared = well_laid(prepared, ct.volume.with_array(numbers))
    target = _mask(folder / "ptv.nii.gz", ct.volume) == PTV70
    away = ndimage.distance_transform_edt(~target, sampling=grid.spacing)
    patient = patient_of(ct.volume, prepared, np.zeros(grid.size, dtype=bool))
    outside = np.minimum(patient.clearance, away - TARGET_RIM_MM).astype(np.float32)
    organs = np.zeros(grid.size, dtype=np.uint8)
    for number, label in OF_OPENKBP.items():
        organs[numbers == number] = label
    return Host(
        folder.name,
        replace(patient, target=away <= TARGET_RIM_MM, off_phantom_mm=off_phantom(prepared)),
        outside,
        organs,
        tuple(int(v) for v in np.unique(organs) if v),
        cut_tissue(ct.volume),
        is_enhanced(patient),
    )


def _mask(file: Path, like: Volume) -> Labels:
    if not file.exists():
        return np.zeros(like.grid.size, dtype=np.uint8)
    return read_mask(file, like=like.grid).array.astype(np.uint8)


def cut_tissue(ct: Volume) -> Mask:
    """Tissue within some mm of where OpenKBP's CT is blank: it was stored where a dose was possible.

    Blank is -1024 HU to the edge of the array. The skin lies in stored air, so that tissue beside blank
    voxels was cut.
    """
    outside = _joined_to_edge(ct.array <= -1024)
    tissue = ct.array > -300
    edge: Mask = ndimage.binary_dilation(outside) & tissue
    if not edge.any():
        return edge
    near: Mask = ndimage.distance_transform_edt(~edge, sampling=ct.grid.spacing) < _CUT_RIM_MM
    return near & tissue


def _joined_to_edge(blank: Mask) -> Mask:
    padded = np.pad(blank, 1, constant_values=True)
    named, _ = ndimage.label(padded)
    joined: Mask = (named == named[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return joined


def canonical_places(prepared: Prepared, organs: Volume) -> dict[int, Place]:
    """Canonical centre (mm) of each outlined organ, where the registration laid the neck."""
    back = prepared.to_native.inverse()
    crop = np.array(prepared.crop.grid.centre) - np.array(CANONICAL_CENTRE)
    places: dict[int, Place] = {}
    for number in np.unique(organs.array):
        voxels = np.argwhere(organs.array == number)
        if number and len(voxels) > 3:
            x, y, z = (float(v) for v in back.apply(organs.grid.points(voxels.mean(axis=0))).ravel() - crop)
            places[int(number)] = (x, y, z)
    return places


def well_laid(prepared: Prepared, organs: Volume) -> Prepared:
    """The prepared case, shifted by its organs where the registration lies far off them.

    CTs that cover little of the body register poorly; their outlined organs say where the neck is.
    """
    places = canonical_places(prepared, organs)
    shared = [k for k in places if k in ORGAN_PLACES]  # cord and oesophagus: how much is outlined moves them
    if not shared:
        return prepared
    off = np.array([np.subtract(places[k], ORGAN_PLACES[k]) for k in shared])
    if float(np.linalg.norm(off, axis=1).mean()) <= FARTHEST_ORGANS_MM:
        return prepared
    x, y, z = (float(v) for v in np.median(off, axis=0))
    moved = RigidTransform(translation=(x, y, z))
    return replace(prepared, to_native=prepared.to_native.after(moved))


ENHANCED_ABOVE_MUSCLE_HU = 25.0
"""By `bright_above_muscle`: about half of 44 training CTs lie from -34 to 20, the others from 23 to 160."""

PHANTOM_AIRWAY_Y_MM = -24.0
"""Canonical place of the phantom's airway (`aiene.phantom.skeleton`), on average over the heights below."""
USUAL_AIRWAY_Y_MM = -10.0
"""Where that of the training CTs lies by the crop's centre (median of 44, quartiles -16 and -5): for CTs that
show none."""
_AIRWAY_HEIGHTS_MM = (-40.0, 40.0)
_LEAST_SLICES = 6
_OFF_RANGE_MM = (-10.0, 45.0)
"""CTs that cover little lie further off: their outline is another. What is beyond is no airway."""


def off_phantom(prepared: Prepared) -> Place:
    """How far a neck lies from where the crop's centre alone would put the phantom's anatomy, by the airway.

    The crop's centre follows the body's outline in plane, not the neck's inner anatomy.

    Parameters
    ----------
    prepared : its crop is scaled to [0, 1].
    """
    grid = prepared.crop.grid
    middle = (np.array(grid.size) - 1) / 2
    seen = []
    for number, plane in enumerate(prepared.crop.array):
        height = (number - middle[0]) * grid.spacing[0] + CANONICAL_CENTRE[2]
        if not _AIRWAY_HEIGHTS_MM[0] <= height <= _AIRWAY_HEIGHTS_MM[1]:
            continue
        body = ndimage.binary_fill_holes(plane > 0.15)
        air = (plane < 0.02) & ndimage.binary_erosion(body, iterations=8)
        named, count = ndimage.label(air)
        sizes = np.bincount(named.ravel(), minlength=count + 1)
        centres = ndimage.center_of_mass(air, named, range(1, count + 1))
        near = [
            (sizes[k + 1], (y - middle[1]) * grid.spacing[1], (x - middle[2]) * grid.spacing[2])
            for k, (y, x) in enumerate(centres)
            if sizes[k + 1] >= 40 and abs(x - middle[2]) * grid.spacing[2] < 12
        ]
        if near:
            seen.append(max(near)[1:])
    y = USUAL_AIRWAY_Y_MM
    if len(seen) >= _LEAST_SLICES:
        y = float(np.median([at[0] for at in seen])) + CANONICAL_CENTRE[1]
    return 0.0, float(np.clip(y - PHANTOM_AIRWAY_Y_MM, *_OFF_RANGE_MM)), 0.0


def is_enhanced(patient: Patient) -> bool:
    """Whether the neck's vessels are filled with contrast medium: bright voxels far from bone."""
    return bright_above_muscle(patient) > ENHANCED_ABOVE_MUSCLE_HU


def bright_above_muscle(patient: Patient) -> float:
    """95th percentile of the neck's soft tissue 8 mm and more from bone, in HU above the muscle.

    Vessels are about a twentieth of it; the thyroid, which is bright without contrast medium, is less.
    """
    grid, hu = patient.ct.grid, patient.ct.array
    far = ndimage.distance_transform_edt(~(hu > 350), sampling=grid.spacing) > 8
    voxels = np.argwhere(far & (hu > -30) & (hu < 350))
    crop = np.array(patient.prepared.crop.grid.centre) - np.array(CANONICAL_CENTRE)
    at = patient.prepared.to_native.inverse().apply(grid.points(voxels)) - crop
    neck = (np.abs(at[:, 0]) < 55) & (np.abs(at[:, 1]) < 45) & (at[:, 2] > -60) & (at[:, 2] < 30)
    values = hu[tuple(voxels[neck].T)]
    return float(np.percentile(values, 95)) - patient.muscle_hu if len(values) > 50 else 0.0
