"""Where a registration can begin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from aiene.geometry import Volume, triple
from aiene.prepare.body import BONE_HU, body_mask, centre_of
from aiene.prepare.pose import Pose
from aiene.prepare.profile import Start
from aiene.prepare.register import centred
from aiene.prepare.search import best_shift
from aiene.prepare.shrink import shrunk

_COARSE_MM = (5.0, 5.0, 5.0)


def start_pose(start: Start, fixed: Volume, moving: Volume) -> Pose | None:
    """The pose from which a registration begins, without a turn; None where the start does not exist.

    Parameters
    ----------
    start : `geometry` centres the two volumes, `search` takes the best of all shifts, `body` and `bone` lay
        centres of mass on each other, `top` the tops of the bodies.
    fixed, moving : template and CT in HU.
    """
    pose = centred(fixed, moving)
    if start == "geometry":
        return pose
    coarse_fixed, coarse_moving = shrunk(fixed, _COARSE_MM), shrunk(moving, _COARSE_MM)
    if start == "search":
        shift: npt.ArrayLike | None = best_shift(coarse_fixed, coarse_moving)
    else:
        shift = _difference(_landmark(start, coarse_fixed), _landmark(start, coarse_moving))
    return None if shift is None else replace(pose, translation=triple(shift))


def _landmark(start: Start, volume: Volume) -> npt.NDArray[np.float64] | None:
    body = body_mask(volume)
    if start == "bone":
        return centre_of(body & (volume.array > BONE_HU), volume)
    if start == "body" or not body.any():
        return centre_of(body, volume)
    points = volume.grid.points(np.argwhere(body))
    top = points[:, 2].max()
    upper: npt.NDArray[np.float64] = points[points[:, 2] > top - 100].mean(axis=0)
    upper[2] = top
    return upper


def _difference(
    template: npt.NDArray[np.float64] | None, ct: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64] | None:
    return None if template is None or ct is None else ct - template
