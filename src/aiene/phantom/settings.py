"""What kind of phantom is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiene.geometry.grid import Grid, Triple
from aiene.phantom.planting import WEAKEST_ENE


@dataclass(frozen=True)
class Scanner:
    """How the CT is taken.

    Parameters
    ----------
    blur_mm : standard deviation of the point spread, in plane.
    noise_hu : standard deviation of the noise.
    noise_grain_mm : correlation length of the noise in plane.
    texture_hu : standard deviation of the tissue's own unevenness, at about 5 mm.
    """

    blur_mm: float = 0.6
    noise_hu: float = 12.0
    noise_grain_mm: float = 0.7
    texture_hu: float = 7.0


@dataclass(frozen=True)
class PhantomSettings:
    """What kind of phantom is wanted; everything else comes from the seed.

    Parameters
    ----------
    grid : where the voxels shall lie (any spacing, direction and size); None: an axial stack of `size` and
        `spacing` around the patient, with an origin drawn from the seed.
    size, spacing : voxels and mm along z, y, x where no grid is given.
    nodes : fewest and most planted nodes.
    ene_share : share of nodes with extranodal extension.
    weakest_ene : least strength of its signs, above 0.
    mimic_share : share of the nodes without extension that look a little like it all the same.
    primary_share : share of patients with a primary tumour.
    variation : 0 is the average person lying straight, 1 the usual spread.
    tilt_degrees : spread of the three angles at which patients lie.
    table : a table top under the patient.
    scanner : blur, noise and texture.
    node_seed : plants other nodes into the same person; None: the seed itself.
    """

    grid: Grid | None = None
    size: tuple[int, int, int] = (90, 256, 256)
    spacing: Triple = (3.0, 1.0, 1.0)
    nodes: tuple[int, int] = (1, 6)
    ene_share: float = 0.45
    weakest_ene: float = WEAKEST_ENE
    mimic_share: float = 0.0
    primary_share: float = 0.6
    variation: float = 1.0
    tilt_degrees: float = 4.0
    table: bool = True
    scanner: Scanner = field(default_factory=Scanner)
    node_seed: int | None = None
