"""The two ways to prepare a CT, as data: `published` with every slip of the original, `open` without them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from aiene.geometry.grid import Triple

Grade = Literal["exact", "fast"]
"""How a bundle of the published profile registers: `exact` as published, `fast` as the open profile does."""

Start = Literal["geometry", "search", "body", "bone", "top"]
"""Where a registration begins: centred volumes, the best of all shifts, body or bone centres, the top."""

PREPARATION = 2
"""Raised whenever one CT and bundle come to give another crop, so that no kept crop of before is taken up.

2: the open profile works in the patient's frame, whatever the storage order."""

AIR = -1024.0
"""HU of nothing."""


@dataclass(frozen=True)
class RegistrationSettings:
    """How a CT is laid onto the template: Mattes mutual information, Euler 3D, gradient descent.

    Parameters
    ----------
    shrink, smoothing_mm : the pyramid, coarse to fine.
    sampling : share of the template's voxels that are looked at on each level; regular, jittered by `seed`.
    spacing_mm : both volumes are averaged to about this spacing before; None: as they are.
    within_body : look only at the template's body and a rim around it.
    first_step_mm, last_step_mm : steps are halved from the first to the last wherever the gradient turns.
        None: the published gradient descent, whose steps stay as long as they begin, so that it may end
        10 mm beside the optimum.
    """

    shrink: tuple[int, ...]
    smoothing_mm: tuple[float, ...]
    sampling: float
    spacing_mm: float | None
    within_body: bool
    bins: int = 50
    seed: int = 42
    iterations: int = 100
    convergence: float = 1e-6
    convergence_window: int = 10
    first_step_mm: float | None = None
    last_step_mm: float = 0.05


@dataclass(frozen=True)
class Profile:
    """Everything in which two ways of preparing a CT differ.

    Parameters
    ----------
    name : as it stands in a bundle.
    resample_first : resample the CT to the crop's spacing (filled with SimpleITK's number of the pixel type),
        and the result onto the template; else the crop is sampled from the CT in one step.
    outside_hu : HU where the template's space is not covered by the CT.
    whole_body_mm : a longer CT is cut to its part near the head before the registration.
    crop : `template`: the same place for every patient, found from the template's size, scaled by each
        volume's own minimum and maximum, with values over 700 HU at 0 HU; `patient`: centred on the neck
        along z and on the patient's body in plane, scaled by the fixed window.
    minimum_template : smallest number of template voxels along y and x; None: any template.
    start, registration : where the registration begins, and its settings.
    second_opinion : a start that is always tried as well, with the steady settings, to judge the first by;
        None: the limits alone judge.
    rescue_starts : what is tried, with the steady settings, where the first is judged poor.
    rescue : whether anything is.
    keep_hu : keep the crop in HU as well, for a segmenter that takes HU.
    crop_size, crop_spacing : voxels of the networks' input along z, y, x, and mm between them.
    window : HU that become 0 and 1.
    ene_spread : how far the ENE probability of a node may well move where the same CT is stored in another
        order of axes, see `_PUBLISHED_SPREAD`; None: it does not.
    """

    name: Literal["published", "open"]
    resample_first: bool
    outside_hu: float
    whole_body_mm: float
    crop: Literal["template", "patient"]
    minimum_template: tuple[int, int] | None
    start: Start
    registration: RegistrationSettings
    second_opinion: Start | None
    rescue_starts: tuple[Start, ...]
    rescue: bool
    ene_spread: float | None
    keep_hu: bool = False
    crop_size: tuple[int, int, int] = (64, 160, 160)
    crop_spacing: Triple = (3.0, 1.0, 1.0)
    window: tuple[float, float] = (-175.0, 275.0)


STEADY = RegistrationSettings(
    shrink=(2, 1),
    smoothing_mm=(4.0, 2.0),
    sampling=0.5,
    spacing_mm=4.0,
    within_body=True,
    first_step_mm=4.0,
)
"""The published metric on an averaged lattice, with an optimiser that comes to rest: about 2 s for a case."""

_PUBLISHED_SPREAD = 0.2
"""Four of five nodes move by less where rows and columns of the CT are stored in reverse (median 0.05, 19 of
20 under 0.4; 31 CTs, networks of the default bundle): `exact_against_itself_turned` of
`tools/measurements/registration_fast.py`."""

PUBLISHED = Profile(
    name="published",
    resample_first=True,
    outside_hu=0.0,
    whole_body_mm=600.0,
    crop="template",
    minimum_template=(161, 241),
    start="geometry",
    registration=RegistrationSettings(
        shrink=(4, 2, 1),
        smoothing_mm=(2.0, 1.0, 0.0),
        sampling=0.05,
        spacing_mm=None,
        within_body=False,
    ),
    second_opinion="search",
    rescue_starts=("search", "geometry", "body", "bone", "top"),
    rescue=False,
    ene_spread=_PUBLISHED_SPREAD,
)
"""What the published weights were fitted on."""

OPEN = Profile(
    name="open",
    resample_first=False,
    outside_hu=AIR,
    whole_body_mm=500.0,
    crop="patient",
    minimum_template=None,
    start="search",
    registration=STEADY,
    second_opinion=None,
    rescue_starts=("geometry", "body", "bone", "top"),
    rescue=True,
    ene_spread=None,
)
"""The same steps without the slips, for the default bundle and for new trainings."""


def profile_named(
    name: Literal["published", "open"],
    *,
    rescue: bool,
    keep_hu: bool = False,
    registration: Grade = "exact",
) -> Profile:
    """The profile that a bundle names, with its wishes: rescue of poor registrations, the crop in HU.

    Parameters
    ----------
    registration : the user's choice. `fast` takes the open profile's registration with all its starts: coarse
        to fine, to an optimum instead of near one. The open profile has no other.
    """
    profile = replace({"published": PUBLISHED, "open": OPEN}[name], rescue=rescue, keep_hu=keep_hu)
    if registration == "exact" or name == "open":
        return profile
    return replace(profile, start=OPEN.start, registration=STEADY, second_opinion=None, rescue=True)
