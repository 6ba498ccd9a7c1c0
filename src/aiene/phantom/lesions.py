"""Planted lymph nodes and primary tumours: their shape, their margin, and how they push tissue aside.

A node without extranodal extension has a smooth, sharp margin and a plane of fat around it. With extension
the margin is rough and blurred, the fat plane is gone in part, strands reach into the fat, the centre is
necrotic more often, and neighbouring nodes may be matted. `strength` (0 to 1) says how plain these signs are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from aiene.phantom.shapes import Field, ellipsoid_distance

Side = Literal["left", "right", "midline"]
Fields = tuple[Field, Field, Field]

DISPLACEMENT_REACH = 3.5
"""Tissue further off than this many radii is not moved."""


@dataclass(frozen=True)
class Lobe:
    """One ellipsoid of a lesion.

    Parameters
    ----------
    centre : LPS mm.
    radii : mm along its own axes.
    axes : rows are the unit vectors (LPS) of its own axes.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    axes: tuple[tuple[float, float, float], ...]

    def local(self, points: Fields) -> Fields:
        """Points along the lobe's own axes, mm from its centre."""
        d = [p - np.float32(c) for p, c in zip(points, self.centre, strict=True)]
        m = np.array(self.axes, dtype=np.float32)
        x, y, z = (m[i, 0] * d[0] + m[i, 1] * d[1] + m[i, 2] * d[2] for i in range(3))
        return x, y, z

    @property
    def mean_radius(self) -> float:
        """Radius in mm of the sphere of the same volume."""
        return float(np.prod(self.radii) ** (1 / 3))


@dataclass(frozen=True)
class Margin:
    """How a lesion ends.

    Parameters
    ----------
    roughness : amplitude of its irregularity, as a share of the radius.
    waves : rows (x, y, z, phase) of plane waves on the unit sphere that make the irregularity.
    edge_mm : width over which its HU fade into the surroundings.
    fat_plane_mm : width of the fat around it; 0 is none.
    stranding : 0 to 1, how much of the fat nearby is streaked.
    """

    roughness: float
    waves: tuple[tuple[float, float, float, float], ...]
    edge_mm: float
    fat_plane_mm: float
    stranding: float

    def bumps(self, local: Fields) -> Field:
        """Irregularity (share of the radius) in the direction of each point."""
        length = np.maximum(np.sqrt(local[0] ** 2 + local[1] ** 2 + local[2] ** 2), np.float32(1e-3))
        total = np.zeros_like(length)
        for kx, ky, kz, phase in self.waves:
            total += np.cos((kx * local[0] + ky * local[1] + kz * local[2]) / length + np.float32(phase))
        scale = np.float32(self.roughness / np.sqrt(max(len(self.waves), 1) / 2))
        bumps: Field = total * scale
        return bumps


@dataclass(frozen=True)
class Lesion:
    """A node or a primary tumour.

    Parameters
    ----------
    lobes : the first is the main one; more of them are matted together.
    margin : how it ends.
    hu : of its solid part.
    necrosis : share of the radius that is necrotic; 0 is none.
    necrosis_hu : of that.
    label : 1 GTVp, 2 GTVn.
    """

    lobes: tuple[Lobe, ...]
    margin: Margin
    hu: float
    necrosis: float
    necrosis_hu: float
    label: int

    def distance(self, points: Fields) -> Field:
        """Signed distance in mm at LPS points, negative inside."""
        nearest: Field | None = None
        for lobe in self.lobes:
            local = lobe.local(points)
            d = ellipsoid_distance(local, lobe.radii)
            if self.margin.roughness:
                d = d - self.margin.bumps(local) * np.float32(lobe.mean_radius)
            nearest = d if nearest is None else np.minimum(nearest, d)
        if nearest is None:
            raise ValueError("a lesion has at least one lobe")
        return nearest

    def bounds(self, rim_mm: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Lowest and highest LPS point of a box that holds the lesion and a rim."""
        reach = [max(lobe.radii) * (1 + 2 * self.margin.roughness) + rim_mm for lobe in self.lobes]
        centres = np.array([lobe.centre for lobe in self.lobes])
        return (centres - np.array(reach)[:, None]).min(axis=0), (centres + np.array(reach)[:, None]).max(
            axis=0
        )

    def paint(self, hu: Field, points: Fields, voxel_mm: float) -> tuple[Field, npt.NDArray[np.bool_]]:
        """The surroundings' HU with the lesion in them, and where it is."""
        d = self.distance(points)
        margin = self.margin
        if margin.fat_plane_mm:
            near = np.clip((np.float32(margin.fat_plane_mm) - d) / np.float32(0.8) + np.float32(0.5), 0, 1)
            hu = hu + np.float32(0.75) * near * (-95 - hu)
        if margin.stranding:
            hu = _streaked(hu, d, points, margin)
        inside = np.clip(0.5 - d / np.float32(max(margin.edge_mm, voxel_mm)), 0, 1)
        filling = self._filling(points)
        painted: Field = (hu + inside * (filling - hu)).astype(np.float32)
        return painted, d < 0

    def _filling(self, points: Fields) -> Field:
        filling = np.full(points[0].shape, self.hu, dtype=np.float32)
        for lobe in self.lobes if self.necrosis else ():
            local = lobe.local(points)
            inner = tuple(r * self.necrosis for r in lobe.radii)
            d = ellipsoid_distance(local, inner)  # type: ignore[arg-type]
            d = d - np.float32(1.5) * self.margin.bumps(local) * np.float32(lobe.mean_radius)
            core = np.clip(0.5 - d / np.float32(2.5), 0, 1)
            filling += core * (np.float32(self.necrosis_hu) - filling)
        return filling


def _streaked(hu: Field, d: Field, points: Fields, margin: Margin) -> Field:
    """Fat near the lesion with streaks of soft tissue; other tissue stays."""
    wave = np.zeros_like(d)
    for kx, ky, kz, phase in margin.waves[:4]:
        length = np.float32(1.4 / max(float(np.linalg.norm((kx, ky, kz))), 1e-3))  # one streak every 4.5 mm
        angle = (kx * points[0] + ky * points[1] + kz * points[2]) * length + np.float32(phase)
        wave = np.maximum(wave, np.clip((np.cos(angle) - np.float32(0.45)) * 2, 0, 1))
    near = np.clip(1 - d / 9, 0, 1) * np.float32(margin.stranding)
    share = np.where(hu < 20, near * (np.float32(0.35) + np.float32(0.65) * wave), 0)
    streaked: Field = (hu + share * (np.float32(35) - hu)).astype(np.float32)
    return streaked


def pushed_back(points: Fields, lobe: Lobe) -> Fields:
    """Where tissue that now lies at `points` lay before the lobe grew there.

    Nine tenths of the lobe's volume are made room for by moving tissue outwards from its centre; the movement
    fades to nothing at `DISPLACEMENT_REACH` radii.
    """
    local = lobe.local(points)
    rho = np.sqrt(sum((a / np.float32(r)) ** 2 for a, r in zip(local, lobe.radii, strict=True)))
    kept = np.float32(0.1)
    outside = np.maximum(rho, 1)
    factor = np.cbrt(outside**3 - (1 - kept)) / outside
    fade = np.clip((np.float32(DISPLACEMENT_REACH) - rho) / np.float32(1.2), 0, 1)
    factor = 1 - (1 - factor) * fade
    x, y, z = (np.float32(c) + (p - np.float32(c)) * factor for p, c in zip(points, lobe.centre, strict=True))
    return x, y, z
