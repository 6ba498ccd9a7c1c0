"""Which patients of OpenKBP no template and no network of this repository has ever seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

HELD_OUT = 20


def held_out(patients: Iterable[str]) -> frozenset[str]:
    """The patients that are kept for the tests: the 20 whose id has the lowest SHA-256.

    Parameters
    ----------
    patients : all ids, such as `pt_193`; the choice depends on the whole list.
    """
    ranked = sorted(set(patients), key=lambda patient: hashlib.sha256(patient.encode()).hexdigest())
    return frozenset(ranked[:HELD_OUT])
