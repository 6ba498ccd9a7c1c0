"""The whole road: the answer does not depend on how a CT is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from aiene.geometry.grid import AxisOrder, Volume
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.models.bundle import find_bundle
from aiene.phantom.phantom import Phantom
from aiene.pipeline import Settings, infer_case, load_networks, preprocess_case
from aiene.preprocess.preprocess import load_preparation
from aiene.results.nifti import write_nifti

pytestmark = pytest.mark.slow

SAGITTAL = AxisOrder((2, 0, 1), (True, True, False))
WIDE = ((2, 0), (9, 1), (0, 14))


def test_a_sagittal_ct_in_more_air_has_the_same_nodes_at_the_same_places_and_the_same_ene(
    phantoms: dict[str, Phantom], tmp_path: Path
) -> None:
    bundle = find_bundle("default")
    preparation = load_preparation(bundle)
    networks = load_networks(bundle, torch.device("cpu"), own_masks=False)
    settings = Settings(ene_threshold=bundle.card.ene_threshold)
    ct = phantoms["one"].ct
    in_air = np.pad(ct.array, WIDE, constant_values=-3024)
    wide = Volume(in_air, ct.grid.crop((-2, -9, 0), in_air.shape)).reordered(SAGITTAL)
    write_nifti(ct, tmp_path / "axial.nii.gz")
    write_nifti(wide, tmp_path / "sagittal.nii.gz")
    cases, _ = find_cases(tmp_path)
    axial, sagittal = (
        infer_case(
            preprocess_case(case, preparation),
            networks,
            settings,
            labels=bundle.card.labels,
            midline_x=preparation.midline_x,
        )
        for case in cases
        if isinstance(case, Case)
    )
    assert len(axial[0].nodes) >= 1
    assert len(axial[0].nodes) == len(sagittal[0].nodes)
    for one, other in zip(axial[0].nodes, sagittal[0].nodes, strict=True):
        assert other.name == one.name
        assert other.ene == pytest.approx(one.ene, abs=1e-6)
        assert other.pos == pytest.approx(one.pos, abs=1e-6)
        assert other.side == one.side
        assert other.ene_classification == one.ene_classification
        assert other.native_volume_mm3 == pytest.approx(one.native_volume_mm3, rel=1e-6)
        np.testing.assert_allclose(other.centroid_lps_mm, one.centroid_lps_mm, atol=1e-3)
    for name in ("labels", "nodes"):
        stored: Volume = getattr(sagittal[1], name)
        assert stored.array.shape == wide.array.shape
        back = stored.anatomical().array
        inner = tuple(slice(low, low + n) for (low, _), n in zip(WIDE, ct.grid.size, strict=True))
        np.testing.assert_array_equal(back[inner], getattr(axial[1], name).array)
