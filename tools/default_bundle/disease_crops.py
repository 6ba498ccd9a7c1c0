"""Real CTs with planted disease on the networks' crop, and what in them teaches what.

Outside the high-dose target nothing is gross disease, so what was not planted there is background or an
outlined organ. Inside, real tumour lies that nobody outlined: its soft tissue is `IGNORE`, but fat, air and
bone are what they are. Tissue at the edge of what the data set stores is `IGNORE` too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.geometry.grid import Volume
from aiene.geometry.resample import pull_labels, resample
from aiene.phantom.lesions import Lesion
from aiene.preprocess.preprocess import Prepared, fixed_window
from tools.default_bundle.disease import Disease, draw_disease, mimics
from tools.default_bundle.hosts import Host
from tools.default_bundle.organs import IGNORE, NODE, PRIMARY
from tools.default_bundle.phantom_crops import Crop, jittered, laid
from tools.default_bundle.real_crops import ENE_SHARE, mark
from tools.default_bundle.real_planting import BONE_HU, RealNode, decoys, draw_nodes, planted

Kind = Literal["disease", "round", "plain"]
"""By real numbers; the older planter's independent round nodes; the CT as it is."""

IN_TARGET = 0.35
"""Share of plantings that may lie in the high-dose target, at real disease's own places; the others lie
outside, where what surrounds them teaches too."""
_PLAIN_VESSELS = 0.25
"""Share of the enhanced hosts whose vessels are made plain."""
_SOFT_HU = (-30.0, 200.0)


class Made(NamedTuple):
    """A crop with what was planted in it."""

    crop: Crop
    nodes: list[RealNode]
    ct: Volume
    place: Prepared
    enhanced: bool
    primary: Lesion | None


def make_crop(
    host: Host,
    rng: np.random.Generator,
    kind: Kind,
    *,
    near: bool = True,
    in_target: float = IN_TARGET,
) -> Made:
    """One planting into a host.

    Parameters
    ----------
    near : lay it some degrees and mm beside where the registration did.
    in_target : share of plantings whose nodes may lie in the high-dose target; 0 where they are judged by,
        since real tumour may lie under them.
    """
    enhanced = host.enhanced
    within = kind == "disease" and rng.random() < in_target
    patient = host.patient if within else host.sparing_target()
    if enhanced and rng.random() < _PLAIN_VESSELS:
        enhanced = False
        plain = patient.ct.with_array(unenhanced(patient.ct.array, patient.muscle_hu))
        patient = replace(patient, ct=plain)
    nodes: list[RealNode] = []
    primary: Lesion | None = None
    ct = patient.ct.with_array(np.rint(patient.ct.array).astype(np.int16))
    if kind == "disease":
        disease: Disease = draw_disease(patient, rng, enhanced=enhanced, positive=bool(rng.random() < 0.9))
        nodes, primary = list(disease.nodes), disease.primary
        extra = mimics(patient, rng, enhanced=enhanced)
        ct = planted(patient, [*extra, *disease.lesions], rng, every_lobe=True)
    elif kind == "round":
        nodes = draw_nodes(patient, rng, int(rng.integers(1, 7)), ENE_SHARE)
        ct = planted(patient, [*(n.lesion for n in nodes), *decoys(patient, rng)], rng)
    place = jittered(patient.prepared, rng) if near else patient.prepared
    return Made(as_crop(host, ct, nodes, primary, place), nodes, ct, place, enhanced, primary)


def unenhanced(hu: npt.NDArray[np.float32], muscle_hu: float) -> npt.NDArray[np.float32]:
    """A CT whose soft tissue brighter than muscle is pressed to a little above it: vessels without contrast.

    Bone and its rim stay: what is over 200 HU, and its neighbours, keep their values.
    """
    bone = ndimage.binary_dilation(hu > 260, iterations=1)
    above = hu - np.float32(muscle_hu + 8)
    pressed = np.where((above > 0) & ~bone, hu - np.float32(0.85) * above, hu)
    result: npt.NDArray[np.float32] = pressed.astype(np.float32)
    return result


def as_crop(host: Host, ct: Volume, nodes: list[RealNode], primary: Lesion | None, place: Prepared) -> Crop:
    """A CT of the host's grid on the crop, with all that is known of it."""
    grid = place.crop.grid
    image = laid(ct, place)
    labels = organs_on(host, place)
    target = _pulled(host.patient.target, host, place)
    low, high = (float(fixed_window(np.array([v], np.float32))[0]) for v in _SOFT_HU)
    labels[target & (image > low) & (image < high)] = IGNORE
    labels[_pulled(host.cut, host, place)] = IGNORE
    numbers = np.zeros(grid.size, dtype=np.uint8)
    bone = image >= fixed_window(np.array([BONE_HU], np.float32))[0]
    if primary is not None:
        drawn = np.zeros_like(labels)
        mark(drawn, np.zeros_like(numbers), primary, place, 0)
        labels[(drawn > 0) & ~bone] = PRIMARY
    drawn = np.zeros_like(labels)
    for number, node in enumerate(nodes, start=1):
        mark(drawn, numbers, node.lesion, place, number)
    numbers[bone] = 0
    labels[numbers > 0] = NODE
    strengths = np.array([n.strength for n in nodes], dtype=np.float32)
    return Crop(image.astype(np.float16), labels, numbers, strengths, host.known)


def organs_on(host: Host, place: Prepared) -> npt.NDArray[np.uint8]:
    """Organs at the crop's voxel centres, with edges that are smoother than the CT's voxels."""
    best = np.full(place.crop.grid.size, 0.5, dtype=np.float32)
    labels = np.zeros(place.crop.grid.size, dtype=np.uint8)
    for label in host.known:
        share = Volume((host.organs == label).astype(np.float32), host.patient.ct.grid)
        there = resample(share, place.crop.grid, order=1, outside=0, world=place.to_native).array
        labels[there > best] = label
        best = np.maximum(best, there)
    return labels


def _pulled(mask: npt.NDArray[np.bool_], host: Host, place: Prepared) -> npt.NDArray[np.bool_]:
    on_grid = Volume(mask.astype(np.uint8), host.patient.ct.grid)
    found: npt.NDArray[np.bool_] = pull_labels(on_grid, place.crop.grid, world=place.to_native).array > 0
    return found
