"""Whether a registration is to be believed: numbers that can be compared between starts, and their limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.geometry import Grid, RigidTransform, Volume, resample
from aiene.prepare.body import body_mask, grown
from aiene.prepare.shrink import shrunk

_COARSE_MM = (6.0, 6.0, 6.0)
_RIM_MM = 12.0
_WINDOW = (-400.0, 400.0)
_BINS = 32


@dataclass(frozen=True, eq=False)
class Scene:
    """Template and CT on coarse lattices, with their bodies: what every start is judged on.

    Parameters
    ----------
    template, ct : float32 HU at about 6 mm.
    template_body, ct_body : bool masks on them.
    """

    template: Volume
    ct: Volume
    template_body: npt.NDArray[np.bool_]
    ct_body: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Verdict:
    """How well a CT lies on the template.

    Parameters
    ----------
    metric : mutual information (nats) with its sign turned, so that lower is better.
    overlap : Dice of the two bodies where template and CT are both known.
    """

    metric: float
    overlap: float


def scene_of(template: Volume, ct: Volume) -> Scene:
    """Template and CT made ready to be judged."""
    coarse_template, coarse_ct = shrunk(template, _COARSE_MM), shrunk(ct, _COARSE_MM)
    return Scene(coarse_template, coarse_ct, body_mask(coarse_template), body_mask(coarse_ct))


def judged(scene: Scene, transform: RigidTransform) -> Verdict:
    """The verdict on a transform from template points to CT points.

    The metric is taken over the same voxels for every transform: all of the CT near its body, with air where
    the template ends. So it gains nothing by moving the CT off the template.
    """
    ct, back = scene.ct, transform.inverse()
    near = grown(scene.ct_body, ct.grid.spacing, _RIM_MM)
    template = resample(scene.template, ct.grid, order=1, outside=-1000.0, world=back).array
    body = resample(
        scene.template.with_array(scene.template_body.astype(np.float32)),
        ct.grid,
        order=1,
        outside=np.nan,
        world=back,
    ).array
    known = np.isfinite(body)
    inside = body[known] > 0.5
    both = 2.0 * (inside & scene.ct_body[known]).sum()
    overlap = both / max(1, inside.sum() + scene.ct_body[known].sum())
    return Verdict(-mutual_information(template[near], ct.array[near]), float(overlap))


def mutual_information(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Mutual information (nats) of two samples of HU, over equal bins of the soft-tissue window."""
    limits = (_WINDOW, _WINDOW)
    joint, _, _ = np.histogram2d(a.clip(*_WINDOW), b.clip(*_WINDOW), bins=_BINS, range=limits)
    if joint.sum() == 0:
        return 0.0
    p = joint / joint.sum()
    product = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    some = p > 0
    return float((p[some] * np.log(p[some] / product[some])).sum())


def covered_share(lattice: Grid, transform: RigidTransform, known: Grid) -> float:
    """Share of a lattice's voxels that lie within half a voxel of a CT's grid.

    Parameters
    ----------
    lattice : in the template's space.
    transform : from there to the CT's space.
    known : the CT's grid.
    """
    steps = np.meshgrid(*(np.arange(0, n, 4) for n in lattice.size), indexing="ij")
    points = transform.apply(lattice.points(np.stack(steps, axis=-1).reshape(-1, 3)))
    at = known.indices(points)
    inside = ((at >= -0.5) & (at <= np.array(known.size) - 0.5)).all(axis=1)
    return float(inside.mean())


def narrowest(body: npt.NDArray[np.bool_], volume: Volume, near: npt.NDArray[np.float64]) -> float | None:
    """Height (mm along the volume's z axis) of the narrowest cross-section of a body around a point.

    None where the body does not widen on both sides, so that no neck can be told.

    Parameters
    ----------
    body : on the volume's grid, axis 0 along the patient.
    near : LPS mm; cross-sections within 90 mm of it are looked at.
    """
    axis = np.array(volume.grid.direction[0])
    heights = volume.grid.points(np.eye(1, 3) * 0 + np.arange(body.shape[0])[:, None] * [1, 0, 0]) @ axis
    area = ndimage.gaussian_filter1d(body.sum(axis=(1, 2)).astype(np.float64), 10 / volume.grid.spacing[0])
    window = np.flatnonzero((np.abs(heights - axis @ near) <= 90) & body.any(axis=(1, 2)))
    if window.size < 3:
        return None
    at = int(window[np.argmin(area[window])])
    if at in (window[0], window[-1]):
        return None
    return float(heights[at])
