"""A preprocessed case: the crop that the networks see, and the mapping back to the native CT."""

from __future__ import annotations

from dataclasses import dataclass

from aiene.geometry.grid import Grid, Volume
from aiene.geometry.resample import RigidTransform, pull_labels


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
    warnings: tuple[str, ...] = ()
    crop_hu: Volume | None = None
    ene_spread: float | None = None


# Back to the native CT


def to_native(labels: Volume, prepared: Prepared) -> Volume:
    """A label map of the crop on the native CT's grid, by nearest neighbour.

    Parameters
    ----------
    labels : integers (64, 160, 160) on the crop's grid.
    prepared : the crop's way back.
    """
    return pull_labels(labels, prepared.native, prepared.to_native.inverse())
