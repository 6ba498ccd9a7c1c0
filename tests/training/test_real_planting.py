"""Nodes planted into a CT: only their surroundings change, and labels lie where they were planted."""

from __future__ import annotations

import numpy as np
import pytest

from aiene.ingest.case import NativeCt
from aiene.models.bundle import default_folder
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.preprocess.preprocess import prepare, read_template
from aiene.preprocess.profile import OPEN
from tools.default_bundle.bundle_card import NECK_CENTRE
from tools.default_bundle.real_crops import IGNORE, as_crop  # type: ignore[attr-defined]
from tools.default_bundle.real_planting import Patient, RealNode, draw_nodes, patient_of, planted


@pytest.fixture(scope="module")
def patient() -> Patient:
    """A phantom in the place of a real CT, with a block of it as the high-dose target."""
    settings = PhantomSettings(size=(70, 120, 120), spacing=(4.0, 2.2, 2.2), nodes=(0, 0), primary_share=0.0)
    ct = make_phantom(950_001, settings).ct
    template = read_template(default_folder() / "template.nrrd", OPEN, NECK_CENTRE)
    target = np.zeros(ct.grid.size, bool)
    target[30:34, 50:56, 56:62] = True
    return patient_of(ct, prepare(NativeCt(ct, 2), template, OPEN), target)


@pytest.fixture(scope="module")
def nodes(patient: Patient) -> list[RealNode]:
    return draw_nodes(patient, np.random.default_rng(4), 6, 0.3)


@pytest.mark.slow
def test_nothing_but_the_surroundings_of_nodes_changes(patient: Patient, nodes: list[RealNode]) -> None:
    assert nodes
    before = np.rint(patient.ct.array)
    after = planted(patient, [n.lesion for n in nodes], np.random.default_rng(1)).array
    points = patient.ct.grid.points(np.argwhere(after != before))
    centres = np.array([lobe.centre for n in nodes for lobe in n.lesion.lobes])
    distance = np.linalg.norm(points[:, None] - centres, axis=2).min(axis=1)
    assert 0 < distance.max() < 80
    assert (np.abs(after - before) > 20).any()


def test_a_blank_planting_leaves_the_mean_as_it_is(patient: Patient, nodes: list[RealNode]) -> None:
    before = np.rint(patient.ct.array)
    after = planted(patient, [n.lesion for n in nodes], np.random.default_rng(1), blank=True).array
    changed = after != before
    assert changed.any()
    assert abs((after - before)[changed].mean()) < 5


def test_labels_of_the_crop_are_the_planted_shapes_and_the_target_is_ignored(
    patient: Patient, nodes: list[RealNode]
) -> None:
    crop = as_crop(patient, patient.ct, nodes, patient.prepared)
    assert (crop.labels == IGNORE).any()
    for number, node in enumerate(nodes, start=1):
        voxels = np.argwhere(crop.numbers == number)
        if len(node.lesion.lobes) > 1 or node.lesion.margin.roughness or not len(voxels):
            continue
        place = patient.prepared
        middle = place.to_native.apply(place.crop.grid.points(voxels.mean(axis=0)))
        assert np.linalg.norm(middle - node.lesion.lobes[0].centre) < 1.5
        volume = 4 / 3 * np.pi * np.prod(node.lesion.lobes[0].radii)
        assert len(voxels) * place.crop.grid.voxel_volume_mm3 == pytest.approx(volume, rel=0.2)
