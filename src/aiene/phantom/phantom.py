"""A head-and-neck CT of nobody, with lymph nodes whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiene.geometry import Grid, Volume
from aiene.phantom.anatomy import build_anatomy
from aiene.phantom.planting import PlantedNode, Wishes, plant
from aiene.phantom.pose import Pose, draw_pose
from aiene.phantom.render import blocks, hard_clearance, points_of, render_slab, scanned
from aiene.phantom.settings import PhantomSettings


@dataclass(frozen=True, eq=False)
class Phantom:
    """A CT and the truth about it, all on one grid.

    Parameters
    ----------
    ct : int16 HU.
    labels : uint8, 1 GTVp, 2 GTVn.
    node_map : uint8, number of the planted node.
    nodes : what was planted, in the order of their numbers.
    pose : takes the scan's points to canonical anatomy.
    """

    ct: Volume
    labels: Volume
    node_map: Volume
    nodes: tuple[PlantedNode, ...]
    pose: Pose


def make_phantom(seed: int, settings: PhantomSettings | None = None) -> Phantom:
    """A phantom patient; the same seed and settings give the same bytes.

    Person, lesions and noise have random streams of their own: the same seed on another grid is the same
    person with the same nodes.

    Parameters
    ----------
    seed : which person.
    settings : which kind of phantom and scan; None: the usual ones.
    """
    wanted = settings or PhantomSettings()
    node_seed = seed if wanted.node_seed is None else wanted.node_seed
    grid = wanted.grid or _axial_grid(wanted, np.random.default_rng((seed, 0)))
    person = np.random.default_rng((seed, 1))
    pose = draw_pose(
        person, centre_lps=grid.centre, variation=wanted.variation, tilt_degrees=wanted.tilt_degrees
    )
    anatomy = build_anatomy(person, wanted.variation)
    wishes = Wishes(
        wanted.nodes, wanted.ene_share, wanted.primary_share, wanted.weakest_ene, wanted.mimic_share
    )
    lesions, nodes = plant(
        np.random.default_rng((seed, 2, node_seed)),
        wishes,
        pose,
        lambda points: hard_clearance(anatomy, pose, points),
        anatomy.enhancement,
    )
    hu = np.empty(grid.size, dtype=np.float32)
    labels = np.empty(grid.size, dtype=np.uint8)
    numbers = np.empty(grid.size, dtype=np.uint8)
    voxel_mm = float(min(np.sort(grid.spacing)[:2]))
    for slab in blocks(grid):
        hu[slab], labels[slab], numbers[slab] = render_slab(
            anatomy, pose, lesions, points_of(grid, slab), voxel_mm, table=wanted.table
        )
    ct = scanned(hu, grid, wanted.scanner, np.random.default_rng((seed, 3, node_seed)))
    return Phantom(Volume(ct, grid), Volume(labels, grid), Volume(numbers, grid), tuple(nodes), pose)


def _axial_grid(settings: PhantomSettings, rng: np.random.Generator) -> Grid:
    """An ordinary axial stack; scanners put the origin anywhere."""
    half = (np.array(settings.size) - 1) / 2 * np.array(settings.spacing)
    middle = rng.uniform((-15, -190, -900), (15, -110, 300))
    x, y, z = (float(v) for v in middle - half[::-1])
    return Grid(settings.size, settings.spacing, (x, y, z))
