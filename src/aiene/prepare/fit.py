"""How a CT comes to lie on the template: a first start, a judgement, and other starts where it was poor."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aiene.errors import CaseError
from aiene.geometry import Grid, RigidTransform, Triple, Volume, resample
from aiene.prepare.body import Mask
from aiene.prepare.judge import Scene, Verdict, covered_share, judged, narrowest, scene_of
from aiene.prepare.pose import Pose
from aiene.prepare.prepared import RegistrationReport
from aiene.prepare.profile import CROP_SIZE, CROP_SPACING, Profile, Start
from aiene.prepare.register import refine, registration_image
from aiene.prepare.starts import start_pose
from aiene.prepare.template import Template
from aiene.prepare.working import Working

_LEAST_COVERED = 0.25
_POOR_COVERED = 0.75
_POOR_OVERLAP = 0.70
_POOR_ANGLE = 35.0
_POOR_METRIC = -0.12
_POOR_NECK_MM = 45.0
_IN_PLANE_REACH_MM = 100.0


@dataclass(frozen=True, eq=False)
class Fit:
    """The pose that was kept, and what is known of it.

    Parameters
    ----------
    start, pose, verdict : of the result that was kept.
    tried : every start with its metric.
    scene : what it was judged on.
    """

    start: Start
    pose: Pose
    verdict: Verdict
    tried: tuple[tuple[str, float], ...]
    scene: Scene


def fitted(working: Working, template: Template, profile: Profile) -> Fit:
    """The CT registered to the template; other starts are tried where the profile wants it and the first is poor.

    Raises
    ------
    CaseError : no start leads to a result.
    """
    settings = profile.registration
    fixed = registration_image(template.volume, settings)
    moving = registration_image(working.volume, settings)
    scene = scene_of(template.volume, working.volume)
    found: list[tuple[Start, Pose, Verdict]] = []
    rescue = settings.rescue_starts if profile.rescue else ()
    for start in (settings.start, *rescue):
        begin = start_pose(start, template.volume, working.volume)
        if begin is None:
            continue
        try:
            pose = refine(fixed, moving, begin, settings)
        except CaseError:
            if start == rescue[-1:] and not found:
                raise
            continue
        found.append((start, pose, judged(scene, pose.rigid())))
        if _good(found[0][2], pose):
            break
    if not found:
        raise CaseError(
            "no registration to the template succeeded", "check that the CT shows the head and neck"
        )
    start, pose, verdict = min(found, key=lambda result: result[2].metric)
    return Fit(start, pose, verdict, tuple((s, v.metric) for s, _, v in found), scene)


def in_plane_centre(fit: Fit, template: Template) -> Triple:
    """The template's neck centre, moved in plane as the patient's body lies beside the template's (LPS mm)."""
    lattice = _coarse_crop_lattice(template.volume.grid, template.neck_centre)
    scene = fit.scene
    patient = _body_on(scene.ct, scene.ct_body, lattice, fit.pose.rigid())
    standard = _body_on(scene.template, scene.template_body, lattice, None)
    here, there = _middle(patient, lattice), _middle(standard, lattice)
    if here is None or there is None:
        return template.neck_centre
    x, y, z = (float(v) for v in template.neck_centre + here - there)
    return x, y, z


def _middle(body: Mask, lattice: Grid) -> npt.NDArray[np.float64] | None:
    """Mean of the slices' middles: each counts alike, so that wide shoulders do not outweigh the neck."""
    slices = [np.argwhere(plane).mean(axis=0) for plane in body if plane.any()]
    return lattice.points((0.0, *np.mean(slices, axis=0))) if slices else None


def reported(
    fit: Fit, crop: Grid, to_native: RigidTransform, working: Working, template: Template
) -> tuple[RegistrationReport, tuple[str, ...]]:
    """The registration's report and its warnings.

    Raises
    ------
    CaseError : the crop holds no neck.
    """
    covered = covered_share(crop, to_native, working.known)
    if covered < _LEAST_COVERED:
        problem = f"only {covered:.0%} of the networks' crop is covered by the CT, so it holds no neck"
        raise CaseError(problem, "give a CT of the whole neck")
    neck = _neck_offset(fit, crop, template)
    warnings = tuple(_warnings(fit, covered, neck))
    rigid = fit.pose.rigid()
    shift = np.linalg.norm(np.subtract(rigid.apply(template.volume.grid.centre), working.volume.grid.centre))
    report = RegistrationReport(
        start=fit.start,
        metric=fit.verdict.metric,
        starts=fit.tried,
        body_overlap=fit.verdict.overlap,
        angle_degrees=rigid.angle_degrees,
        shift_mm=float(shift),
        covered=covered,
        neck_centre_mm=neck,
        trusted=not warnings,
    )
    return report, warnings


def _good(verdict: Verdict, pose: Pose) -> bool:
    angle = pose.rigid().angle_degrees
    return verdict.overlap >= _POOR_OVERLAP and verdict.metric <= _POOR_METRIC and angle <= _POOR_ANGLE


def _warnings(fit: Fit, covered: float, neck: Triple | None) -> list[str]:
    angle = fit.pose.rigid().angle_degrees
    told = []
    if fit.verdict.metric > _POOR_METRIC:
        told.append("the CT resembles the template poorly after registration: check the crop")
    if fit.verdict.overlap < _POOR_OVERLAP:
        told.append(
            f"the registered body overlaps the template's by only {fit.verdict.overlap:.0%}: check the crop"
        )
    if angle > _POOR_ANGLE:
        told.append(f"the registration turned the CT by {angle:.0f} degrees: check the crop")
    if covered < _POOR_COVERED:
        told.append(f"only {covered:.0%} of the crop is covered by the CT: nodes outside it cannot be found")
    if neck is not None and abs(neck[2]) > _POOR_NECK_MM:
        told.append(f"the neck lies {abs(neck[2]):.0f} mm away from where it should be in the crop: check it")
    return told


def _neck_offset(fit: Fit, crop: Grid, template: Template) -> Triple | None:
    """How far the patient's neck lies from the template's along z, and from the crop's middle in plane."""
    scene = fit.scene
    ct_body = _body_on(scene.ct, scene.ct_body, scene.template.grid, fit.pose.rigid())
    here = narrowest(ct_body, scene.template, np.array(template.neck_centre))
    there = narrowest(scene.template_body, scene.template, np.array(template.neck_centre))
    if here is None or there is None:
        return None
    off = np.subtract(in_plane_centre(fit, template), crop.centre)
    return float(off[0]), float(off[1]), here - there


def _body_on(volume: Volume, body: Mask, lattice: Grid, transform: RigidTransform | None) -> Mask:
    share = volume.with_array(body.astype(np.float32))
    there: Mask = resample(share, lattice, order=1, outside=0.0, world=transform).array > 0.5
    return there


def _coarse_crop_lattice(template: Grid, neck_centre: Triple) -> Grid:
    """The crop's slices, wider in plane than the crop, at 6 x 4 x 4 mm."""
    axes = np.array(template.direction)
    wide = int(2 * _IN_PLANE_REACH_MM / 4) + 1
    size, spacing = (CROP_SIZE[0] // 2, wide, wide), (CROP_SPACING[0] * 2, 4.0, 4.0)
    first = axes @ neck_centre - (np.array(size) - 1) / 2 * spacing
    x, y, z = (float(v) for v in first @ axes)
    return replace(template, size=size, spacing=spacing, origin=(x, y, z))
