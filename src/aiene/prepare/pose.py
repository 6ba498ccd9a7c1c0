"""Euler transforms as SimpleITK has them, and as ours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from aiene.geometry import RigidTransform, Triple


@dataclass(frozen=True)
class Pose:
    """A rigid transform from template points to CT points, kept to the bit as SimpleITK's Euler 3D.

    Parameters
    ----------
    angles : radians about x, y, z.
    translation : mm along x, y, z.
    centre : LPS mm of the point of the template about which it turns.
    """

    angles: Triple
    translation: Triple
    centre: Triple

    @classmethod
    def of(cls, euler: sitk.Euler3DTransform) -> Pose:
        """The pose of SimpleITK's transform."""
        p = euler.GetParameters()
        return cls(p[:3], p[3:], euler.GetFixedParameters()[:3])

    def euler(self) -> sitk.Euler3DTransform:
        """SimpleITK's transform."""
        euler = sitk.Euler3DTransform()
        euler.SetFixedParameters((*self.centre, 0.0))
        euler.SetParameters((*self.angles, *self.translation))
        return euler

    def rigid(self) -> RigidTransform:
        """Ours."""
        turn = np.array(self.euler().GetMatrix()).reshape(3, 3)
        centre = np.array(self.centre)
        matrix = np.eye(4)
        matrix[:3, :3] = turn
        matrix[:3, 3] = np.array(self.translation) + centre - turn @ centre
        return RigidTransform.from_matrix(matrix)
