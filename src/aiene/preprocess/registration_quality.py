"""Registration of a CT to the template from several starts, each judged by numbers that can be compared.

The first start is kept where its quality is good; else the others are tried, and the best is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.errors import CaseError, Said, said
from aiene.geometry.grid import Grid, RigidTransform, Triple, Volume, triple
from aiene.geometry.resample import downsample, resample
from aiene.preprocess.patient import Mask, body_mask, dilate
from aiene.preprocess.profile import STEADY, Profile, RegistrationSettings, Start
from aiene.preprocess.registration import Pose, Template, refine, registration_image, start_pose
from aiene.preprocess.resampling import Working

_COARSE_MM = (6.0, 6.0, 6.0)
_RIM_MM = 12.0
_WINDOW = (-400.0, 400.0)
_BINS = 32

# Measured on the 105 CTs of OpenKBP: the metric lies between -0.72 and -0.14 (upside-down CTs and noise:
# above -0.09), the overlap over 0.7 but for two CTs blanked near the target, the angle under 16 degrees.
_LEAST_COVERED = 0.25
_NO_NECK_METRIC = -0.09
_POOR_COVERED = 0.75
_POOR_OVERLAP = 0.70
_POOR_ANGLE = 35.0
_POOR_METRIC = -0.12
_POOR_NECK_MM = 45.0
_CLEARLY_WORSE = 0.03
_CLEARLY_WORSE_SHARE = 0.15
_IN_PLANE_REACH_MM = 100.0


@dataclass(frozen=True)
class RegistrationReport:
    """How a CT came to lie on the template, and whether to believe it.

    Parameters
    ----------
    start : name of the start that was kept (`geometry`, `body`, `bone`, ...).
    metric : negative mutual information at the end, lower is better; over the same voxels of the CT for every
        start and profile, so that starts can be compared.
    starts : every start that was tried, with its metric at the end.
    body_overlap : Dice of CT body and template body, on the part of the template that the CT covers.
    angle_degrees, shift_mm : size of the rigid transform (shift of the template's centre, apart from the
        centring of the two volumes).
    covered : share of the crop that the CT covers, 0 to 1.
    neck_centre_mm : offset (x, y, z) of the neck's centre in the crop from where it should be; None unknown.
    trusted : False where the result was judged poor.
    """

    start: str
    metric: float
    starts: tuple[tuple[str, float], ...]
    body_overlap: float
    angle_degrees: float
    shift_mm: float
    covered: float
    neck_centre_mm: tuple[float, float, float] | None
    trusted: bool


@dataclass(frozen=True, eq=False)
class Scene:
    """Template and CT on coarse lattices, with their bodies: what every start is scored on.

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
    """Template and CT made ready for scoring."""
    coarse_template, coarse_ct = downsample(template, _COARSE_MM), downsample(ct, _COARSE_MM)
    return Scene(coarse_template, coarse_ct, body_mask(coarse_template), body_mask(coarse_ct))


def score_pose(scene: Scene, transform: RigidTransform) -> Verdict:
    """The verdict on a transform from template points to CT points.

    The metric is taken over the same voxels for every transform: all of the CT near its body, with air where
    the template ends. So it gains nothing by moving the CT off the template.
    """
    ct, back = scene.ct, transform.inverse()
    near = dilate(scene.ct_body, ct.grid.spacing, _RIM_MM)
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


def neck_height(body: npt.NDArray[np.bool_], volume: Volume, near: npt.NDArray[np.float64]) -> float | None:
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


@dataclass(frozen=True)
class Attempt:
    """One start, where it led, and the verdict on it."""

    start: Start
    pose: Pose
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class Fit:
    """The attempt that was kept, and what is known of it.

    Parameters
    ----------
    kept : the pose of the registration, with its start and verdict.
    tried : every attempt.
    doubts : what speaks against it; plain sentences.
    scene : what it was scored on.
    profile : of the crop that is taken next.
    """

    kept: Attempt
    tried: tuple[Attempt, ...]
    doubts: tuple[Said, ...]
    scene: Scene
    profile: Profile


def register(working: Working, template: Template, profile: Profile) -> Fit:
    """The CT registered to the template.

    The first start is kept unless it is judged poor and the profile wants a rescue: then all its other starts
    are tried, and the best of all by the metric is kept.

    Raises
    ------
    CaseError : no start leads to a result.
    """
    scene = scene_of(template.volume, working.volume)

    def attempts(starts: Iterable[Start], settings: RegistrationSettings) -> Iterator[Attempt]:
        fixed = registration_image(template.volume, settings)
        moving = registration_image(working.volume, settings)
        for start in starts:
            pose = start_pose(start, template.volume, working.volume)
            found = refine(fixed, moving, pose, settings) if pose else None
            if found:
                yield Attempt(start, found, score_pose(scene, found.rigid()))

    tried = list(attempts([profile.start], profile.registration))
    kept = tried[0] if tried else None
    if profile.second_opinion:
        tried += attempts([profile.second_opinion], STEADY)
    if profile.rescue and (kept is None or _doubts(kept, tried)):
        done = {attempt.start for attempt in tried if attempt is not kept or profile.registration == STEADY}
        tried += attempts([start for start in profile.rescue_starts if start not in done], STEADY)
        kept = min(tried, key=lambda attempt: attempt.verdict.metric, default=None)
    if kept is None:
        raise CaseError(
            "the CT could not be registered to the template", "check that it shows the head and neck"
        )
    if min(attempt.verdict.metric for attempt in tried) > _NO_NECK_METRIC:
        problem = "nothing in the CT resembles the template's head and neck"
        raise CaseError(problem, "check that the CT shows the neck, and its orientation")
    return Fit(kept, tuple(tried), tuple(_doubts(kept, tried)), scene, profile)


def _doubts(attempt: Attempt, tried: list[Attempt]) -> list[Said]:
    """What speaks against an attempt, in plain sentences."""
    verdict, angle = attempt.verdict, attempt.pose.rigid().angle_degrees
    best = min(other.verdict.metric for other in tried)
    told = []
    if verdict.metric > _POOR_METRIC:
        told.append(said("the CT resembles the template poorly after the registration: check the crop"))
    if verdict.overlap < _POOR_OVERLAP:
        told.append(
            said(
                "the registered body overlaps the template's by only {:.0%}: check the crop", verdict.overlap
            )
        )
    if angle > _POOR_ANGLE:
        told.append(said("the registration turned the CT by {:.0f} degrees: check the crop", angle))
    if verdict.metric > best + max(_CLEARLY_WORSE, _CLEARLY_WORSE_SHARE * abs(best)):
        told.append(
            said("another starting point of the registration gives a clearly better fit: check the crop")
        )
    return told


def in_plane_centre(fit: Fit, template: Template) -> Triple:
    """The template's neck centre (LPS mm), moved in plane as the patient lies beside the template."""
    lattice = _coarse_crop_lattice(template.volume.grid, template.neck_centre, fit.profile)
    scene = fit.scene
    patient = _body_on(scene.ct, scene.ct_body, lattice, fit.kept.pose.rigid())
    standard = _body_on(scene.template, scene.template_body, lattice, None)
    here, there = _middle(patient, lattice), _middle(standard, lattice)
    if here is None or there is None:
        return template.neck_centre
    return triple(template.neck_centre + here - there)


def _middle(body: Mask, lattice: Grid) -> npt.NDArray[np.float64] | None:
    """Mean of the slices' middles: each counts alike, so that wide shoulders do not outweigh the neck."""
    slices = [np.argwhere(plane).mean(axis=0) for plane in body if plane.any()]
    return lattice.points((0.0, *np.mean(slices, axis=0))) if slices else None


def registration_report(
    fit: Fit, crop: Grid, to_native: RigidTransform, working: Working, template: Template
) -> tuple[RegistrationReport, tuple[Said, ...]]:
    """The registration's report and its warnings.

    Raises
    ------
    CaseError : the crop holds no neck.
    """
    covered = covered_share(crop, to_native, working.known)
    if covered < _LEAST_COVERED:
        problem = said("only {:.0%} of the networks' crop is covered by the CT, so it holds no neck", covered)
        raise CaseError(problem, "give a CT of the whole neck")
    neck = _neck_offset(fit, crop, template)
    warnings = (*fit.doubts, *_crop_doubts(covered, neck))
    rigid = fit.kept.pose.rigid()
    shift = np.linalg.norm(np.subtract(rigid.apply(template.volume.grid.centre), working.volume.grid.centre))
    report = RegistrationReport(
        start=fit.kept.start,
        metric=fit.kept.verdict.metric,
        starts=tuple((attempt.start, attempt.verdict.metric) for attempt in fit.tried),
        body_overlap=fit.kept.verdict.overlap,
        angle_degrees=rigid.angle_degrees,
        shift_mm=float(shift),
        covered=covered,
        neck_centre_mm=neck,
        trusted=not warnings,
    )
    return report, warnings


def _crop_doubts(covered: float, neck: Triple | None) -> list[Said]:
    told = []
    if covered < _POOR_COVERED:
        told.append(
            said("only {:.0%} of the crop is covered by the CT: nodes outside it cannot be found", covered)
        )
    if neck is not None and abs(neck[2]) > _POOR_NECK_MM:
        told.append(
            said("the neck is {:.0f} mm away from where it should be in the crop: check it", abs(neck[2]))
        )
    return told


def _neck_offset(fit: Fit, crop: Grid, template: Template) -> Triple | None:
    """How far the patient's neck lies from the template's along z, and from the crop's middle in plane."""
    scene = fit.scene
    ct_body = _body_on(scene.ct, scene.ct_body, scene.template.grid, fit.kept.pose.rigid())
    here = neck_height(ct_body, scene.template, np.array(template.neck_centre))
    there = neck_height(scene.template_body, scene.template, np.array(template.neck_centre))
    if here is None or there is None:
        return None
    off = np.subtract(in_plane_centre(fit, template), crop.centre)
    return float(off[0]), float(off[1]), here - there


def _body_on(volume: Volume, body: Mask, lattice: Grid, transform: RigidTransform | None) -> Mask:
    share = volume.with_array(body.astype(np.float32))
    there: Mask = resample(share, lattice, order=1, outside=0.0, world=transform).array > 0.5
    return there


def _coarse_crop_lattice(template: Grid, neck_centre: Triple, profile: Profile) -> Grid:
    """The crop's slices, wider in plane than the crop, at 6 x 4 x 4 mm."""
    axes = np.array(template.direction)
    wide = int(2 * _IN_PLANE_REACH_MM / 4) + 1
    size, spacing = (profile.crop_size[0] // 2, wide, wide), (profile.crop_spacing[0] * 2, 4.0, 4.0)
    first = axes @ neck_centre - (np.array(size) - 1) / 2 * spacing
    return replace(template, size=size, spacing=spacing, origin=triple(first @ axes))
