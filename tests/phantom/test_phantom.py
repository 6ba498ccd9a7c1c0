"""The phantom: the same on every run, plausible in HU, and with its nodes where it says they are."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from aiene.geometry.grid import Grid
from aiene.phantom.phantom import Phantom, PhantomSettings, Scanner, make_phantom

SMALL = PhantomSettings(size=(60, 112, 112), spacing=(4.5, 2.2, 2.2), nodes=(3, 5))
QUIET = Scanner(blur_mm=0.3, noise_hu=0.0, texture_hu=0.0)


def oblique_grid() -> Grid:
    """Turned, anisotropic, left-handed, with the slices running from head to foot."""
    a, b = np.radians(17), np.radians(-9)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    turn = about_z @ about_x
    columns = (-turn[:, 2], turn[:, 1], turn[:, 0])
    direction = tuple(tuple(float(v) for v in column) for column in columns)
    grid = Grid((110, 150, 130), (2.0, 1.4, 1.7), (0.0, 0.0, 0.0), direction)  # type: ignore[arg-type]
    return replace(grid, origin=tuple((np.array((40.0, -25.0, 310.0)) - grid.centre).tolist()))


@pytest.fixture(scope="module")
def oblique() -> Phantom:
    return make_phantom(5, PhantomSettings(grid=oblique_grid(), nodes=(4, 6), scanner=QUIET))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes() -> None:
    digests = [
        hashlib.sha256(p.ct.array.tobytes() + p.labels.array.tobytes()).hexdigest()
        for p in (make_phantom(3, SMALL), make_phantom(3, SMALL))
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_another_seed_is_another_person_with_other_nodes() -> None:
    one, other = make_phantom(3, SMALL), make_phantom(4, SMALL)
    assert one.nodes != other.nodes
    assert (one.ct.array != other.ct.array).mean() > 0.1


@pytest.mark.slow
def test_another_node_seed_plants_other_nodes_into_the_same_person() -> None:
    one, other = make_phantom(3, SMALL), make_phantom(3, replace(SMALL, node_seed=99))
    assert one.pose == other.pose
    assert one.ct.grid == other.ct.grid
    assert one.nodes != other.nodes


@pytest.mark.slow
def test_the_hu_are_those_of_a_head_and_neck_ct() -> None:
    phantom = make_phantom(8, PhantomSettings(size=(75, 180, 180), spacing=(4.0, 1.6, 1.6)))
    hu = phantom.ct.array
    assert hu.dtype == np.int16
    assert -1024 <= hu.min() <= -980
    assert 1000 < hu.max() < 3071
    share = {name: float(((hu > a) & (hu < b)).mean()) for name, (a, b) in BANDS.items()}
    assert share["air"] > 0.3
    assert 0.02 < share["fat"] < 0.4
    assert 0.1 < share["soft"] < 0.5
    assert 0.005 < share["bone"] < 0.15


BANDS = {"air": (-1100, -900), "fat": (-150, -50), "soft": (0, 130), "bone": (300, 3000)}


@pytest.mark.slow
def test_every_planted_node_lies_where_it_says_on_an_oblique_grid(oblique: Phantom) -> None:
    """Against the analytic centre; matted nodes, whose lobes pull the centroid, are left out."""
    single = [n for n in oblique.nodes if n.lobes == 1]
    assert len(single) >= 2
    for node in single:
        voxels = np.argwhere(oblique.node_map.array == node.label)
        centroid = oblique.node_map.grid.points(voxels).mean(axis=0)
        off = np.linalg.norm(centroid - node.centre_lps_mm)
        assert off < 0.5 * oblique.ct.grid.voxel_diagonal_mm + 0.12 * max(node.radii)


def test_a_smooth_node_has_the_volume_of_its_ellipsoid(oblique: Phantom) -> None:
    smooth = [n for n in oblique.nodes if not n.ene]
    assert smooth
    for node in smooth:
        volume = np.count_nonzero(oblique.node_map.array == node.label) * oblique.ct.grid.voxel_volume_mm3
        assert volume == pytest.approx(4 / 3 * np.pi * np.prod(node.radii), rel=0.15)


def test_node_labels_and_node_numbers_agree(oblique: Phantom) -> None:
    numbers = np.unique(oblique.node_map.array)
    assert set(numbers) <= {0, *(n.label for n in oblique.nodes)}
    assert ((oblique.node_map.array > 0) == (oblique.labels.array == 2)).all()


@pytest.mark.slow
def test_a_side_is_the_patients_side() -> None:
    for seed in range(20, 24):
        phantom = make_phantom(seed, replace(SMALL, tilt_degrees=0.0))
        middle = phantom.pose.world((0.0, 0.0, 0.0))[0]
        for node in phantom.nodes:
            assert (node.side == "left") == (node.centre_lps_mm[0] > middle)


def test_the_pose_takes_points_there_and_back(oblique: Phantom) -> None:
    points = np.random.default_rng(0).uniform(-120, 120, size=(200, 3))
    np.testing.assert_allclose(oblique.pose.canonical(oblique.pose.world(points)), points, atol=1e-6)


def _roughness(mask: np.ndarray) -> float:
    """Surface area relative to that of a ball of the same volume, on an isotropic grid."""
    smooth = ndimage.gaussian_filter(mask.astype(np.float64), 1.0)
    area = np.linalg.norm(np.stack(np.gradient(smooth)), axis=0).sum()
    return float(area / (np.pi ** (1 / 3) * (6 * mask.sum()) ** (2 / 3)))


def _margin_slope(hu: np.ndarray, mask: np.ndarray) -> float:
    """Steepest mean fall of HU (per mm) across the margin: blurred margins fall slowly."""
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    steps = [d for d in range(-4, 6) if d]  # the depth of a voxel is at least 1, on either side
    shells = [hu[(depth > d - 0.5) & (depth <= d + 0.5)] for d in steps]
    return float(np.diff([shell.mean() for shell in shells if shell.size]).max())


def _margins(ene_share: float) -> tuple[list[float], list[float]]:
    """Roughness and slope of every node of one lobe."""
    rough, slope = [], []
    for seed in (40, 41):
        settings = PhantomSettings(
            size=(110, 110, 110),
            spacing=(1.3, 1.3, 1.3),
            scanner=QUIET,
            nodes=(5, 6),
            ene_share=ene_share,
            primary_share=0.0,
        )
        phantom = make_phantom(seed, settings)
        for node in phantom.nodes:
            if node.lobes > 1 or np.mean(node.radii) < 6:
                continue
            mask = phantom.node_map.array == node.label
            box = ndimage.find_objects(mask.astype(np.uint8))[0]
            around = tuple(slice(max(s.start - 6, 0), s.stop + 6) for s in box)
            rough.append(_roughness(mask[around]))
            slope.append(_margin_slope(phantom.ct.array[around].astype(float), mask[around]))
    assert len(rough) >= 5
    return rough, slope


@pytest.mark.slow
def test_extension_makes_the_margin_rougher_and_softer() -> None:
    rough, soft = _margins(1.0)
    smooth, sharp = _margins(0.0)
    assert np.median(rough) > np.max(smooth) > 0.95
    assert np.median(soft) < 0.8 * np.median(sharp)


@pytest.mark.slow
def test_small_normal_nodes_are_not_labelled() -> None:
    phantom = make_phantom(3, replace(SMALL, nodes=(0, 0), primary_share=0.0))
    assert phantom.nodes == ()
    assert not phantom.labels.array.any()
