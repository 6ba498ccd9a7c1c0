"""Bones, air and what lies within them: painted last, and pushed aside by nothing."""

from __future__ import annotations

import numpy as np

from aiene.phantom.shapes import Arch, Chain, Column, Ellipsoid, Field
from aiene.phantom.tissue import SPINE, Layer, Tissue, beside_spine, pairs, segmented, shell


def bones() -> list[Tissue]:
    """Spine, jaws with teeth, hyoid, larynx, skull base, face, shoulder girdle and sternum."""
    hard: Layer = "hard"
    middle = [
        Tissue(Column(SPINE), segmented(330, 95, 0.68), hard),
        Tissue(beside_spine(0, 21, 14, 13, -230, 66), segmented(480, 150, 0.55), hard),
        Tissue(beside_spine(0, 40, 3, 13, -230, 50), segmented(420, 20, 0.36), hard),
        Tissue(beside_spine(0, 20, 9.5, 8, -230, 80), 35.0, hard),
        Tissue(Arch((0, -30, 12), (46, 64), 5.5, 15, back=0), shell(1100, 420, 2.5), hard),
        Tissue(Arch((0, -38, 32), (30, 48), 4.5, 7), 1500.0, hard),
        Tissue(Arch((0, -38, 49), (31, 52), 4.5, 8), 1500.0, hard),
        Tissue(Arch((0, -38, 62), (31, 52), 5, 5), 600.0, hard),
        Tissue(Ellipsoid((0, -58, 62), (27, 34, 3)), 500.0, hard),
        Tissue(Arch((0, -24, -4), (18, 21), 2, 3, back=4), 420.0, hard),
        Tissue(Arch((0, -24, -26), (19, 21), 2, 15, back=10), 130.0, hard),
        Tissue(Arch((0, -24, -50), (12, 12), 2.5, 5, back=14), 180.0, hard),
        Tissue(Ellipsoid((0, -6, 96), (13, 8, 18), 0.5), 480.0, hard),
        Tissue(Ellipsoid((0, -52, 100), (36, 44, 4)), 300.0, hard),
        Tissue(Chain(((0, -48, -104, 9), (0, -66, -150, 9), (0, -84, -200, 8))), shell(500, 150, 2), hard),
        Tissue(Ellipsoid((0, -100, 104), (6, 8, 12)), 350.0, hard),
    ]
    return middle + pairs(
        [
            Tissue(beside_spine(17, 8, 7, 7, -90, 64), segmented(420, 130, 0.6), hard),
            Tissue(Column(((16, 47, -24, 4.5, 15), (45, 48, -24, 4, 16), (72, 50, -16, 4.5, 12))),
                   shell(1000, 450, 2), hard),
            Tissue(Ellipsoid((34, 16, 92), (30, 12, 10)), 650.0, hard),
            Tissue(Ellipsoid((17, 10, 74), (8, 10, 7)), 500.0, hard),
            Tissue(Ellipsoid((54, 26, 84), (11, 14, 18)), shell(650, -350, 3), hard),
            Tissue(Chain(((42, -76, 88, 6), (60, -52, 88, 3.5), (66, -20, 90, 3.5))), 650.0, hard),
            Tissue(Ellipsoid((27, -62, 84), (18, 20, 19)), shell(420, -950, 2), hard),
            Tissue(Chain(((17, -44, -96, 9), (55, -38, -86, 6), (95, -10, -70, 6), (142, 18, -68, 7))),
                   shell(800, 300, 2.5), hard),
            Tissue(Chain(((168, 22, -98, 24), (186, 22, -150, 13), (192, 24, -250, 12))), shell(700, 180, 4),
                   hard),
            Tissue(Chain(((140, 30, -100, 10), (112, 92, -92, 5), (86, 104, -110, 5), (96, 104, -200, 5))),
                   shell(600, 250, 2), hard),
            Tissue(Chain(((34, 44, -90, 5), (70, 20, -104, 6), (40, -40, -118, 6))),
                   shell(500, 200, 2), hard),
        ]
    )  # fmt: skip


def _ribs(distance: Field, z: Field) -> Field:
    """Lung, with ribs in its outermost 7 mm."""
    rib = np.clip(np.cos(z * np.float32(2 * np.pi / 24)) * 4 - 1.2, 0, 1) * np.clip((distance + 7) / 2, 0, 1)
    wall = np.clip((distance + 7) / 2, 0, 1)
    value: Field = (-830 * (1 - wall) + wall * (40 + 420 * rib)).astype(np.float32)
    return value


def air_spaces() -> list[Tissue]:
    """Airway from nose to trachea, sinuses, ear canals, orbits and lungs."""
    hard: Layer = "hard"
    air = -990.0
    middle = [
        Tissue(Column(((-210, 0, 30, 9, 8), (-140, 0, 16, 9, 8.5), (-100, 0, -5, 9, 8.5),
                       (-62, 0, -21, 8.5, 9), (-46, 0, -24, 8, 9), (-36, 0, -27, 5, 9), (-30, 0, -28, 3, 9),
                       (-18, 0, -25, 8, 9),
                       (0, 0, -19, 10, 8), (22, 0, -19, 11, 8), (48, 0, -18, 9, 5), (66, 0, -18, 11, 8),
                       (96, 0, -20, 12, 9))), air, hard),
        Tissue(Column(((66, 0, -60, 6, 38), (80, 0, -60, 11, 38), (104, 0, -55, 8, 34))), air, hard),
        Tissue(Ellipsoid((0, -58, 56.5), (16, 26, 2.2)), air, hard),
        Tissue(Ellipsoid((0, -14, 112), (13, 12, 9)), air, hard),
        Tissue(Ellipsoid((0, -56, 113), (12, 26, 9)), shell(200, -850, 1), hard),
        Tissue(Ellipsoid((0, -80, 146), (17, 4.5, 10)), air, hard),
        Tissue(Column(((68, 0, -60, 1.2, 36), (102, 0, -56, 1.2, 34))), 150.0, hard),
    ]  # fmt: skip
    return middle + pairs(
        [
            Tissue(Ellipsoid((8, -58, 74), (3.2, 28, 5)), 60.0, hard),
            Tissue(Ellipsoid((64, 6, 88), (12, 3.5, 3.5)), air, hard),
            Tissue(Ellipsoid((32, -80, 118), (17, 18, 15)), -80.0, hard),
            Tissue(Ellipsoid((33, -84, 118), (12, 12, 12)), 18.0, hard),
            Tissue(Ellipsoid((60, 32, -215), (58, 64, 134)), _ribs, hard),
        ]
    )


def ventricles() -> list[Tissue]:
    """The lateral ventricles of the brain."""
    return pairs([Tissue(Ellipsoid((9, 0, 152), (4, 26, 9), 0.2), 12.0, "hard")])
