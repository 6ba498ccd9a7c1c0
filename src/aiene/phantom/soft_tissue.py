"""Muscles, organs, vessels, and what looks like a node and is none."""

from __future__ import annotations

import numpy as np

from aiene.phantom.shapes import Chain, Column, Ellipsoid, Shape
from aiene.phantom.tissue import Tissue, beside_spine, pairs


def muscles() -> list[Tissue]:
    """Muscles of the neck, the jaw and the floor of the mouth, both sides."""
    muscle, dark = 60.0, 54.0
    return pairs(
        [
            Tissue(beside_spine(22, 29, 22, 17, -150, 62), muscle, edge_mm=1.5),
            Tissue(beside_spine(12, 46, 12, 12, -150, 66), muscle, edge_mm=1.5),
            Tissue(beside_spine(8, -11, 7.5, 4.5, -90, 62), dark),
            Tissue(beside_spine(27, 4, 8, 9, -95, 20), dark),
            Tissue(beside_spine(38, 16, 7.5, 10, -75, 45), dark),
            Tissue(Column(((-120, 40, 92, 50, 14), (-60, 36, 82, 40, 10), (-20, 28, 66, 26, 7),
                           (20, 18, 54, 16, 6), (60, 14, 62, 12, 6)), angle=-0.35), muscle),
            Tissue(Column(((-93, 17, -26, 8, 5), (-75, 27, -22, 12, 6), (-50, 38, -14, 14, 7),
                           (-25, 45, -4, 17, 7), (0, 49, 8, 17, 7.5), (25, 50, 16, 16, 7.5),
                           (50, 51, 22, 13, 7), (75, 54, 25, 8, 6)), angle=1.0), muscle),
            Tissue(Column(((-95, 9, -30, 9, 3), (-55, 10, -38, 9, 3), (-12, 9, -48, 8, 3)), angle=0.35),
                   dark),
            Tissue(Ellipsoid((53, -36, 40), (8, 19, 27)), muscle),
            Tissue(Ellipsoid((37, -30, 46), (8, 15, 24)), muscle),
            Tissue(Ellipsoid((34, -40, 76), (13, 20, 16)), dark),
            Tissue(Ellipsoid((60, -32, 98), (6, 26, 26)), muscle),
            Tissue(Ellipsoid((27, 2, 28), (7, 6, 22)), dark),
            Tissue(Ellipsoid((12, -66, -1), (7, 26, 5)), muscle),
        ]
    )  # fmt: skip


def viscera() -> list[Tissue]:
    """Pharynx, larynx, tongue, oesophagus, thyroid, salivary glands and tonsils."""
    middle = [
        Tissue(Column(((-52, 0, -26, 19, 17), (-25, 0, -30, 22, 18), (0, 0, -24, 23, 17),
                       (30, 0, -22, 22, 15), (60, 0, -20, 20, 13), (85, 0, -20, 18, 12))), 62.0),
        Tissue(Ellipsoid((0, -56, 28), (25, 36, 26)), 66.0),
        Tissue(Ellipsoid((0, -66, 6), (27, 28, 10)), 58.0),
        Tissue(Column(((-200, 3, 32, 8, 6), (-100, 3, 14, 8, 5), (-55, 1, -6, 9, 4))), 45.0),
        Tissue(Ellipsoid((0, -36, -62), (14, 4, 8)), 135.0),
    ]  # fmt: skip
    return middle + pairs(
        [
            Tissue(Ellipsoid((17, -22, -56), (8, 9, 22)), 150.0),
            Tissue(Ellipsoid((32, -36, 4), (9, 15, 13)), 88.0),
            Tissue(Ellipsoid((14, -62, 6), (6, 16, 6)), 80.0),
            Tissue(Ellipsoid((57, -4, 56), (11, 19, 26)), 12.0, edge_mm=2.0),
            Tissue(Ellipsoid((53, 12, 34), (8, 9, 16)), 15.0, edge_mm=2.0),
            Tissue(Ellipsoid((17, -24, 32), (6, 8, 11)), 78.0),
        ]
    )


def vessels(rng: np.random.Generator, enhancement: float) -> list[Tissue]:
    """Carotid, jugular, subclavian and smaller vessels; the jugular veins' widths are drawn for each side."""
    artery, vein = (float(45 + enhancement * rng.uniform(*hu)) for hu in ((80, 140), (70, 130)))
    found: list[Tissue] = []
    for side in (1, -1):
        j = float(rng.uniform(0.75, 1.45))  # one jugular vein is often much wider
        shapes: list[tuple[Shape, float]] = [
            (Column(((-150, 12, 20, 4.5, 4.5), (-100, 13, 4, 4, 4), (-80, 18, -4, 3.8, 3.8),
                     (-50, 23, -8, 3.6, 3.6), (-25, 27, -9, 3.8, 3.8), (-5, 28, -8, 4.6, 4.2),
                     (20, 28, -4, 3, 3), (75, 26, -4, 2.6, 2.6))), artery),
            (Column(((-5, 28, -12, 2.2, 2.2), (15, 31, -16, 2, 2), (45, 44, -12, 1.8, 1.8))), artery),
            (Column(((-110, 22, 2, 6 * j, 5 * j), (-80, 27, 0, 5.5 * j, 4.5 * j), (-50, 32, -4, 5 * j, 4 * j),
                     (-25, 35, -3, 5 * j, 4 * j), (0, 36, 0, 5 * j, 4.2 * j), (25, 36, 4, 4.6 * j, 4 * j),
                     (72, 31, 6, 4 * j, 4 * j)), angle=-0.5), vein),
            (Chain(((48, 30, -80, 1.8), (57, 6, -25, 1.8), (58, -2, 30, 1.6))), vein),
            (Chain(((36, -4, -8, 2), (42, -22, -2, 1.8), (40, -50, 4, 1.5))), vein),
            (Chain(((18, -2, -80, 2), (26, -20, -58, 1.6), (18, -28, -45, 1.3))), artery),
            (Chain(((16, 8, -95, 4.5), (45, 10, -88, 4.5), (85, 12, -100, 4.5), (120, 15, -120, 4))), artery),
            (Chain(((20, -12, -98, 5), (50, -16, -95, 5), (90, -5, -102, 5), (122, 5, -125, 4))), vein),
            (Chain(((0, -8, -178, 14), (14, -16, -140, 7), (20, -6, -104, 5.5))), vein),
        ]  # fmt: skip
        for shape, hu in shapes:
            found.append(Tissue(shape if side == 1 else shape.mirrored(), hu))
    return [*found, Tissue(Ellipsoid((5, -10, -180), (36, 26, 34)), artery)]


def strands(rng: np.random.Generator) -> list[Tissue]:
    """Thin muscles and small vessels that run anywhere in the neck: long, so no nodes."""
    found = []
    for _ in range(int(rng.integers(4, 13))):
        side = float(rng.choice([-1, 1]))
        x, y, z = side * rng.uniform(22, 56), rng.uniform(-45, 45), rng.uniform(-75, 45)
        way = rng.normal(size=3) * (0.5, 0.8, 1.0)
        dx, dy, dz = way / np.linalg.norm(way) * rng.uniform(14, 32)
        r = float(rng.uniform(1.2, 4.0))
        rod = Chain(((x - dx, y - dy, z - dz, r), (x, y, z, r * 1.2), (x + dx, y + dy * 0.6, z + dz, r)))
        found.append(Tissue(rod, float(rng.choice([rng.uniform(45, 65), rng.uniform(90, 170)]))))
    return found


def small_nodes(rng: np.random.Generator) -> list[Tissue]:
    """Normal nodes of 3 to 7 mm along the jugular chain and in the posterior triangle: never labelled."""
    found = []
    for _ in range(int(rng.integers(6, 18))):
        z = float(rng.uniform(-75, 45))
        posterior = rng.random() < 0.35
        x = float(rng.normal(46 if posterior else 42, 3)) * float(rng.choice([-1, 1]))
        y = float(rng.normal(24 if posterior else -4, 6))
        size = float(rng.uniform(1.3, 2.4))
        shape = Ellipsoid(
            (x, y, z), (size, size * float(rng.uniform(1, 1.4)), size * float(rng.uniform(1, 2)))
        )
        found.append(Tissue(shape, float(rng.uniform(60, 100))))
    return found
