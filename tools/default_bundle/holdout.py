"""Which patients of OpenKBP no network of this repository learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

HELD_OUT = 20
VALIDATION = 8


def held_out(patients: Iterable[str]) -> frozenset[str]:
    """The patients that are kept for the tests: the 20 whose id has the lowest SHA-256.

    The template has not seen them either.

    Parameters
    ----------
    patients : all ids, such as `pt_193`; the choice depends on the whole list.
    """
    return frozenset(_ranked(patients)[:HELD_OUT])


def kept_back(patients: Iterable[str]) -> frozenset[str]:
    """The patients on whom thresholds are chosen: the next 8. No network learns from them."""
    return frozenset(_ranked(patients)[HELD_OUT : HELD_OUT + VALIDATION])


def _ranked(patients: Iterable[str]) -> list[str]:
    return sorted(set(patients), key=lambda patient: hashlib.sha256(patient.encode()).hexdigest())
