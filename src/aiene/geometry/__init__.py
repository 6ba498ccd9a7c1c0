"""Space: where voxels lie in the patient, and every way between two grids."""

from aiene.geometry.grid import (
    AXIAL,
    ORDERS,
    AxisOrder,
    Grid,
    Triple,
    Volume,
    grid_of,
    to_sitk,
    triple,
    volume_of,
)
from aiene.geometry.resample import (
    Block,
    RigidTransform,
    bounding_box,
    nearest_voxels,
    pull_labels,
    resample,
)

__all__ = [
    "AXIAL",
    "ORDERS",
    "AxisOrder",
    "Block",
    "Grid",
    "RigidTransform",
    "Triple",
    "Volume",
    "bounding_box",
    "grid_of",
    "nearest_voxels",
    "pull_labels",
    "resample",
    "to_sitk",
    "triple",
    "volume_of",
]
