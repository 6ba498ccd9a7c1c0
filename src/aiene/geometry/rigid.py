"""Rigid transforms between two spaces of points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class RigidTransform:
    """Takes LPS points (mm) of one space to another: rotation, then translation.

    Parameters
    ----------
    rotation : 3 x 3 orthonormal matrix of determinant 1, on columns (x, y, z).
    translation : mm along x, y, z.

    Raises
    ------
    ValueError : the matrix is no rotation, or a number is not finite.
    """

    rotation: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        turn = np.array(self.rotation, dtype=np.float64)
        if turn.shape != (3, 3) or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-6):
            raise ValueError("the matrix is not orthonormal")
        if np.linalg.det(turn) < 0 or not np.isfinite(self.translation).all():
            raise ValueError("the transform mirrors, or shifts to nowhere")

    @classmethod
    def from_matrix(cls, matrix: npt.ArrayLike) -> RigidTransform:
        """The transform of a 4 x 4 matrix on points (x, y, z, 1)."""
        m = np.asarray(matrix, dtype=np.float64)
        x, y, z = (float(v) for v in m[:3, 3])
        return cls(tuple(tuple(float(v) for v in row) for row in m[:3, :3]), (x, y, z))

    @cached_property
    def matrix(self) -> npt.NDArray[np.float64]:
        """4 x 4, on points (x, y, z, 1); read-only."""
        m = np.eye(4)
        m[:3, :3] = self.rotation
        m[:3, 3] = self.translation
        m.flags.writeable = False
        return m

    @property
    def angle_degrees(self) -> float:
        """How far the transform turns, about whichever axis."""
        cosine = (np.trace(self.matrix[:3, :3]) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))

    def apply(self, points_lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Points (..., 3) taken to the other space."""
        moved: npt.NDArray[np.float64] = (
            np.asarray(points_lps, dtype=np.float64) @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        )
        return moved

    def inverse(self) -> RigidTransform:
        """The way back, exact: the rotation's transpose."""
        back = self.matrix[:3, :3].T
        m = np.eye(4)
        m[:3, :3] = back
        m[:3, 3] = -back @ self.matrix[:3, 3]
        return RigidTransform.from_matrix(m)

    def after(self, first: RigidTransform) -> RigidTransform:
        """`first`, then this one."""
        return RigidTransform.from_matrix(self.matrix @ first.matrix)
