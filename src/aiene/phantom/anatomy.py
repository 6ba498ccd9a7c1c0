"""The head and neck as a list of shapes with HU, in canonical coordinates, varied by a random generator.

Positions and sizes were read off the average proportions of adult planning CTs (mm, x to the left, y to the
back, z to the head; the origin lies in front of the third cervical vertebra at the height of the chin).
Enhancement is mostly that of a contrast CT in the venous phase (vessels 100 to 185 HU, glands 60 to 110,
muscle 60), in some persons that of a CT without contrast medium.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiene.phantom.outline import BRAIN, HEAD, NECK, TRUNK
from aiene.phantom.shapes import Shape
from aiene.phantom.skeleton import air_spaces, bones, ventricles
from aiene.phantom.soft_tissue import muscles, small_nodes, strands, vessels, viscera
from aiene.phantom.tissue import Tissue


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
