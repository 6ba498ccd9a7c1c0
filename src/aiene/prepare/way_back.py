"""From the crop back to the patient's own CT."""

from __future__ import annotations

from aiene.geometry import Volume, pull_labels
from aiene.prepare.prepared import Prepared


def to_native(labels: Volume, prepared: Prepared) -> Volume:
    """A label map of the crop on the native CT's grid, by nearest neighbour.

    Parameters
    ----------
    labels : integers (64, 160, 160) on the crop's grid.
    prepared : the crop's way back.
    """
    return pull_labels(labels, prepared.native, prepared.to_native.inverse())
