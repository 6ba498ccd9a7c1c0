"""Values that no CT can hold, brought into its range before anything else sees them.

The rule
    NaN and infinite values are refused, and so is what float32 cannot hold. Below -1024 HU there is nothing:
    untagged padding (-2000, -3024, -32768) and the noise of air become -1024, as tagged padding does. Above
    30,710 HU, where the extended CT scale ends, a value is no measurement: what touches a face of the volume
    is padding of another kind (a negative number that was read unsigned) and becomes -1024 too, any other
    voxel becomes 30,710.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.errors import Said, ours, said
from aiene.ingest.checks import check_finite
from aiene.ingest.lattice import AIR_HU, narrow

HIGHEST_HU: Final = 30710.0
"""End of the extended CT scale (12 bits times ten). A 12-bit CT ends at 3071; dental metal on the extended
scale reaches 27,012 in the CTs of OpenKBP, none of which this range changes."""

_LOWEST_STORED: Final = -32768.0
"""Padding is a number of 16 bits: what lies below has another cause, and the user should look at it."""


@dataclass(frozen=True, eq=False)
class InRange:
    """Voxels within the range of CT, and what was done to bring them there.

    Parameters
    ----------
    array : HU; int16 where nothing is lost, else float32. The array that was given where all were in range.
    facts : counts for the record; empty where all were in range.
    warnings : what the user should look at.
    """

    array: npt.NDArray[Any]
    facts: dict[str, int] = field(default_factory=dict)
    warnings: tuple[Said, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        """What `case.json` says of it."""
        return {"out_of_range_voxels": self.facts} if self.facts else {}


def in_ct_range(path: Path, array: npt.NDArray[Any]) -> InRange:
    """Bring the voxels of a CT into the range of CT, by the rule above.

    Parameters
    ----------
    path : named in the error.
    array : HU (z, y, x), int16 or float32.

    Raises
    ------
    InputError : a voxel is NaN or infinite; says how many.
    """
    check_finite(path, array)
    lowest, highest = float(array.min()), float(array.max())
    if lowest >= AIR_HU and highest <= HIGHEST_HU:
        return InRange(array)
    below = int(np.count_nonzero(array < AIR_HU))
    above = array > HIGHEST_HU if highest > HIGHEST_HU else None
    clipped = np.clip(array, AIR_HU, HIGHEST_HU).astype(array.dtype, copy=False)
    facts, warnings = {"below_air": below} if below else {}, []
    if lowest < _LOWEST_STORED:
        warnings.append(
            said(
                "it holds values down to {:g} HU, which no CT does: all below {:g} were taken as air",
                lowest,
                AIR_HU,
            )
        )
    if above is not None:
        count = int(np.count_nonzero(above))
        rim = _at_a_face(above)
        padded = int(np.count_nonzero(rim))
        clipped[rim] = AIR_HU
        facts |= {"above_ct_range": count - padded, "padding_above_ct_range": padded}
        warnings.append(_told(count, padded, highest))
    return InRange(narrow(clipped), facts, tuple(warnings))


def _told(count: int, padded: int, highest: float) -> Said:
    voxels = ours("1 voxel has a value") if count == 1 else said("{} voxels have values", count)
    if padded == count:
        taken = ours("taken as padding (air), since it is at the edge")
    elif padded:
        taken = said("{} at the edge were taken as padding (air), the others as {:g} HU", padded, HIGHEST_HU)
    else:
        taken = said("taken as {:g} HU", HIGHEST_HU)
    return said("{} that no CT holds (up to {:g} HU): {}", voxels, highest, taken)


def _at_a_face(there: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The connected parts that touch a face of the volume."""
    parts, _ = ndimage.label(there)
    faces = [np.take(parts, side, axis=axis).ravel() for axis in range(3) for side in (0, -1)]
    touching = np.unique(np.concatenate(faces))
    return np.isin(parts, touching[touching > 0])
