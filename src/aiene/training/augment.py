"""Another view of the same node: turned, scaled, mirrored, noisier, drawn by another hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from aiene.classify import classifier_inputs
from aiene.classify.inputs import ClassifierInputs, Normalisation
from aiene.nodes.split import dilate
from aiene.training.node_examples import Example, jittered


@dataclass(frozen=True)
class Augmentation:
    """How far a view may differ; all drawn evenly within these bounds.

    Parameters
    ----------
    turn_degrees : about each axis.
    scale : relative.
    offset, gain : of the scaled HU; 0.02 of the window is some 25 HU.
    noise : standard deviation at most, of the scaled HU.
    redraw : chance that the contour is drawn a voxel wider or tighter.
    """

    turn_degrees: float = 10.0
    scale: float = 0.1
    offset: float = 0.02
    gain: float = 0.05
    noise: float = 0.02
    redraw: float = 0.5


def plain_inputs(example: Example, normalisation: Normalisation) -> ClassifierInputs | None:
    """What the classifier sees of a node as it is; None where there is nothing but air."""
    return classifier_inputs(example.image.astype(np.float32), dilate(example.mask), normalisation)


def augmented_inputs(
    example: Example, normalisation: Normalisation, bounds: Augmentation, rng: np.random.Generator
) -> ClassifierInputs | None:
    """What the classifier would see of a node in another patient's pose, by another scanner and hand."""
    matrix, offset = _affine(example, bounds, rng)
    image = example.image.astype(np.float32)
    mask = example.mask
    image = ndimage.affine_transform(image, matrix, offset, order=1, mode="nearest")
    turned = ndimage.affine_transform(mask.astype(np.uint8), matrix, offset, order=0) > 0
    mask = turned if turned.any() else mask
    if rng.random() < bounds.redraw:
        mask = jittered(mask, 1 if rng.random() < 0.5 else -1)
    image = image * np.float32(1 + rng.uniform(-bounds.gain, bounds.gain))
    image += np.float32(rng.uniform(-bounds.offset, bounds.offset))
    sigma = np.float32(rng.uniform(0, bounds.noise))
    image += rng.standard_normal(image.shape, dtype=np.float32) * sigma
    return classifier_inputs(np.clip(image, 0, 1), dilate(mask), normalisation)


def _affine(
    example: Example, bounds: Augmentation, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """From indices of the new view to those of the stored one, about the node's centre, turned in mm."""
    angles = rng.uniform(-bounds.turn_degrees, bounds.turn_degrees, size=3)
    in_mm = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() / rng.uniform(
        1 - bounds.scale, 1 + bounds.scale
    )
    if rng.random() < 0.5:
        in_mm[:, 2] *= -1
    spacing = np.diag(example.spacing)
    matrix = np.linalg.inv(spacing) @ in_mm @ spacing
    centre = np.argwhere(example.mask).mean(axis=0)
    return matrix, centre - matrix @ centre
