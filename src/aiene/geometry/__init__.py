"""Space: where voxels lie in the patient, and every way between two grids."""

from aiene.geometry.grid import AXIAL, ORDERS, AxisOrder, Grid, Triple, Volume, triple
from aiene.geometry.resample import pull_labels, resample
from aiene.geometry.rigid import RigidTransform
from aiene.geometry.sitk_bridge import grid_of, to_sitk, volume_of

__all__ = [
    "AXIAL",
    "ORDERS",
    "AxisOrder",
    "Grid",
    "RigidTransform",
    "Triple",
    "Volume",
    "grid_of",
    "pull_labels",
    "resample",
    "to_sitk",
    "triple",
    "volume_of",
]
