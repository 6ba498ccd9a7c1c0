"""nnU-Net's own preparation of an image, on top of ours: cut, resample, normalise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.transform import resize

from aiene.errors import CaseError
from aiene.geometry.grid import Volume, bounding_box
from aiene.segment.plans import Normalisation, Order, Plan, Resizing, Shape

# Bringing arrays to another number of voxels, as nnU-Net does (both versions agree).


Spacing = Sequence[float]


def new_shape(shape: Sequence[int], spacing: Spacing, wanted: Spacing) -> Shape:
    """Voxels along each axis at another spacing (mm); halves go to the even number."""
    a, b, c = (round(old / new * n) for n, old, new in zip(shape, spacing, wanted, strict=True))
    return max(a, 1), max(b, 1), max(c, 1)


def coarse_axis(spacings: Sequence[Spacing], how: Resizing) -> int | None:
    """The axis that is resampled by itself; None where all three go together.

    Parameters
    ----------
    spacings : looked at in this order; the first that is anisotropic decides (the first, where forced).
    how : whether an axis is treated by itself always, never, or where its spacing is *over* so many times
        the finest.
    """
    if how.force_separate_z is False:
        return None
    for spacing in spacings:
        if how.force_separate_z or max(spacing) / min(spacing) > how.separate_z_anisotropy_threshold:
            coarsest = [axis for axis, mm in enumerate(spacing) if mm == max(spacing)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def resized(
    array: npt.NDArray[np.float32], shape: Shape, how: Resizing, axis: int | None
) -> npt.NDArray[np.float32]:
    """An array (three axes) with another number of voxels over the same extent.

    Spline of order `how.order`, edge values outside, clipped to the input's range; or PyTorch's
    interpolation, where the plan asks for it. With a coarse `axis` each slice is resized by itself, then the
    slices along the axis.
    """
    if tuple(array.shape) == tuple(shape):
        return array
    if how.by == "torch":
        return _by_torch(array, shape, how, axis)
    values = array.astype(np.float64)
    if axis is None:
        return _spline(values, shape, how.order).astype(np.float32)
    plane = tuple(n for i, n in enumerate(shape) if i != axis)
    slices = [_spline(part, plane, how.order) for part in np.moveaxis(values, axis, 0)]
    return _along(np.stack(slices, axis), axis, shape[axis], how.order_z).astype(np.float32)


def _spline(values: npt.NDArray[np.float64], shape: tuple[int, ...], order: Order) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = resize(values, shape, order, mode="edge", anti_aliasing=False)
    return result


def _along(values: npt.NDArray[np.float64], axis: int, size: int, order: Order) -> npt.NDArray[np.float64]:
    """Resample one axis only, voxel edges aligned."""
    old = values.shape[axis]
    if old == size:
        return values
    at = old / size * (np.arange(size) + 0.5) - 0.5
    axes = [at if i == axis else np.arange(n, dtype=np.float64) for i, n in enumerate(values.shape)]
    coordinates = np.stack(np.meshgrid(*axes, indexing="ij"))
    result: npt.NDArray[np.float64] = ndimage.map_coordinates(
        values, coordinates, order=order, mode="nearest"
    )
    return result


_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


def _by_torch(
    array: npt.NDArray[np.float32], shape: Shape, how: Resizing, axis: int | None
) -> npt.NDArray[np.float32]:
    """nnU-Net's `resample_torch_fornnunet`: without a coarse axis it is linear, whatever `mode` says."""
    if axis is None:
        linear: npt.NDArray[np.float32] = _interpolated(array[None], shape, "linear")[0]
        return linear
    plane = tuple(n for i, n in enumerate(shape) if i != axis)
    slices = _interpolated(np.moveaxis(array, axis, 0), plane, how.mode)
    whole: npt.NDArray[np.float32] = _interpolated(
        np.moveaxis(slices, 0, axis)[None], shape, how.aniso_axis_mode
    )[0]
    return whole


def _interpolated(
    channels: npt.NDArray[np.float32], shape: tuple[int, ...], mode: str
) -> npt.NDArray[np.float32]:
    """(channels, ...) at another size."""
    image = torch.from_numpy(np.ascontiguousarray(channels))[None]
    named = _LINEAR[image.ndim] if mode == "linear" else mode
    result: npt.NDArray[np.float32] = torch.nn.functional.interpolate(image, shape, mode=named)[0].numpy()
    return result


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
    CaseError : the crop is zero everywhere, or holds values that are not numbers.
    """
    image = np.ascontiguousarray(np.transpose(crop.array, plan.forward), dtype=np.float32)
    if not np.isfinite(image).all():
        raise CaseError("the crop holds values that are not numbers", "check the CT")
    inside = ndimage.binary_fill_holes(image != 0)
    box = bounding_box(inside)
    if box is None:
        raise CaseError("the crop holds nothing but zero", "check that the CT shows the neck")
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
