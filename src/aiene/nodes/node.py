"""A lymph node: where it is, how large, and what the classifier says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Side = Literal["left", "right", "midline"]


@dataclass(frozen=True)
class Axes:
    """Long and short axes in mm, in the plane of largest area of each orientation."""

    short_axial: float
    short_coronal: float
    short_sagittal: float
    long_axial: float
    long_coronal: float
    long_sagittal: float

    @property
    def largest_short(self) -> float:
        """The largest of the three short axes; 0 if none is over 0."""
        return max(self.short_axial, self.short_coronal, self.short_sagittal, 0.0)


@dataclass(frozen=True, eq=False)
class Node:
    """One malignant lymph node on the crop.

    Parameters
    ----------
    number : the published numbering: watershed label, with gaps.
    mask : bool (64, 160, 160) on the crop, the outer layer of the watershed included.
    dilated : bool, the classifier's mask: `mask` grown by 4 voxels in plane.
    volume_before_mm3, volume_after_mm3 : of `mask` and `dilated` on the crop.
    axes : None where they were not asked for.
    touches_border : `mask` reaches the crop's edge, so a part of the node may be missing.
    """

    number: int
    mask: npt.NDArray[np.bool_]
    dilated: npt.NDArray[np.bool_]
    volume_before_mm3: float
    volume_after_mm3: float
    axes: Axes | None
    touches_border: bool


@dataclass(frozen=True)
class NativePlace:
    """A node on the patient's own CT.

    Parameters
    ----------
    centroid_lps_mm : mean of the voxel centres, (x, y, z).
    volume_mm3 : voxels on the native grid times their volume.
    side : of the neck, by the centroid against the template's midline.
    touches_border : the node reaches the native CT's edge.
    """

    centroid_lps_mm: tuple[float, float, float]
    volume_mm3: float
    side: Side
    touches_border: bool


@dataclass(frozen=True)
class Score:
    """The classifier's two outputs, each 0 to 1."""

    pos: float
    ene: float
