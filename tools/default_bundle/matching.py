"""Which found node is which planted node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_COVERED = 0.3
"""Share of a planted node's voxels that the found node must hold."""
LEAST_OWN = 0.1
"""Share of a found node's voxels that must lie in planted nodes for it not to be false."""
LEAST_OF_PRIMARY = 0.5
"""Share of a planted primary that must be called one for it to be found."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Match:
    """The found nodes of one case against the planted ones.

    Parameters
    ----------
    partner : for each found node the number of the planted node that it is; 0 where it is none.
    false : found nodes that lie outside every planted node (under a tenth of them within).
    fragments : found nodes that are neither: a second part of a planted node, or too small a part of it.
    dice : of each matched pair, by planted number; against the planted node alone.
    """

    partner: tuple[int, ...]
    false: tuple[int, ...]
    fragments: tuple[int, ...]
    dice: dict[int, float]


def match(found: list[Mask], numbers: npt.NDArray[np.uint8], segmented: Mask | None = None) -> Match:
    """One to one by largest overlap.

    A planted node is found where one found node, which is not already the partner of another, holds at least
    30 % of its voxels.

    Parameters
    ----------
    found : masks of the found nodes, on the crop.
    numbers : number of the planted node at each voxel of the crop, 0 elsewhere.
    segmented : voxels that the segmenter labelled; the Dice counts only these of each found node, without the
        outer layer that the split adds. None: all of them.
    """
    sizes = np.bincount(numbers.ravel(), minlength=1)
    shared = [np.bincount(numbers[mask], minlength=len(sizes)) for mask in found]
    pairs = sorted(
        (
            (int(counts[n]), n, k)
            for k, counts in enumerate(shared)
            for n in range(1, len(sizes))
            if sizes[n] and counts[n] >= LEAST_COVERED * sizes[n]
        ),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    partner = [0] * len(found)
    taken: set[int] = set()
    for _, n, k in pairs:
        if n not in taken and partner[k] == 0:
            partner[k] = n
            taken.add(n)
    false: list[int] = []
    fragments: list[int] = []
    for k, mask in enumerate(found):
        if partner[k]:
            continue
        inside = shared[k][1:].sum() / max(int(mask.sum()), 1)
        (fragments if inside >= LEAST_OWN else false).append(k)
    dice = {n: _dice(found[k], numbers == n, segmented) for k, n in enumerate(partner) if n}
    return Match(tuple(partner), tuple(false), tuple(fragments), dice)


def _dice(found: Mask, planted: Mask, segmented: Mask | None) -> float:
    own = found if segmented is None else found & segmented
    return float(2 * np.count_nonzero(own & planted) / (np.count_nonzero(own) + np.count_nonzero(planted)))
