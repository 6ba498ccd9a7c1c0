"""From a native CT to the exact input of the networks, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiene.errors import CaseError, Said, said
from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.geometry.resample import pull_labels
from aiene.ingest.case import NativeCt
from aiene.preprocess.profile import AIR, Profile
from aiene.preprocess.registration import Template
from aiene.preprocess.registration_quality import (
    Fit,
    RegistrationReport,
    in_plane_centre,
    register,
    registration_report,
)
from aiene.preprocess.resampling import Working, open_working, published_working, resample_onto
from aiene.preprocess.template import fixed_window, patient_lattice, published_crop

_BRIGHT = 0.99
_LEAST_BONE_ML = 20.0
"""Every crop of the 105 CTs of OpenKBP holds over 150 ml of voxels at the top of the window (275 HU)."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """The exact input of the networks and its place.

    Parameters
    ----------
    crop : float32 (64, 160, 160); HU scaled to [0, 1], padding -1024. Its grid has its true place in the
        template's space, both paddings counted.
    native : grid of the CT that it was made from.
    to_native : takes points of the template's space to points of the native CT.
    registration : how that transform was found.
    warnings : what the user should look at.
    crop_hu : where the profile keeps it: float32 HU on the same grid, neither windowed nor scaled, air
        (-1024) where the CT does not reach.
    ene_spread : the profile's: how far another storage order of the CT moves a node's ENE; None: it does not.
    """

    crop: Volume
    native: Grid
    to_native: RigidTransform
    registration: RegistrationReport
    warnings: tuple[Said, ...] = ()
    crop_hu: Volume | None = None
    ene_spread: float | None = None


def prepare(ct: NativeCt, template: Template, profile: Profile) -> Prepared:
    """The CT laid onto the template, cropped and scaled as the profile says; the same bytes on every run.

    Parameters
    ----------
    ct : HU on the native grid.
    template : that the bundle brings.
    profile : the bundle's.

    Raises
    ------
    CaseError : there is no body in the CT, or no neck in the crop.
    """
    working = published_working(ct, profile) if profile.resample_first else open_working(ct, profile)
    fit = register(working, template, profile)
    crop = _cropped(working, template, profile, fit)
    _check_bone(crop)
    to_native = working.to_native.after(fit.kept.pose.rigid())
    report, warnings = registration_report(fit, crop.grid, to_native, working, template)
    crop_hu = None
    if profile.keep_hu:  # the window must not have touched it, nor a profile's own idea of what lies outside
        crop_hu = resample_onto(working, crop.grid, fit.kept.pose.euler(), AIR)
    return Prepared(crop, ct.volume.grid, to_native, report, warnings, crop_hu, profile.ene_spread)


def _check_bone(crop: Volume) -> None:
    """A neck has a spine: without anything bright, the crop holds something else."""
    bright_ml = np.count_nonzero(crop.array >= _BRIGHT) * crop.grid.voxel_volume_mm3 / 1000
    if bright_ml < _LEAST_BONE_ML:
        problem = said("the networks' crop holds {:.1f} ml of bone, so it holds no neck", bright_ml)
        raise CaseError(problem, "check that the CT shows the neck, and that its values are HU")


def _cropped(working: Working, template: Template, profile: Profile, fit: Fit) -> Volume:
    transform = fit.kept.pose.euler()
    if profile.crop == "template":
        registered = resample_onto(working, template.volume.grid, transform, profile.outside_hu)
        return published_crop(registered, profile)
    middle = in_plane_centre(fit, template)
    lattice = patient_lattice(template.volume.grid, template.neck_centre, middle, profile)
    hu = resample_onto(working, lattice, transform, profile.outside_hu)
    return hu.with_array(fixed_window(hu.array, profile.window))


def to_native(labels: Volume, prepared: Prepared) -> Volume:
    """A label map of the crop on the native CT's grid, by nearest neighbour.

    Parameters
    ----------
    labels : integers (64, 160, 160) on the crop's grid.
    prepared : the crop's way back.
    """
    return pull_labels(labels, prepared.native, prepared.to_native.inverse())
