"""What a body is made of: a shape, its HU, and the helpers that build many of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aiene.phantom.shapes import Column, Field, Shape

Hu = float | Callable[[Field, Field], Field]
Layer = Literal["soft", "hard"]

VERTEBRA_MM = 17.0
"""Height of a cervical vertebra with its disc."""


@dataclass(frozen=True)
class Tissue:
    """A shape and what it is filled with.

    Parameters
    ----------
    shape : where it lies.
    hu : one value, or a function of signed distance and canonical z (mm).
    layer : `soft` is pushed aside by nodes, `hard` (bone, air, lung) is not and lies on top of them.
    edge_mm : width of its border; at least a voxel is used.
    """

    shape: Shape
    hu: Hu
    layer: Layer = "soft"
    edge_mm: float = 1.0


SPINE = (
    (-260, 0, 60, 17, 15),
    (-175, 0, 50, 16, 14),
    (-100, 0, 39, 14, 11),
    (-75, 0, 26, 12, 9),
    (-50, 0, 14, 10.5, 8.5),
    (-25, 0, 7, 10, 8),
    (0, 0, 2, 9.5, 8),
    (25, 0, -3, 9, 8),
    (60, 0, -3, 7, 7),
    (72, 0, -2, 5, 5),
)
"""Rows (z, x, y, half-width, half-depth) in mm of the vertebral bodies."""


def beside_spine(dx: float, dy: float, a: float, b: float, low: float, high: float) -> Column:
    """A column that follows the spine at an offset."""
    rows = np.array(SPINE)
    heights = [h for h in rows[:, 0] if low < h < high]
    knots = []
    for h in (low, *heights, high):
        y = float(np.interp(h, rows[:, 0], rows[:, 2]))
        knots.append((h, dx, y + dy, a, b))
    return Column(tuple(knots))


def segmented(bone: float, gap: float, share: float) -> Callable[[Field, Field], Field]:
    """Bone interrupted by discs: HU by canonical z."""
    edge = np.float32(np.cos(np.pi * share))

    def hu(distance: Field, z: Field) -> Field:
        wave = np.cos(z * np.float32(2 * np.pi / VERTEBRA_MM))
        cover = np.clip((wave - edge) * 4 + np.float32(0.5), 0, 1)
        shell = np.clip(1 + (distance + 1.5) / 2, 0, 1) * 280  # cortical bone is denser
        value: Field = (gap + cover * (bone - gap + shell)).astype(np.float32)
        return value

    return hu


def shell(outer: float, inner: float, thickness: float) -> Callable[[Field, Field], Field]:
    """Dense within `thickness` mm of the surface, `inner` HU deeper."""

    def hu(distance: Field, _z: Field) -> Field:
        rim = np.clip(distance + thickness + 0.5, 0, 1)
        value: Field = (inner + rim * (outer - inner)).astype(np.float32)
        return value

    return hu


def pairs(tissues: Iterable[Tissue]) -> list[Tissue]:
    """Left ones, each followed by its mirror image."""
    both = []
    for t in tissues:
        both += [t, Tissue(t.shape.mirrored(), t.hu, t.layer, t.edge_mm)]
    return both
