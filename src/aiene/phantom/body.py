"""The head and neck as a list of shapes with HU, in canonical coordinates, varied by a random generator.

Positions and sizes were read off the average proportions of adult planning CTs (mm, x to the left, y to the
back, z to the head; the origin lies in front of the third cervical vertebra at the height of the chin).
Enhancement is mostly that of a contrast CT in the venous phase (vessels 100 to 185 HU, glands 60 to 110,
muscle 60), in some persons that of a CT without contrast medium.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiene.phantom.shapes import (
    SPINE,
    Arch,
    Chain,
    Column,
    Ellipsoid,
    Field,
    Layer,
    Shape,
    Tissue,
    beside_spine,
    pairs,
    segmented,
    shell,
)

HEAD = Column(
    (
        (-10, 0, -80, 14, 16),
        (0, 0, -42, 44, 60),
        (20, 0, -28, 57, 78),
        (50, 0, -16, 66, 92),
        (75, 0, -9, 71, 94),
        (100, 0, 2, 72, 93),
        (130, 0, 5, 71, 95),
        (150, 0, 4, 69, 92),
        (172, 0, 5, 62, 81),
        (188, 0, 5, 46, 62),
        (199, 0, 5, 28, 38),
        (206, 0, 5, 4, 6),
    ),
    power=2.3,
    egg=0.16,
)
"""Skin of head and face, down to the chin."""
NECK = Column(
    (
        (-130, 0, 40, 75, 85),
        (-100, 0, 46, 70, 84),
        (-75, 0, 42, 63, 79),
        (-50, 0, 30, 60, 70),
        (-25, 0, 14, 61, 66),
        (-10, 0, 2, 61, 70),
        (0, 0, 4, 61, 62),
        (25, 0, 10, 60, 53),
        (50, 0, 18, 58, 47),
        (75, 0, 32, 52, 50),
    ),
    power=2.4,
)
"""Skin of the neck, down into the trunk."""
TRUNK = Column(
    (
        (-260, 0, 18, 215, 118),
        (-200, 0, 20, 226, 112),
        (-140, 0, 30, 234, 100),
        (-100, 0, 42, 236, 88),
        (-80, 0, 45, 222, 80),
        (-62, 0, 62, 188, 66),
        (-44, 0, 72, 148, 35),
        (-36, 0, 70, 108, 26),
        (-27, 0, 70, 60, 8),
    ),
    power=2.8,
)
"""Skin of shoulders and chest."""
BRAIN = Column(
    (
        (76, 0, 42, 36, 26),
        (95, 0, 50, 50, 36),
        (110, 0, 44, 58, 46),
        (124, 0, 28, 61, 62),
        (134, 0, 8, 62, 82),
        (150, 0, 6, 61, 81),
        (170, 0, 5, 53, 71),
        (186, 0, 5, 37, 52),
        (196, 0, 5, 18, 27),
    ),
    power=2.2,
)
"""Inside of the skull."""


# Bones, air, and what lies within them: painted last, displaced by nothing


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


# Muscles, organs, vessels, and structures that look like nodes


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


@dataclass(frozen=True)
class Anatomy:
    """A person without nodes.

    Parameters
    ----------
    body : outlines whose union is the skin.
    brain : the inside of the skull.
    fat_mm : thickness of the fat under the skin.
    fat_hu : its HU.
    enhancement : 0 is a CT without contrast medium, 1 a strong one.
    tissues : in the order of painting.
    """

    body: tuple[Shape, ...]
    brain: Shape
    fat_mm: float
    fat_hu: float
    enhancement: float
    tissues: tuple[Tissue, ...]


def build_anatomy(rng: np.random.Generator, variation: float) -> Anatomy:
    """A person, drawn at random.

    Parameters
    ----------
    rng : drawn from in a fixed order, so that one seed is one person.
    variation : 0 is the average person, 1 the usual spread of sizes, positions and HU.
    """
    enhancement = float(rng.uniform(0.6, 1.0) if rng.random() < 0.85 else rng.uniform(0.0, 0.3))
    soft = [*muscles(), *strands(rng), *viscera(), *vessels(rng, enhancement), *small_nodes(rng)]
    tissues = [_varied(t, rng, variation) for t in soft]
    tissues += [_varied(t, rng, 0.4 * variation) for t in (*ventricles(), *bones(), *air_spaces())]
    return Anatomy(
        body=(HEAD, NECK, TRUNK),
        brain=BRAIN,
        fat_mm=float(np.clip(4.0 + 2.0 * variation * rng.normal(), 1.5, 9.0)),
        fat_hu=float(np.clip(-95 + 9 * variation * rng.normal(), -115, -70)),
        enhancement=enhancement,
        tissues=tuple(tissues),
    )


def _varied(tissue: Tissue, rng: np.random.Generator, amount: float) -> Tissue:
    shape = tissue.shape.varied(rng, amount)
    shift = float(5 * amount * rng.normal())
    hu = tissue.hu
    if not callable(hu) and -200 < hu < 300:
        hu = hu + shift
    return Tissue(shape, hu, tissue.layer, tissue.edge_mm)
