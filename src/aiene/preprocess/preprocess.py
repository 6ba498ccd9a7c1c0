"""From a native CT to the exact input of the networks, and the way back.

Every patient is laid onto a template CT; the networks' window onto it is cropped and scaled to [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from aiene.errors import CaseError, ModelError, Said, ours, said
from aiene.geometry.grid import Grid, RigidTransform, Triple, Volume, triple, volume_of
from aiene.geometry.resample import pull_labels
from aiene.ingest.case import NativeCt
from aiene.models.bundle import Bundle
from aiene.preprocess.profile import AIR, OPEN, PUBLISHED, Grade, Profile, profile_named
from aiene.preprocess.registration import Template
from aiene.preprocess.registration_quality import (
    Fit,
    RegistrationReport,
    in_plane_centre,
    register,
    registration_report,
)
from aiene.preprocess.resampling import Working, open_working, published_working, resample_onto

_TOO_BRIGHT = 700.0

LOWEST_DROPPED = 30
"""Slices at the template's low end that the published crop leaves out."""


def published_crop(registered: Volume, profile: Profile = PUBLISHED) -> Volume:
    """The published crop of a CT on the template's grid, float32 (64, 160, 160), with its true place.

    The lowest 30 slices are dropped, the rest is scaled by its own range and cut at a place that depends on
    the template's size alone. A template that is too short is filled up with raw -1024: first on both ends to
    64 slices, then (once 30 slices were dropped) at the low end. The crop's grid counts all of it.

    Parameters
    ----------
    registered : float32 HU on the template's grid, 0 where the CT does not reach.
    profile : gives size and window.
    """
    n, (slices, rows, columns) = registered.grid.size[0], profile.crop_size
    scaled = _own_range(registered.array[LOWEST_DROPPED:], profile.window)
    both = abs(n - slices) // 2 if n < slices else 0
    y, x = published_start(registered.grid.size)
    window = np.pad(scaled, ((both, both), (0, 0), (0, 0)), constant_values=AIR)
    window = window[:slices, y : y + rows, x : x + columns]
    low = slices - window.shape[0]
    window = np.pad(window, ((low, 0), (0, 0), (0, 0)), constant_values=AIR)
    return Volume(window, registered.grid.crop((LOWEST_DROPPED - both - low, y, x), profile.crop_size))


def patient_lattice(template: Grid, neck_centre: Triple, in_plane: Triple, profile: Profile) -> Grid:
    """The lattice of a crop that is centred on the neck along z and on the patient in plane.

    Parameters
    ----------
    template : gives the directions of the axes.
    neck_centre : LPS mm; counts along the template's z axis.
    in_plane : LPS mm of the body's centre; counts along its y and x axes.
    profile : gives size and spacing.
    """
    axes = np.array(template.direction)
    middle = np.array([axes[0] @ neck_centre, axes[1] @ in_plane, axes[2] @ in_plane])
    first = middle - (np.array(profile.crop_size) - 1) / 2 * profile.crop_spacing
    return Grid(
        size=profile.crop_size,
        spacing=profile.crop_spacing,
        origin=triple(first @ axes),
        direction=template.direction,
    )


def fixed_window(
    hu: npt.NDArray[np.float32], window: tuple[float, float] = OPEN.window
) -> npt.NDArray[np.float32]:
    """HU scaled by the profile's window, float32 in [0, 1].

    The published steps make values over 700 HU soft tissue and stretch each volume to its own range. Here
    what is brighter than the window (bone, metal) is 1, what is darker (air, nothing) is 0: a HU value has
    one meaning in every patient.
    """
    low, high = window
    return (hu.clip(low, high) - np.float32(low)) / np.float32(high - low)


def _own_range(hu: npt.NDArray[np.float32], window: tuple[float, float]) -> npt.NDArray[np.float32]:
    """The published scaling, in float32 and in the order of the published steps."""
    values = np.where(hu <= AIR, np.float32(AIR), hu)
    values = np.where(values > _TOO_BRIGHT, np.float32(0), values)
    values = values.clip(*window)
    low, high = values.min(), values.max()
    if low == high:
        return np.zeros_like(values)
    scaled: npt.NDArray[np.float32] = (values - low) / (high - low)
    return scaled


def published_start(size: tuple[int, int, int]) -> tuple[int, int]:
    """First row and column (y, x) of the published crop on a template of that size (z, y, x).

    The published code takes the rows' centre for x and the columns' for y.
    """
    _, rows, columns = size
    return int((columns - 1) / 2 - 80) - 40, int((rows - 1) / 2 - 80)


CENTRE_KEY = "neck_centre_lps_mm"
"""Field of a NRRD header that says where the neck's centre lies."""


_SOFT_HU = -200.0


def read_template(path: Path, profile: Profile, neck_centre_lps_mm: Triple | None = None) -> Template:
    """Read a template and see whether it can serve the profile.

    Parameters
    ----------
    path : any volume that SimpleITK reads, HU.
    profile : the published one demands a size at which its crop is whole.
    neck_centre_lps_mm : where the neck's middle lies in it; None: as the template's header says, else the
        template's own centre.

    Raises
    ------
    ModelError : no readable volume of numbers, or one too small for the profile.
    """
    try:
        image = sitk.ReadImage(str(path), sitk.sitkFloat32)
        volume = volume_of(image)
    except (RuntimeError, ValueError) as error:
        raise ModelError(path, "no readable template volume", "give a three-dimensional CT") from error
    if not np.isfinite(volume.array).all() or np.ptp(volume.array) == 0:
        raise ModelError(path, "the template holds no image", "give a CT in HU")
    _check_size(path, volume, profile)
    return Template(volume, neck_centre_lps_mm or _written_centre(path, image) or volume.grid.centre)


def _written_centre(path: Path, image: sitk.Image) -> Triple | None:
    """The neck's centre from the template's own header, if it is there."""
    if not image.HasMetaDataKey(CENTRE_KEY):
        return None
    try:
        x, y, z = (float(word) for word in image.GetMetaData(CENTRE_KEY).split())
    except ValueError as error:
        raise ModelError(
            path, said("{} is not three numbers", ours(CENTRE_KEY)), "get the template again"
        ) from error
    return x, y, z


def _check_size(path: Path, volume: Volume, profile: Profile) -> None:
    if profile.minimum_template is None:
        return
    slices, rows, columns = volume.grid.size
    least_rows, least_columns = profile.minimum_template
    y, x = published_start(volume.grid.size)
    _, height, width = profile.crop_size
    if rows < least_rows or columns < least_columns or y + height > rows or x + width > columns:
        raise ModelError(
            path,
            said(
                "a template of {} rows and {} columns makes the published crop empty or too narrow",
                rows,
                columns,
            ),
            said(
                "give one of at least {} rows and {} columns that holds the whole crop",
                least_rows,
                least_columns,
            ),
        )
    if slices <= LOWEST_DROPPED:
        problem = said(
            "a template of {} slices, of which the published crop drops the lowest {}", slices, LOWEST_DROPPED
        )
        raise ModelError(path, problem, "give one with more slices")


@dataclass(frozen=True)
class Preparation:
    """What a case is prepared with.

    Parameters
    ----------
    midline_x : x (LPS mm) of the body's middle on the template.
    """

    template: Template
    profile: Profile
    midline_x: float


def load_preparation(bundle: Bundle, registration: Grade = "exact") -> Preparation:
    """The profile and template of a bundle.

    Parameters
    ----------
    registration : see `profile_named`.

    Raises
    ------
    ModelError : the template cannot be used.
    """
    card = bundle.card
    takes_hu = card.segmenter.intensities == "hu"
    profile = profile_named(
        card.profile, rescue=card.rescue_registration, keep_hu=takes_hu, registration=registration
    )
    template = read_template(bundle.template_file, profile, neck_centre_lps_mm=card.neck_centre_lps_mm)
    return Preparation(template, profile, _midline_x(template.volume))


def _midline_x(template: Volume) -> float:
    """x of the centre of mass of everything denser than air and fat: left and right balance there."""
    inside = np.argwhere(template.array > _SOFT_HU).mean(axis=0)
    return float(template.grid.points(inside)[0])


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
