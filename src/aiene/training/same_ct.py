"""The same CT under two case ids: found by what it shows, not by its files.

A copy may lie in another format, order of storage or compression, may have lost slices at its ends, or have
more air around it. So axial slices are compared one by one, each by how often each HU occurs in it: that is
the same in whatever order its voxels are stored. Noise makes the slices of two scans differ. A CT that was
resampled, smoothed or rescaled is not recognised.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from typing import Final

import numpy as np

from aiene.geometry.grid import Volume

_OVER_HU: Final = -500
"""Air and padding differ between copies; what is denser is the patient, and the couch."""
_SHARE: Final = 0.1
"""Two scans share no slice at all; an empty couch below the chin may look the same in a few."""

Slices = frozenset[bytes]


def slices_of(ct: Volume) -> Slices:
    """A digest of every axial slice that shows anything denser than air.

    Parameters
    ----------
    ct : HU in any order of storage; values are rounded, and those that are no numbers left out.
    """
    axis = int(np.argmax(np.abs(np.array(ct.grid.direction)[:, 2])))
    planes = np.moveaxis(ct.array, axis, 0)
    return frozenset(digest for digest in map(_digest, planes) if digest is not None)


def same_cts(slices: Mapping[str, Slices]) -> list[tuple[str, str]]:
    """Pairs of cases that share a tenth of the slices of the shorter one, and at least one.

    Parameters
    ----------
    slices : case id to `slices_of` its CT.
    """
    holders: dict[bytes, list[str]] = defaultdict(list)
    for case in sorted(slices):
        for digest in slices[case]:
            holders[digest].append(case)
    shared: dict[tuple[str, str], int] = defaultdict(int)
    for cases in holders.values():
        for pair in combinations(cases, 2):
            shared[pair] += 1
    return sorted(
        pair
        for pair, count in shared.items()
        if count >= _SHARE * min(len(slices[pair[0]]), len(slices[pair[1]]))
    )


def leaks(slices: Mapping[str, Slices], patient_of: Mapping[str, str]) -> list[str]:
    """One sentence for every CT that would be used for training and evaluation, under two names.

    Parameters
    ----------
    slices : case id to `slices_of` its CT.
    patient_of : case id to patient id.
    """
    return [
        f"{first}, {second}: they show the same CT; remove one, or give both one patient_id with --patients."
        for first, second in same_cts(slices)
        if patient_of[first] != patient_of[second]
    ]


def _digest(plane: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes | None:
    finite = plane[np.isfinite(plane)]
    values, counts = np.unique(np.rint(finite[finite > _OVER_HU]).astype(np.int64), return_counts=True)
    if not len(values):
        return None
    return hashlib.blake2b(np.stack([values, counts]).tobytes(), digest_size=16).digest()
