"""The one border to SimpleITK, whose arrays and points are both written (x, y, z)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from aiene.geometry.grid import Grid, Volume


def to_sitk(volume: Volume) -> sitk.Image:
    """A SimpleITK image of the same voxels in the same place."""
    grid = volume.grid
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(grid.spacing[::-1])
    image.SetOrigin(grid.origin)
    image.SetDirection(np.array(grid.direction)[::-1].T.ravel().tolist())
    return image


def grid_of(image: sitk.Image) -> Grid:
    """The grid of a three-dimensional SimpleITK image.

    Raises
    ------
    ValueError : the image is not three-dimensional, or its geometry describes no lattice.
    """
    if image.GetDimension() != 3:
        raise ValueError(f"an image of {image.GetDimension()} dimensions instead of 3")
    columns = np.array(image.GetDirection()).reshape(3, 3).T[::-1]
    z, y, x = (tuple(float(v) for v in column) for column in columns)
    return Grid(
        size=image.GetSize()[::-1],
        spacing=image.GetSpacing()[::-1],
        origin=image.GetOrigin(),
        direction=(z, y, x),  # type: ignore[arg-type]
    )


def volume_of(image: sitk.Image) -> Volume:
    """The volume of a three-dimensional SimpleITK image; its voxels are copied."""
    return Volume(sitk.GetArrayFromImage(image), grid_of(image))
