"""The template CT, onto which every patient is laid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from aiene.errors import ModelError
from aiene.geometry.grid import Triple, Volume, volume_of
from aiene.models.bundle import Bundle
from aiene.preprocess.crop import LOWEST_DROPPED, published_start
from aiene.preprocess.profile import Grade, Profile, profile_named
from aiene.preprocess.registration import Template

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
        raise ModelError(path, f"{CENTRE_KEY} is not three numbers", "get the template again") from error
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
            f"a template of {rows} rows and {columns} columns makes the published crop empty or too narrow",
            f"give one of at least {least_rows} rows and {least_columns} columns that holds the whole crop",
        )
    if slices <= LOWEST_DROPPED:
        problem = (
            f"a template of {slices} slices, of which the published crop drops the lowest {LOWEST_DROPPED}"
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
