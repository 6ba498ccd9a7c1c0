"""nnU-Net's own preparation of an image, on top of ours: cut, resample, normalise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.errors import CaseError
from aiene.geometry import Volume
from aiene.segment.plan import Normalisation, Plan, Shape
from aiene.segment.resampling import coarse_axis, new_shape, resized

Image = npt.NDArray[np.float32]

_TINY = 1e-8


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """What the network sees, and where it lies in the crop. Axes are those after the plan's transposition.

    Parameters
    ----------
    image : float32, cut to the non-zero part, at the plan's spacing, normalised; not yet padded.
    box : where the cut part lies in the (transposed) crop.
    whole : size of the (transposed) crop.
    spacing : mm of the crop, as a NIfTI header holds it.
    """

    image: Image
    box: tuple[slice, slice, slice]
    whole: Shape
    spacing: tuple[float, float, float]

    @property
    def cut(self) -> Shape:
        """Size of the cut part, before resampling."""
        z, y, x = (part.stop - part.start for part in self.box)
        return z, y, x


def network_input(crop: Volume, plan: Plan) -> NetworkInput:
    """Cut a crop to its non-zero voxels (holes filled), resample and normalise it.

    nnU-Net v1 resamples first, v2 normalises first: the plan says whose model it is.

    Raises
    ------
    CaseError : the crop is zero everywhere, or holds values that are no numbers.
    """
    image = np.ascontiguousarray(np.transpose(crop.array, plan.forward), dtype=np.float32)
    if not np.isfinite(image).all():
        raise CaseError("the crop holds values that are not numbers", "check the CT")
    inside = ndimage.binary_fill_holes(image != 0)
    boxes = ndimage.find_objects(inside.astype(np.uint8))
    if not boxes:
        raise CaseError("the crop holds nothing but zero", "check that the CT shows the neck")
    box = (boxes[0][0], boxes[0][1], boxes[0][2])
    # nnU-Net reads the spacing from a NIfTI header: float32, so that 3.0000000001 is 3, not over 3
    z, y, x = (float(np.float32(crop.grid.spacing[axis])) for axis in plan.forward)
    return NetworkInput(
        image=_prepared(image[box], inside[box], (z, y, x), plan),
        box=box,
        whole=(image.shape[0], image.shape[1], image.shape[2]),
        spacing=(z, y, x),
    )


def _prepared(
    image: Image, inside: npt.NDArray[np.bool_], spacing: tuple[float, float, float], plan: Plan
) -> Image:
    shape = new_shape(image.shape, spacing, plan.spacing)
    axis = coarse_axis((spacing, plan.spacing), plan.image_resizing)
    if plan.from_v1:
        return normalised(resized(image, shape, plan.image_resizing, axis), plan.normalisation, None)
    return resized(normalised(image, plan.normalisation, inside), shape, plan.image_resizing, axis)


def normalised(image: Image, how: Normalisation, inside: npt.NDArray[np.bool_] | None) -> Image:
    """Normalised intensities, float32; the input is left as it is."""
    if how.scheme == "NoNormalization":
        return np.ascontiguousarray(image)
    if how.scheme == "RescaleTo01Normalization":
        from_zero = image - image.min()
        return np.asarray(from_zero / max(from_zero.max(), np.float32(_TINY)), dtype=np.float32)
    if how.scheme == "CTNormalization":
        clipped: Image = np.clip(image, np.float32(how.low), np.float32(how.high))
        return (clipped - np.float32(how.mean)) / np.float32(max(how.sd, _TINY))
    if how.inside_mask and inside is not None:
        values = image[inside]
        result = image.copy()
        result[inside] = (values - values.mean()) / max(values.std(), np.float32(_TINY))
        return result
    return np.asarray((image - image.mean()) / max(image.std(), np.float32(_TINY)), dtype=np.float32)
