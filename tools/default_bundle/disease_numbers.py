"""Numbers of real disease, each with where it comes from; `disease` draws by them.

LY: counted from the involvement tables of lyDATA (repository lycosystem/lydata, commit 0d28bbf; R. Ludwig et
al., data CC BY-SA 4.0): 2,822 patients, consensus of pathology and imaging, by subsite. Only shares that were
counted stand here, not the table.

HN: 23 gross nodal volumes over 0.2 mL in 16 patients, and their primaries, drawn on MRI before radiotherapy
(the public examples of HNTS-MRG 2024).

PA: pathology of neck dissections: sizes of 140 patients, counts and extension of positive nodes in pooled
series (the ranges are of several series; here their middle).

CT: avid nodes of one real patient on the unenhanced CT of a PET/CT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Subsite = Literal["oropharynx", "hypopharynx", "larynx", "oral cavity"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Spread:
    """How levels are involved together (LY): shares of all patients, then of node-positive ones.

    Parameters
    ----------
    positive : patients with an involved level; all that follows is of these.
    ii : ipsilateral level II.
    iii, ib : ipsilateral level III and Ib where II is (first) and is not involved.
    iv, v : ipsilateral level IV and V where III is and is not involved.
    other_ii : contralateral II where the ipsilateral one is and is not involved.
    other_iii, other_ib, other_v : contralateral levels where the contralateral II is and is not involved.
    other_iv : contralateral IV where the contralateral III is and is not involved.
    """

    positive: float
    ii: float
    iii: tuple[float, float]
    iv: tuple[float, float]
    ib: tuple[float, float]
    v: tuple[float, float]
    other_ii: tuple[float, float]
    other_iii: tuple[float, float]
    other_iv: tuple[float, float]
    other_ib: tuple[float, float]
    other_v: tuple[float, float]


SPREAD: dict[Subsite, Spread] = {
    "oropharynx": Spread(
        positive=0.828,
        ii=0.944,
        iii=(0.434, 0.463),
        iv=(0.299, 0.046),
        ib=(0.154, 0.171),
        v=(0.154, 0.07),
        other_ii=(0.226, 0.293),
        other_iii=(0.304, 0.011),
        other_iv=(0.281, 0.012),
        other_ib=(0.107, 0.004),
        other_v=(0.036, 0.004),
    ),
    "hypopharynx": Spread(
        positive=0.819,
        ii=0.842,
        iii=(0.656, 0.724),
        iv=(0.365, 0.197),
        ib=(0.016, 0.017),
        v=(0.172, 0.123),
        other_ii=(0.328, 0.172),
        other_iii=(0.495, 0.063),
        other_iv=(0.352, 0.014),
        other_ib=(0.009, 0.0),
        other_v=(0.072, 0.024),
    ),
    "larynx": Spread(
        positive=0.325,
        ii=0.758,
        iii=(0.538, 0.652),
        iv=(0.255, 0.131),
        ib=(0.014, 0.0),
        v=(0.101, 0.087),
        other_ii=(0.398, 0.191),
        other_iii=(0.422, 0.104),
        other_iv=(0.304, 0.038),
        other_ib=(0.016, 0.0),
        other_v=(0.086, 0.033),
    ),
    "oral cavity": Spread(
        positive=0.579,
        ii=0.651,
        iii=(0.331, 0.219),
        iv=(0.262, 0.034),
        ib=(0.449, 0.616),
        v=(0.098, 0.054),
        other_ii=(0.154, 0.11),
        other_iii=(0.207, 0.033),
        other_iv=(0.0, 0.03),
        other_ib=(0.414, 0.128),
        other_v=(0.069, 0.011),
    ),
}

LEVELS_INVOLVED: dict[Subsite, tuple[float, ...]] = {
    "oropharynx": (0.418, 0.268, 0.168, 0.074, 0.033, 0.038),
    "hypopharynx": (0.240, 0.333, 0.205, 0.096, 0.077, 0.049),
    "larynx": (0.353, 0.288, 0.182, 0.090, 0.041, 0.046),
    "oral cavity": (0.435, 0.306, 0.134, 0.077, 0.014, 0.033),
}
"""Share of node-positive patients with one, two, ... and six and more involved levels of both sides (LY)."""

SUBSITES: dict[Subsite, float] = {"oropharynx": 0.5, "hypopharynx": 0.16, "larynx": 0.2, "oral cavity": 0.14}
"""Share of the planted patients: our choice, near the mix of the clinics whose planning CTs are the hosts."""

RETROPHARYNGEAL = 0.06
"""Share of the involved levels that are retropharyngeal (LY: oropharynx, with level VII); here of the
node-positive patients with a tumour of the pharynx, since a CT tells the two apart and few reach VII."""

POSITIVE_NODES = ((1, 0.385), (2, 0.20), (3, 0.15), (4, 0.09), (5, 0.055), (6, 0.035), (8, 0.04), (12, 0.045))
"""Positive nodes in node-positive patients (PA): 0.37 to 0.40, 0.20, 0.15, 0.09, and 0.16 to 0.2 for five and
more, whose own split is ours and gives the published mean of 3.0."""

ENE_BY_NODES = {1: 0.36, 2: 0.60, 3: 0.635, 4: 0.635, 5: 0.635}
ENE_OF_MANY = 0.775
"""Extension anywhere, by number of positive nodes (PA); of six and more."""
ENE_OF_FURTHER = 0.25
"""Extension of each further lesion of a patient whose largest has it: ours, since no table says it."""

NODE_ML_LOG = (1.66, 1.09)
"""Natural logarithm of a gross nodal volume in mL: mean and standard deviation (HN)."""
NODE_ML_RANGE = (0.25, 60.0)
"""Volumes under 0.2 mL were not counted (HN); the upper end keeps the lesion within a neck."""
LONG_TO_MIDDLE = (2.15, 0.387)
MIDDLE_TO_SHORT = (1.4, 0.2)
"""Ratios of its axes (HN): median, and standard deviation of the logarithm (10 to 90 %: 1.3 to 3.5 for the
first; the second's spread is ours)."""
TILT_DEGREES = 17.0
"""Spread of the long axis about z for each of two turns: the median cosine is then about 0.94 (HN)."""

PRIMARY_ML = (6.1, 0.64, 0.965, 70.0)
"""A primary's volume in mL: median, standard deviation of the logarithm below and above it (10 to 90 %: 2.7
to 21), and the largest (HN)."""

PRIMARY_PLACES: dict[Subsite, tuple[tuple[float, Triple, Triple], ...]] = {
    "oropharynx": ((0.55, (20, -24, 28), (3, 4, 5)), (0.45, (8, -36, 14), (5, 4, 5))),
    "hypopharynx": ((1.0, (15, -20, -22), (4, 4, 8)),),
    "larynx": ((0.5, (7, -30, -38), (3, 4, 5)), (0.5, (5, -30, -22), (4, 4, 5))),
    "oral cavity": ((0.7, (14, -58, 22), (4, 8, 6)), (0.3, (12, -60, 4), (5, 6, 3))),
}
"""Share, canonical centre on the left (mm) and spread: tonsil and base of tongue, piriform sinus, glottis and
supraglottis, tongue and floor of the mouth, as they lie in the phantom's anatomy (`aiene.phantom`)."""

NODE_HU = {True: (-12.0, 45.0), False: (-18.0, 6.0)}
"""A solid node's HU above the patient's muscle in enhanced and in plain CT. Plain: 42 to 44 HU, about muscle
(CT). Enhanced: no open table; from somewhat less than muscle to well above it, so that no rule is learned."""
PRIMARY_HU = {True: (2.0, 45.0), False: (-8.0, 8.0)}
"""The same of a primary."""
