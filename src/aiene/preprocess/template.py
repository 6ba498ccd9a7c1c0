"""The template CT onto which every patient is laid, and the networks' window onto it, scaled to [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from aiene.errors import ModelError, ours, said
from aiene.geometry.grid import Grid, Triple, Volume, triple, volume_of
from aiene.models.bundle import Bundle
from aiene.preprocess.profile import AIR, OPEN, PUBLISHED, Grade, Profile, profile_named
from aiene.preprocess.registration import Template

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
