"""How a person lies in the scanner: from points of the scan (LPS mm) to canonical anatomy and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aiene.phantom.shapes import Field

Points = npt.NDArray[np.float64]

_ROUNDS = 40
"""Fixed-point rounds of the way back; each shrinks the error at least by half."""


@dataclass(frozen=True)
class Pose:
    """A scale, a turn, a bend of the neck and a gentle asymmetry.

    Parameters
    ----------
    matrix : 3 x 4, from LPS points to straight canonical points (x, y, z).
    bend : mm by which the head lies further back for each (100 mm)^2 over the thoracic inlet.
    waves : rows (axis moved, axis that drives it, amplitude mm, wavelength mm, phase).
    """

    matrix: tuple[tuple[float, float, float, float], ...]
    bend: float
    waves: tuple[tuple[int, int, float, float, float], ...]

    def canonical_fields(self, points: tuple[Field, Field, Field]) -> tuple[Field, Field, Field]:
        """Canonical x, y, z of points given as three arrays of one shape."""
        m = np.array(self.matrix, dtype=np.float32)
        x, y, z = points
        return self._bent([row[0] * x + row[1] * y + row[2] * z + row[3] for row in m])

    def canonical(self, points_lps: npt.ArrayLike) -> Points:
        """Canonical points (..., 3) of LPS points (..., 3)."""
        p = np.asarray(points_lps, dtype=np.float64)
        m = np.array(self.matrix)
        moved = p @ m[:, :3].T + m[:, 3]
        return np.stack(self._bent([moved[..., i] for i in range(3)]), axis=-1)

    def world(self, canonical: npt.ArrayLike) -> Points:
        """LPS points (..., 3) of canonical points (..., 3): the exact inverse, by fixed-point rounds."""
        goal = np.asarray(canonical, dtype=np.float64)
        straight = goal.copy()
        for _ in range(_ROUNDS):
            bent = np.stack(self._bent([straight[..., i] for i in range(3)]), axis=-1)
            straight = straight + (goal - bent)
        m = np.array(self.matrix)
        back: Points = (straight - m[:, 3]) @ np.linalg.inv(m[:, :3]).T
        return back

    def _bent(self, straight: list[npt.NDArray[np.floating]]) -> tuple[Field, Field, Field]:
        kind = straight[0].dtype.type
        out = list(straight)
        over = np.maximum(straight[2] + kind(80), 0) / kind(100)
        out[1] = straight[1] - kind(self.bend) * over * over
        for moved, driver, amplitude, wavelength, phase in self.waves:
            angle = straight[driver] * kind(2 * np.pi / wavelength) + kind(phase)
            out[moved] = out[moved] + kind(amplitude) * np.sin(angle)
        return out[0], out[1], out[2]


def draw_pose(
    rng: np.random.Generator, *, centre_lps: npt.ArrayLike, variation: float, tilt_degrees: float
) -> Pose:
    """A pose at random, with the middle of the neck near a point of the scan.

    Parameters
    ----------
    centre_lps : (x, y, z) mm, where the canonical point (0, 5, 0) comes to lie, but for some mm.
    variation : 0 is the average person lying straight, 1 the usual spread.
    tilt_degrees : spread of each of the three angles.
    """
    size = 1 + 0.06 * variation * np.clip(rng.normal(), -2, 2)
    scale = size * (1 + 0.04 * variation * np.clip(rng.normal(size=3), -2, 2))
    angles = np.radians(tilt_degrees * variation * np.clip(rng.normal(size=3), -2, 2))
    shift = variation * rng.normal(size=3) * (4, 4, 6)
    bend = float(6 * variation * np.clip(rng.normal(), -2, 2))
    waves = tuple(
        (
            moved,
            driver,
            float(variation * rng.uniform(0, 1.6)),
            float(rng.uniform(110, 220)),
            float(rng.uniform(0, 2 * np.pi)),
        )
        for moved, driver in ((0, 2), (1, 2), (2, 1), (0, 1), (1, 0), (2, 0))
    )
    linear = np.diag(1 / scale) @ _turn(angles)
    offset = np.array((0.0, 5.0, 0.0)) - linear @ (np.asarray(centre_lps, dtype=np.float64) + shift)
    rows = np.column_stack([linear, offset])
    a, b, c = (tuple(float(v) for v in row) for row in rows)
    return Pose((a, b, c), bend, waves)  # type: ignore[arg-type]


def _turn(angles: npt.NDArray[np.float64]) -> Points:
    """Rotation by angles about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turn: Points = about_z @ about_y @ about_x
    return turn
