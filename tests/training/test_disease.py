"""The planter against published numbers: each stands here with its source, apart from those it draws by.

HN: 23 gross nodal volumes and 16 primaries, the public examples of HNTS-MRG 2024 (MRI).
LY: lyDATA (lycosystem/lydata, commit 0d28bbf; R. Ludwig et al., data CC BY-SA 4.0), 2,822 patients.
PA: pathology of neck dissections, pooled series.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from aiene.ingest.case import NativeCt
from aiene.models.bundle import default_folder
from aiene.phantom.lesions import Lesion, Lobe
from aiene.phantom.phantom import Phantom, PhantomSettings, make_phantom
from aiene.preprocess.preprocess import prepare, read_template
from aiene.preprocess.profile import OPEN
from tools.default_bundle.bundle_card import NECK_CENTRE
from tools.default_bundle.disease import (
    Plan,
    draw_chain,
    draw_disease,
    draw_levels,
    draw_node_ml,
    draw_plan,
    draw_primary_ml,
    freed_chain,
    mimics,
    volume_ml,
    world_point,
)
from tools.default_bundle.disease_numbers import NODE_HU, Subsite
from tools.default_bundle.hosts import PHANTOM_AIRWAY_Y_MM, USUAL_AIRWAY_Y_MM, off_phantom
from tools.default_bundle.real_planting import BONE_HU, Patient, patient_of, planted

pytestmark = pytest.mark.slow

CENTRE = np.zeros(3)


def voxels(lobes: tuple[Lobe, ...], mm: float = 1.5) -> npt.NDArray[np.float64]:
    """Points (x, y, z) of a chain on a grid: an independent look at its shape."""
    reach = max(max(o.radii) + float(np.linalg.norm(o.centre)) for o in lobes)
    line = np.arange(-reach, reach + mm, mm)
    points = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = np.zeros(len(points), bool)
    for lobe in lobes:
        local = (points - lobe.centre) @ np.array(lobe.axes).T
        inside |= ((local / lobe.radii) ** 2).sum(axis=1) <= 1
    return points[inside]


def axes_of(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Lengths (mm, short to long) of the ellipsoid of the same second moments; cosine of the longest to z."""
    values, vectors = np.linalg.eigh(np.cov(points.T))
    return 2 * np.sqrt(5 * values), abs(float(vectors[2, -1]))


@pytest.fixture(scope="module")
def chains() -> list[tuple[Lobe, ...]]:
    rng = np.random.default_rng(11)
    return [draw_chain(rng, CENTRE, draw_node_ml(rng)) for _ in range(240)]


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    rng = np.random.default_rng(12)
    return [draw_plan(rng) for _ in range(6000)]


def test_gross_nodal_volumes_are_as_large_as_real_ones() -> None:
    """HN: median 5.2 mL, 10 to 90 %: 1.3 to 18.7."""
    rng = np.random.default_rng(1)
    ml = [draw_node_ml(rng) for _ in range(4000)]
    low, middle, high = np.percentile(ml, [10, 50, 90])
    assert middle == pytest.approx(5.2, rel=0.1)
    assert low == pytest.approx(1.3, rel=0.15)
    assert high == pytest.approx(18.7, rel=0.25)


def test_primaries_are_as_large_as_real_ones() -> None:
    """HN: median 6.1 mL, 10 to 90 %: 2.7 to 21, up to 70."""
    rng = np.random.default_rng(2)
    ml = np.array([draw_primary_ml(rng) for _ in range(4000)])
    np.testing.assert_allclose(np.percentile(ml, [10, 50, 90]), [2.7, 6.1, 21], rtol=0.12)
    assert 45 < ml.max() <= 70


def test_a_chain_has_the_volume_that_was_asked_for(chains: list[tuple[Lobe, ...]]) -> None:
    for lobes in chains[:12]:
        counted = len(voxels(lobes, 0.8)) * 0.8**3 / 1000
        assert volume_ml(lobes) == pytest.approx(counted, rel=0.06)


def test_axes_of_gross_nodal_volumes_are_those_of_real_ones(chains: list[tuple[Lobe, ...]]) -> None:
    """HN: long 43 mm (22 to 76), short 13.8 (9.3 to 23.1), ratios 2.15 and 1.4, cosine to z 0.94."""
    lengths, along = zip(*(axes_of(voxels(c, 2.0)) for c in chains), strict=True)
    short, middle, long = np.array(lengths).T
    assert np.median(long) == pytest.approx(43, rel=0.15)
    assert np.median(short) == pytest.approx(13.8, rel=0.15)
    assert np.median(long / middle) == pytest.approx(2.15, rel=0.15)
    assert np.median(middle / short) == pytest.approx(1.4, rel=0.15)
    assert np.median(along) == pytest.approx(0.94, abs=0.04)
    np.testing.assert_allclose(np.percentile(long, [10, 90]), [22, 76], rtol=0.25)
    np.testing.assert_allclose(np.percentile(short, [10, 90]), [9.3, 23.1], rtol=0.25)


def test_lobes_touch_so_that_a_chain_is_one_piece(chains: list[tuple[Lobe, ...]]) -> None:
    counts = Counter(len(c) for c in chains)
    assert set(counts) == {1, 2, 3, 4}
    for lobes in chains:
        for one, other in itertools.pairwise(lobes):
            way = np.array(other.centre) - one.centre
            line = np.array(one.centre) + np.linspace(0, 1, 60)[:, None] * way
            free = np.ones(60, bool)
            for lobe in (one, other):
                local = (line - lobe.centre) @ np.array(lobe.axes).T / lobe.radii
                free &= np.linalg.norm(local, axis=1) > 1
            assert free.mean() < 0.2


@pytest.mark.parametrize(
    ("subsite", "positive", "shares"),
    [
        ("oropharynx", 0.83, {"II": 0.51, "III": 0.22, "IV": 0.08, "Ib": 0.08, "V": 0.05}),
        ("hypopharynx", 0.83, {}),
        ("larynx", 0.33, {}),
        ("oral cavity", 0.58, {}),
    ],
)
def test_levels_are_involved_as_often_as_in_patients(
    subsite: Subsite, positive: float, shares: dict[str, float]
) -> None:
    """LY: share of node-positive patients, and of each level among the involved ones."""
    rng = np.random.default_rng(3)
    drawn = [draw_levels(rng, subsite) for _ in range(5000)]
    assert np.mean([bool(d) for d in drawn]) == pytest.approx(positive, abs=0.04)
    levels = Counter(level for d in drawn for level, _ in d)
    for level, share in shares.items():
        assert levels[level] / levels.total() == pytest.approx(share, abs=0.03)


def test_levels_are_involved_together_as_in_patients() -> None:
    """LY, oropharynx: III given II 0.43, IV given III 0.30, contralateral II given ipsilateral II 0.23."""
    rng = np.random.default_rng(4)
    drawn = [set(draw_levels(rng, "oropharynx")) for _ in range(8000)]

    def given(what: tuple[str, bool], known: tuple[str, bool]) -> float:
        return float(np.mean([what in d for d in drawn if known in d]))

    assert given(("III", True), ("II", True)) == pytest.approx(0.43, abs=0.05)
    assert given(("IV", True), ("III", True)) == pytest.approx(0.30, abs=0.03)
    assert given(("II", False), ("II", True)) == pytest.approx(0.23, abs=0.03)


def test_positive_nodes_are_as_many_as_in_patients(plans: list[Plan]) -> None:
    """PA: mean 3.0; one 0.37 to 0.40, two 0.20, three 0.15, four 0.09, five and more 0.16 to 0.2.

    One node needs one level, which 0.37 of the patients of LY have: the two tables do not quite agree.
    """
    totals = np.array([sum(p.nodes) for p in plans])
    assert totals.mean() == pytest.approx(3.0, abs=0.25)
    for number, share in ((1, 0.385), (2, 0.20), (3, 0.15), (4, 0.09)):
        assert np.mean(totals == number) == pytest.approx(share, abs=0.06)
    assert np.mean(totals >= 5) == pytest.approx(0.18, abs=0.05)
    assert all(n >= 1 for p in plans for n in p.nodes)


def test_extension_depends_on_the_number_of_nodes(plans: list[Plan]) -> None:
    """PA: 0.52 to 0.56 of node-positive patients; of one node 0.36, two 0.60, six and more 0.72 to 0.83."""
    totals, ene = np.array([sum(p.nodes) for p in plans]), np.array([p.ene for p in plans])
    assert ene.mean() == pytest.approx(0.54, abs=0.04)
    assert ene[totals == 1].mean() == pytest.approx(0.36, abs=0.04)
    assert ene[totals == 2].mean() == pytest.approx(0.60, abs=0.05)
    assert 0.70 <= ene[totals >= 6].mean() <= 0.85


def test_a_chain_is_moved_off_bone_as_a_whole_or_given_up() -> None:
    lobes = draw_chain(np.random.default_rng(6), CENTRE, 1.0)

    def half_space(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(points[:, 0] - 2.0)

    moved = freed_chain(lobes, half_space)
    assert moved is not None
    shifts = np.array([np.subtract(b.centre, a.centre) for a, b in zip(lobes, moved, strict=True)])
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[0], shifts.shape), atol=1e-9)
    assert shifts[0, 0] > 0
    assert voxels(moved)[:, 0].min() > -2.5
    assert freed_chain(lobes, lambda p: np.full(len(p), -30.0)) is None
    assert freed_chain(lobes, lambda p: np.asarray(p[:, 0] - 40.0)) is None  # there is room, too far away


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    settings = PhantomSettings(size=(80, 130, 130), spacing=(3.6, 2.0, 2.0), nodes=(0, 0), primary_share=0.0)
    return make_phantom(950_003, settings)


@pytest.fixture(scope="module")
def patient(phantom: Phantom) -> Patient:
    """A phantom in the place of a real CT."""
    template = read_template(default_folder() / "template.nrrd", OPEN, NECK_CENTRE)
    prepared = prepare(NativeCt(phantom.ct, 2), template, OPEN)
    found = patient_of(phantom.ct, prepared, np.zeros(phantom.ct.grid.size, bool))
    return replace(found, off_phantom_mm=off_phantom(prepared))


@pytest.mark.parametrize("canonical", [(42, 0, 32), (38, -2, -9), (31, 0, -54), (-20, -24, 28)])
def test_canonical_places_are_found_by_the_airway(
    phantom: Phantom, patient: Patient, canonical: tuple[float, float, float]
) -> None:
    """The phantom's own pose says where they are; the crop alone puts them some 20 mm too far forward."""
    true = phantom.pose.world(np.array(canonical))
    off = world_point(patient, np.array(canonical)) - true
    alone = world_point(replace(patient, off_phantom_mm=(0, 0, 0)), np.array(canonical)) - true
    assert abs(off[1]) < 8
    assert alone[1] < -10
    assert np.linalg.norm(off) < np.linalg.norm(alone)


def test_without_an_airway_the_usual_place_is_taken(patient: Patient) -> None:
    prepared = patient.prepared
    nowhere = prepared.crop.with_array(np.full_like(prepared.crop.array, 0.5))
    assert off_phantom(replace(prepared, crop=nowhere))[1] == USUAL_AIRWAY_Y_MM - PHANTOM_AIRWAY_Y_MM
    back = prepared.crop.with_array(np.roll(prepared.crop.array, 5, axis=1))
    assert off_phantom(replace(prepared, crop=back))[1] - off_phantom(prepared)[1] == pytest.approx(
        5, abs=1.5
    )


@pytest.mark.parametrize("enhanced", [True, False])
def test_disease_in_a_neck_has_a_primary_nodes_on_its_side_and_hu_of_its_kind(
    patient: Patient, enhanced: bool
) -> None:
    drawn = [
        draw_disease(patient, np.random.default_rng(k), enhanced=enhanced, primary_share=1.0)
        for k in range(12)
    ]
    nodes = [n for d in drawn for n in d.nodes]
    assert len(nodes) >= 15
    assert sum(d.primary is not None for d in drawn) >= 8
    low, high = NODE_HU[enhanced]
    assert all(low <= n.lesion.hu - patient.muscle_hu <= high for n in nodes)
    assert any(n.strength > 0 for n in nodes)
    assert any(n.strength == 0 for n in nodes)
    assert any(len(n.lesion.lobes) > 1 for n in nodes)
    for d in drawn:
        if d.primary is not None:
            assert d.primary.label == 1
            assert d.lesions[0] is d.primary
        same = dict(d.plan.involved)
        for n in d.nodes:
            assert n.level in {level for level, _ in d.plan.involved}
            if same[n.level] and (n.level, False) not in d.plan.involved and n.level != "RP":
                assert np.sign(n.lesion.lobes[0].centre[0]) == d.plan.side


def test_bone_stays_bone_and_a_primary_replaces_soft_tissue(patient: Patient) -> None:
    found = (
        draw_disease(patient, np.random.default_rng(k), enhanced=True, primary_share=1.0) for k in range(30)
    )
    disease = next(
        d for d in found if d.primary and not d.primary.necrosis and d.nodes and _is_large(d.primary)
    )
    before = np.rint(patient.ct.array)
    after = planted(patient, disease.lesions, np.random.default_rng(0), every_lobe=True).array
    bone = before >= BONE_HU
    np.testing.assert_array_equal(after[bone], before[bone])
    assert disease.primary is not None
    indices = np.argwhere(np.ones(before.shape, bool))
    x, y, z = patient.ct.grid.points(indices).astype(np.float32).T
    nodes = [n.lesion.distance((x, y, z)) < 2 for n in disease.nodes]
    inside = (disease.primary.distance((x, y, z)) < -4) & ~np.any(nodes, axis=0)
    inside = inside.reshape(before.shape) & ~ndimage.binary_dilation(bone)
    assert inside.sum() > 20
    assert abs(np.median(after[inside]) - disease.primary.hu) < 12


def _is_large(lesion: Lesion) -> bool:
    return volume_ml(lesion.lobes) > 8


def test_mimics_are_background(patient: Patient) -> None:
    made = [m for k in range(8) for m in mimics(patient, np.random.default_rng(k), enhanced=True)]
    assert len(made) > 8
    assert all(m.label == 0 for m in made)
    assert max(2 * min(o.radii) for m in made for o in m.lobes) < 10
