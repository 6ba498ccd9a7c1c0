"""Bringing arrays to another number of voxels, as nnU-Net does (both versions agree)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.transform import resize

from aiene.segment.plan import Order, Resizing, Shape

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
        whole: npt.NDArray[np.float32] = _interpolated(array[None], shape, "linear")[0]
        return whole
    plane = tuple(n for i, n in enumerate(shape) if i != axis)
    slices = _interpolated(np.moveaxis(array, axis, 0), plane, how.mode)
    result: npt.NDArray[np.float32] = _interpolated(
        np.moveaxis(slices, 0, axis)[None], shape, how.aniso_axis_mode
    )[0]
    return result


def _interpolated(
    channels: npt.NDArray[np.float32], shape: tuple[int, ...], mode: str
) -> npt.NDArray[np.float32]:
    """(channels, ...) at another size."""
    image = torch.from_numpy(np.ascontiguousarray(channels))[None]
    named = _LINEAR[image.ndim] if mode == "linear" else mode
    result: npt.NDArray[np.float32] = torch.nn.functional.interpolate(image, shape, mode=named)[0].numpy()
    return result
